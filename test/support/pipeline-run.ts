/** Backups and restores without a service: the pipelines over volumes and stores in memory. */
import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { createBudget, type Budget } from '../../src/async/limit.ts';
import { readLayer } from '../../src/layout/read-layer.ts';
import { backupPrefix } from '../../src/layout/names.ts';
import type { Codec } from '../../src/model/codec.ts';
import { runBackup } from '../../src/pipeline/backup.ts';
import type {
  BackupJob,
  BackupOutcome,
  Layer,
  PipelineResources,
  Progress,
} from '../../src/pipeline/jobs.ts';
import { runRestore } from '../../src/pipeline/restore.ts';
import type { Sealer } from '../../src/pipeline/sealer.ts';
import { runVerify } from '../../src/pipeline/verify.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
import type { BlockSource, RestoreTarget } from '../../src/volume/block-source.ts';

export const testContainer = 'volumebackups';

export function newProgress(): Progress {
  return { plannedBytes: null, doneBytes: 0, readBytes: 0, sentBytes: 0, storedBytes: 0 };
}

export type PipelineRun = {
  readonly resources: PipelineResources;
  readonly memory: Budget;
  /** The layers so far, full backup first. */
  readonly chain: Layer[];
  backup(
    options: BackupOptions,
  ): Promise<BackupOutcome & { readonly progress: Progress; readonly layer: Layer }>;
  /** Into a target that is there, or one that is opened when it is asked for. */
  restore(target: RestoreTarget | (() => Promise<RestoreTarget>), signal?: AbortSignal): Promise<Progress>;
  verify(signal?: AbortSignal): ReturnType<typeof runVerify>;
};

export type BackupOptions = {
  readonly source: BlockSource;
  readonly codec?: Codec;
  readonly objectBytes?: number;
  readonly mode?: 'full' | 'compare' | 'delta';
  /** The snapshot that a delta starts from; a name alone is its identity too, as in a volume in memory. */
  readonly previous?: string | { readonly name: string; readonly identity: string };
  readonly mergeGapBytes?: number;
  readonly signal?: AbortSignal;
};

/** Layers of one volume in one store; a failed backup adds none. */
export function createPipelineRun(store: ObjectStore, sealer: Sealer, ceilingBytes: number): PipelineRun {
  const memory = createBudget(ceilingBytes);
  const objectLists = createBudget(ceilingBytes);
  const resources = { store, sealer, memory, objectLists, log: pino({ level: 'silent' }) };
  const volumeId = randomUUID();
  const chain: Layer[] = [];
  let seconds = 0;

  return {
    resources,
    memory,
    chain,
    async backup({ source, codec = 'zlib', objectBytes = 64 * 1024, mode = 'full', ...options }) {
      const backupId = randomUUID();
      seconds += 1;
      const at = new Date(Date.UTC(2026, 10, 4, 10, 0, seconds));
      const prefix = backupPrefix('posix', { volumeId, backupId, at, availabilityZone: 'nova' });
      const place = { container: testContainer, prefix };
      const parent = chain.at(-1);
      const progress = newProgress();
      const signal = options.signal ?? new AbortController().signal;
      const job: BackupJob = {
        place,
        head: {
          backupId,
          volumeId,
          backupName: 'test',
          backupDescription: null,
          createdAt: '2026-11-04 10:00:00+00:00',
          parentId: mode === 'full' ? null : (parent?.metadata.backupId ?? null),
        },
        volumeMeta: null,
        source,
        codec,
        objectBytes,
        mergeGapBytes: options.mergeGapBytes ?? 0,
        way: wayOf(mode, parent, options.previous),
        base: null,
        progress,
        signal,
      };
      const outcome = await runBackup(resources, job);
      const layer = await readLayer(store, place, signal);
      if (mode === 'full') chain.length = 0;
      chain.push(layer);
      return { ...outcome, progress, layer };
    },
    async restore(target, signal = new AbortController().signal) {
      const progress = newProgress();
      const openTarget = typeof target === 'function' ? target : () => Promise.resolve(target);
      await runRestore(resources, { chain, openTarget, progress, signal });
      return progress;
    },
    verify: (signal = new AbortController().signal) =>
      runVerify(resources, { chain, unreadable: [], progress: newProgress(), signal }),
  };
}

function wayOf(
  mode: 'full' | 'compare' | 'delta',
  parent: Layer | undefined,
  previous: BackupOptions['previous'],
): BackupJob['way'] {
  if (mode === 'full') return { mode, reason: 'a test' };
  if (parent === undefined) throw new Error(`a ${mode} backup needs a parent`);
  if (mode === 'compare') return { mode, reason: 'a test', parent };
  if (previous === undefined) throw new Error('a delta needs a previous snapshot');
  return {
    mode,
    reason: 'a test',
    parent,
    previous: typeof previous === 'string' ? { name: previous, identity: previous } : previous,
  };
}
