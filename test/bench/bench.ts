/**
 * `npm run bench`: Cinder's own driver against cinder-delta, in one run, on the same bytes and the same kind of store.
 * Ours is timed over REST, from the request until `available`; Cinder's driver without its imports and its service.
 */
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { codecOf, type Codec } from '../../src/model/codec.ts';
import { createRealBytes } from '../../src/main/real-bytes.ts';
import { showBytes, showRatio, showSeconds, textTable } from '../../src/main/text-table.ts';
import { benchStoreKinds, createBenchStore, type BenchStoreKind } from './bench-store.ts';
import { runScale } from './scale.ts';
import { runScenario, type StepResult } from './scenario.ts';
import { measureStoreLimit } from './store-limit.ts';
import { createWorkspace } from './workspace.ts';

const usage = `npm run bench -- [options]
  --size GiB        size of the volume; may be given several times (default 4 and 16)
  --codec NAME      zlib, zstd, bz2 or none; may be given several times (default zlib, zstd and none for the first
                    size, zlib for the others)
  --store NAME      posix (default), swift or s3: the latter two on a Swift that the bench starts
  --quick           one volume of 1 GiB, zlib
  --scale           also a sparse volume of 1 TiB of which 100 MiB change (ours only); with --size 0 only that
  --directory PATH  where the bench works (default: the system's temporary directory)`;

const GiB = 1024 ** 3;
const { values } = parseArgs({
  options: {
    size: { type: 'string', multiple: true },
    codec: { type: 'string', multiple: true },
    store: { type: 'string', default: 'posix' },
    quick: { type: 'boolean', default: false },
    scale: { type: 'boolean', default: false },
    directory: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

type Run = { readonly sizeGiB: number; readonly codec: Codec };

function plannedRuns(): readonly Run[] {
  const sizes = (values.size ?? (values.quick ? ['1'] : ['4', '16']))
    .map(requireSize)
    .filter((size) => size > 0);
  const codecs = values.codec?.map(requireCodec);
  return sizes.flatMap((sizeGiB, index) => {
    const chosen =
      codecs ?? (index === 0 && !values.quick ? (['zlib', 'zstd', 'none'] as const) : (['zlib'] as const));
    return chosen.map((codec) => ({ sizeGiB, codec }));
  });
}

function requireSize(text: string): number {
  if (/^\d{1,4}$/.test(text)) return Number(text);
  throw new Error(`--size ${text} is not a number of GiB`);
}

function requireCodec(text: string): Codec {
  const codec = codecOf(text);
  if (codec === undefined) throw new Error(`--codec ${text} is not one of zlib, zstd, bz2, none`);
  return codec;
}

function requireStore(text: string): BenchStoreKind {
  const kind = benchStoreKinds.find((each) => each === text);
  if (kind === undefined) throw new Error(`--store ${text} is not one of ${benchStoreKinds.join(', ')}`);
  return kind;
}

function show({ sizeGiB, codec }: Run, results: readonly StepResult[]): void {
  const rows = results.map(({ name, mode, ours, cinder, changedBytes, plainSeconds }) => {
    const isRestore = ours.storedBytes === 0;
    return [
      name,
      isRestore ? '-' : mode,
      showSeconds(ours.seconds),
      showSeconds(cinder.seconds),
      showRatio(cinder.seconds, ours.seconds),
      showBytes(changedBytes),
      isRestore ? '-' : showBytes(ours.readBytes),
      isRestore ? '-' : showBytes(cinder.readBytes),
      isRestore ? '-' : showBytes(ours.storedBytes),
      isRestore ? '-' : showBytes(cinder.storedBytes),
      isRestore ? '-' : showRatio(ours.storedBytes, cinder.storedBytes),
      showBytes(ours.peakBytes),
      showBytes(cinder.peakBytes),
      showSeconds(plainSeconds),
    ];
  });
  const head = [
    'step',
    'way',
    'ours',
    'cinder',
    'faster',
    'changed',
    'read ours',
    'cinder',
    'stored ours',
    'cinder',
    'stored',
    'peak ours',
    'cinder',
    'read+sha256',
  ];
  console.log(`\nvolume of ${sizeGiB} GiB, a quarter of it real bytes, codec ${codec}, objects of 50 MiB\n`);
  console.log(textTable(head, rows));
}

function showGrowth(runs: readonly { readonly run: Run; readonly results: readonly StepResult[] }[]): void {
  const [small, ...others] = runs.filter(({ run }) => run.codec === 'zlib');
  if (small === undefined || others.length === 0) return;
  console.log('\ngrowth of an increment of the same bytes (zlib)\n');
  const rows = others.flatMap(({ run, results }) =>
    results.slice(1, 4).map((result, index) => {
      const before = small.results[index + 1];
      const [ours, cinder] = [before?.ours.seconds ?? 0, before?.cinder.seconds ?? 0];
      return [
        `${result.name}, ${small.run.sizeGiB} to ${run.sizeGiB} GiB`,
        `${showSeconds(ours)} to ${showSeconds(result.ours.seconds)}`,
        showRatio(result.ours.seconds, ours),
        `${showSeconds(cinder)} to ${showSeconds(result.cinder.seconds)}`,
        showRatio(result.cinder.seconds, cinder),
      ];
    }),
  );
  console.log(textTable(['step', 'ours', 'growth', 'cinder', 'growth'], rows));
}

async function main(): Promise<void> {
  if (values.help) {
    console.log(usage);
    return;
  }
  const runs = plannedRuns();
  const kind = requireStore(values.store);
  const largest = Math.max(values.scale ? 16 : 0, ...runs.map(({ sizeGiB }) => sizeGiB));
  await using workspace = await createWorkspace((largest * 4 + 8) * GiB, values.directory);
  const source = createRealBytes(['/usr'], new AbortController().signal);
  const cpu = cpus();
  console.log(
    `${cpu.length} x ${cpu[0]?.model ?? 'unknown processor'}, Linux ${release()}, Node ${process.versions.node}`,
  );
  await using store = await createBenchStore(kind);
  console.log(`volumes on ${workspace.description}; backups in ${store.description}`);
  console.log('caches are warm: every byte that is read has just been written');
  const finished: { run: Run; results: readonly StepResult[] }[] = [];
  // The same bytes change in every size: 1 % of the first.
  const changedBytes = ((runs[0]?.sizeGiB ?? 1) * GiB) / 100;
  try {
    if (store.server !== null && kind !== 'posix') {
      console.log(`\nthe store alone\n\n${await measureStoreLimit(kind, store.server)}\n`);
    }
    for (const run of runs) {
      const results: StepResult[] = [];
      const onStep = (result: StepResult) => {
        results.push(result);
        const { name, ours, cinder } = result;
        console.log(
          `  ${run.sizeGiB} GiB ${run.codec} ${name}: ${showSeconds(ours.seconds)} against ${showSeconds(cinder.seconds)}`,
        );
      };
      await runScenario({ ...run, workspace: workspace.path, changedBytes, source, store, onStep });
      finished.push({ run, results });
    }
    for (const { run, results } of finished) show(run, results);
    showGrowth(finished);
    if (values.scale) console.log(await runScale(workspace.path, source));
  } finally {
    await source.close();
  }
}

await main();
