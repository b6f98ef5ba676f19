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

/** Bodies up to this size are put in groups of so many where the store takes several at once. */
const smallBytes = 256 * 1024;
const smallInGroup = 64;

type PlacedObject = { readonly number: number; readonly offset: number; readonly length: number };
type Sealed = { readonly object: PlacedObject; readonly sealed: SealedObject };

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

  const account = ({ number, offset, length }: PlacedObject, { codec: used, md5, body }: SealedObject) => {
    table.push({ number, offset, length, md5, codec: used });
    storedBytes += body.length;
    progress.storedBytes += body.length;
    progress.doneBytes += length;
  };

  const put = async (
    object: PlacedObject,
    { codec: used, md5, body }: SealedObject,
    signal: AbortSignal,
  ): Promise<void> => {
    const key = objectKey(place.prefix, object.number);
    const options = used === 'none' ? { signal, md5 } : { signal };
    await withLimit(puts, () => store.put(place.container, key, body, options), signal);
    account(object, { codec: used, md5, body });
  };

  /** Puts several at once where the store can. */
  const putTogether = async (few: readonly Sealed[], signal: AbortSignal): Promise<void> => {
    const putMany = store.putMany?.bind(store);
    if (few.length === 1 || putMany === undefined) {
      for (const { object, sealed } of few) await put(object, sealed, signal);
      return;
    }
    const named = few.map(({ object, sealed }) => ({
      key: objectKey(place.prefix, object.number),
      body: sealed.body,
    }));
    await withLimit(puts, () => putMany(place.container, named, { signal }), signal);
    for (const { object, sealed } of few) account(object, sealed);
  };

  /** Puts all bodies; returns when none is being read any more. */
  const putAll = async (
    objects: Batch['objects'],
    bodies: readonly SealedObject[],
    signal: AbortSignal,
  ): Promise<void> => {
    const groups = grouped(objects, bodies, store.putMany === undefined ? 1 : smallInGroup);
    let failed = false;
    const next = groups.values();
    const work = async () => {
      for (const few of next) {
        if (failed) return;
        try {
          await putTogether(few, signal);
        } catch (error) {
          failed = true;
          throw error;
        }
      }
    };
    const workers = Array.from({ length: Math.min(putsInFlight, groups.length) }, work);
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

/** Each object with its body; small ones in groups of at most `most`. */
function grouped(
  objects: Batch['objects'],
  bodies: readonly SealedObject[],
  most: number,
): readonly (readonly Sealed[])[] {
  const groups: Sealed[][] = [];
  let open: Sealed[] = [];
  for (const [at, object] of objects.entries()) {
    const sealed = bodies[at];
    if (sealed === undefined) throw unsealed(at, bodies.length);
    if (sealed.body.length > smallBytes) groups.push([{ object, sealed }]);
    else {
      if (open.length === 0 || open.length === most) groups.push((open = []));
      open.push({ object, sealed });
    }
  }
  return groups;
}

function unsealed(at: number, count: number): BackupError {
  return new BackupError('bug', `broken invariant: object ${at} of a batch of ${count} was not sealed`);
}
