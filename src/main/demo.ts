/**
 * `npm run demo`: the main job on real bytes, in a temporary directory, over the service's own REST API. A volume of
 * 2 GiB, a quarter of it filled; a full backup; 1 % changes; an increment; verify; both restored and compared.
 * Needs no root and leaves nothing behind.
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BackupError, messageOf } from '../model/errors.ts';
import { totalLength, type Extent } from '../model/extent.ts';
import { createProgressLine } from './progress-line.ts';
import { createRealBytes, writeRealBytes, type RealBytes } from './real-bytes.ts';
import type { OperationView, RestClient } from './rest-client.ts';
import { startService } from './service-process.ts';
import { showBytes, showSeconds, textTable } from './text-table.ts';
import { readWhole, type WholeRead } from './whole-read.ts';

const MiB = 1024 * 1024;
const sizeGiB = 2;
const sizeBytes = sizeGiB * 1024 * MiB;
const blockBytes = 32 * 1024;
const groupBytes = 128 * MiB;
const filledBytes = 32 * MiB;

type Demo = {
  readonly client: RestClient;
  readonly volumesDir: string;
  readonly source: RealBytes;
  readonly signal: AbortSignal;
};

type Step = { readonly name: string; readonly operation: OperationView; readonly seconds: number };

/** As a file system fills its block groups: 32 MiB at the head of every 128 MiB. */
const dataExtents: readonly Extent[] = Array.from({ length: sizeBytes / groupBytes }, (_, group) => ({
  offset: group * groupBytes,
  length: filledBytes,
}));

/** 1 % of the volume in single blocks, evenly spread over the data. */
function changedExtents(): readonly Extent[] {
  const count = Math.round(sizeBytes / 100 / blockBytes);
  const blocksPerGroup = filledBytes / blockBytes;
  const total = dataExtents.length * blocksPerGroup;
  return Array.from({ length: count }, (_, index) => {
    const block = Math.floor((index * total) / count);
    const offset = Math.floor(block / blocksPerGroup) * groupBytes + (block % blocksPerGroup) * blockBytes;
    return { offset, length: blockBytes };
  });
}

function pathOf(demo: Demo, volumeId: string): string {
  return join(demo.volumesDir, `volume-${volumeId}`);
}

async function fill(demo: Demo, volumeId: string, extents: readonly Extent[], title: string): Promise<void> {
  const line = createProgressLine(process.stdout, title);
  const total = totalLength(extents);
  let done = 0;
  await using file = await open(pathOf(demo, volumeId), 'r+');
  await writeRealBytes(file, extents, demo.source, (bytes) => {
    done += bytes;
    line.update(done / total, showBytes(done));
  });
  line.end(showBytes(done));
}

/** Starts an operation on a backup and follows it to its end. `start` returns the backup's id. */
async function follow(
  demo: Demo,
  name: string,
  start: () => Promise<string>,
): Promise<Step & { backupId: string }> {
  const { client } = demo;
  const line = createProgressLine(process.stdout, name);
  const started = performance.now();
  const backupId = await start();
  const [newest] = await client.operations(backupId);
  if (newest === undefined) throw new BackupError('bug', `${name} has no operation`);
  const operation = await client.finished(newest.id, ({ progress, rate_bytes_per_second: rate }) => {
    const { planned_bytes: planned, done_bytes: done } = progress;
    if (planned === null || planned === 0) return;
    line.update(done / planned, `${showBytes(done)}, ${showBytes(rate ?? 0)}/s`);
  });
  const seconds = (performance.now() - started) / 1000;
  if (operation.state !== 'succeeded') {
    throw new BackupError(
      'state-invalid',
      `${name} ${operation.state}: ${operation.error?.message ?? 'no reason'}`,
    );
  }
  const badRanges = operation.result?.bad_count ?? 0;
  if (badRanges > 0) throw new BackupError('corrupt', `${name} found ${badRanges} bad ranges`);
  line.end(showSeconds(seconds));
  return { name, operation, seconds, backupId };
}

async function backUp(demo: Demo, name: string, volumeId: string, incremental: boolean) {
  return await follow(demo, name, () => demo.client.createBackup({ volumeId, incremental }));
}

/** Restores into a new volume, and compares with what the volume held. */
async function restoreAndCompare(demo: Demo, name: string, backupId: string, held: WholeRead): Promise<Step> {
  const targetId = await demo.client.createVolume(name, sizeGiB);
  const step = await follow(demo, name, async () => {
    await demo.client.restore(backupId, targetId);
    return backupId;
  });
  const { sha256 } = await readAll(demo, targetId, 'comparing', false);
  await rm(pathOf(demo, targetId));
  if (sha256 !== held.sha256)
    throw new BackupError('corrupt', `${name}: the volume is not what was backed up`);
  return step;
}

