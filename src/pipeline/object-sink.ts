/** Takes what the assembler cut: seals batches in the threads and puts the bodies side by side. */
import { createBudget, withLimit } from '../async/limit.ts';
import { createTaskGroup } from '../async/task-group.ts';
import type { ObjectList } from '../layout/metadata-document.ts';
import { objectKey } from '../layout/names.ts';
import { createObjectTable } from '../layout/object-table.ts';
import { BackupError } from '../model/errors.ts';
import type { AssemblerOutput, Batch } from './assembler.ts';
import type { BackupJob, PipelineResources } from './jobs.ts';
import type { SealedObject } from './sealer.ts';
import type { Slabs } from './slabs.ts';

/** Objects of one operation that are being put at a time; their bodies stand in slabs. */
const putsInFlight = 32;
/** Batches and objects of zeros that have been begun; batches are bounded by their slabs before that. */
const tasksInFlight = 32;

export type ObjectSink = AssemblerOutput & {
  /** Aborted when anything here failed or the outer signal aborted. */
  readonly signal: AbortSignal;
  cancel(reason: unknown): void;
  /** Waits until all is stored and throws the first failure, after everything has come to rest. */
  settle(): Promise<void>;
  /** In order of number, which is that of offset. To be called once, after everything is stored. */
  list(): ObjectList;
  readonly storedBytes: number;
};

export function createObjectSink(
  { store, sealer }: PipelineResources,
  job: BackupJob,
  slabs: Slabs,
  outer: AbortSignal,
): ObjectSink {
  const { place, codec, progress } = job;
  const { blockSize } = job.source;
  const group = createTaskGroup(tasksInFlight, outer);
  const puts = createBudget(putsInFlight);
  const table = createObjectTable(place.prefix, () => undefined);
  let storedBytes = 0;

  const put = async (
    object: { readonly number: number; readonly offset: number; readonly length: number },
    { codec: used, md5, body }: SealedObject,
    signal: AbortSignal,
  ): Promise<void> => {
    const { number, offset, length } = object;
    const key = objectKey(place.prefix, number);
    const options = used === 'none' ? { signal, md5 } : { signal };
    await withLimit(puts, () => store.put(place.container, key, body, options), signal);
    table.push({ number, offset, length, md5, codec: used });
    storedBytes += body.length;
    progress.storedBytes += body.length;
    progress.doneBytes += length;
  };

  /** Puts all bodies; returns when none is being read any more. */
  const putAll = async (
    objects: Batch['objects'],
    bodies: readonly SealedObject[],
    signal: AbortSignal,
  ): Promise<void> => {
    let next = 0;
    let failed = false;
    const work = async () => {
      for (let at = next++; at < objects.length && !failed; at = next++) {
        const object = objects[at];
        const body = bodies[at];
        if (object === undefined || body === undefined) throw unsealed(at, bodies.length);
        try {
          await put(object, body, signal);
        } catch (error) {
          failed = true;
          throw error;
        }
      }
    };
    const workers = Array.from({ length: Math.min(putsInFlight, objects.length) }, work);
    for (const result of await Promise.allSettled(workers)) {
      if (result.status === 'rejected') throw result.reason;
    }
  };

  const sealAndPut = async ({ slab, objects, digests }: Batch, signal: AbortSignal): Promise<void> => {
    const out =
      codec === 'none'
        ? null
        : await slabs.take('body', signal).catch((error: unknown) => {
            slab.free();
            throw error;
          });
    try {
      const memory = { slab: slab.memory, out: out?.memory ?? null };
      const bodies = await sealer.seal({ codec, blockSize, ...memory, objects, digests });
      if (out !== null) slab.free();
      await putAll(objects, bodies, signal);
    } finally {
      out?.free();
      slab.free();
    }
  };

  return {
    signal: group.signal,
    takeSlab: () => slabs.take('volume', group.signal),
    async sealBatch(batch) {
      try {
        await group.add((signal) => sealAndPut(batch, signal));
      } catch (error) {
        batch.slab.free();
        throw error;
      }
    },
    storeZeros: (object) =>
      group.add(async (signal) => put(object, await sealer.sealZeros(object.length, codec), signal)),
    cancel: (reason) => group.cancel(reason),
    settle: () => group.settle(),
    list() {
      const order = new Uint32Array(table.length);
      for (let row = 0; row < table.length; row += 1) order[table.numberAt(row) - 1] = row;
      return table.toList(order);
    },
    get storedBytes() {
      return storedBytes;
    },
  };
}

function unsealed(at: number, count: number): BackupError {
  return new BackupError('bug', `broken invariant: object ${at} of a batch of ${count} was not sealed`);
}