async function readAll(demo: Demo, volumeId: string, title: string, sample: boolean): Promise<WholeRead> {
  const line = createProgressLine(process.stdout, title);
  const onRead = (bytes: number) => line.update(bytes / sizeBytes, showBytes(bytes));
  const read = await readWhole(pathOf(demo, volumeId), { sample, signal: demo.signal, onRead });
  line.end(`SHA-256 ${read.sha256.slice(0, 16)}...`);
  return read;
}

async function play(demo: Demo): Promise<void> {
  const volumeId = await demo.client.createVolume('demo', sizeGiB);
  const changed = changedExtents();
  await fill(demo, volumeId, dataExtents, 'filling the volume');
  const full = await backUp(demo, 'full backup', volumeId, false);
  const first = await readAll(demo, volumeId, 'reading it all', true);
  await fill(demo, volumeId, changed, 'changing 1 %');
  const increment = await backUp(demo, 'incremental backup', volumeId, true);
  const second = await readAll(demo, volumeId, 'reading it all', false);
  const verify = await follow(demo, 'verify the chain', async () => {
    await demo.client.startVerify(increment.backupId);
    return increment.backupId;
  });
  const restores = [
    await restoreAndCompare(demo, 'restore the full', full.backupId, first),
    await restoreAndCompare(demo, 'restore the increment', increment.backupId, second),
  ];
  const changedBytes = totalLength(changed);
  const compressAll = first.compressSeconds;
  const whole = [
    { read: first, seconds: first.readSeconds + compressAll },
    // Of an increment only what changed is compressed: its share of the filled bytes' time.
    { read: second, seconds: second.readSeconds + (compressAll * changedBytes) / totalLength(dataExtents) },
  ];
  const rows = [full, increment, verify, ...restores].map(({ name, operation, seconds }, index) => {
    const { read_bytes: read, sent_bytes: sent, stored_bytes: stored } = operation.progress;
    const all = whole[index];
    return [
      name,
      operation.mode ?? '-',
      showBytes(read),
      showBytes(sent),
      operation.verb === 'create' ? showBytes(stored) : '-',
      showSeconds(seconds),
      all === undefined ? '-' : showBytes(all.read.bytes),
      all === undefined ? '-' : `~${showSeconds(all.seconds)}`,
    ];
  });
  const head = ['step', 'way', 'read', 'sent', 'stored', 'seconds', 'all: read', 'all: seconds'];
  const local =
    increment.operation.progress.read_bytes > 2 * changedBytes
      ? 'this file system has no reflinks (XFS and Btrfs have): the agent compared the two snapshots where they lie.'
      : 'the agent compared the extents of the two snapshots and read only what had changed.';
  process.stdout.write(`
${textTable(head, rows)}

volume: ${sizeGiB} GiB, ${showBytes(totalLength(dataExtents))} of it filled with files of this machine; ${showBytes(changedBytes)} changed in blocks of 32 KiB.
read: at the source - the volume for a backup, the store for verify and restore; sent: between service and agent.
all: what reading it all costs, as Cinder's driver does: the bytes are those of the volume; of the seconds, reading and
     hashing are measured here in one thread, compression (zlib, its default) is computed from every 37th MiB measured.
the increment was found by ${increment.operation.mode ?? '?'}: ${increment.operation.reason ?? '?'};
${local}
both restored volumes are byte for byte what was backed up.
`);
}

async function main(signal: AbortSignal): Promise<void> {
  await using cleanup = new AsyncDisposableStack();
  const stateDir = await mkdtemp(join(tmpdir(), 'cinder-delta-demo-'));
  cleanup.defer(() => rm(stateDir, { recursive: true, force: true }));
  const source = createRealBytes(['/usr', nodeModules], signal);
  cleanup.defer(() => source.close());
  const service = cleanup.use(await startService({ stateDir, signal }));
  await play({ client: service.client, volumesDir: join(stateDir, 'volumes'), source, signal });
}

const nodeModules = fileURLToPath(new URL('../../node_modules', import.meta.url));
const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () =>
    interrupted.abort(new BackupError('cancelled', `the demo was stopped by ${name}`)),
  );
}
try {
  await main(interrupted.signal);
} catch (error) {
  process.stderr.write(`\nthe demo failed: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
