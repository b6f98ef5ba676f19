/** Fetches objects into slabs and unseals them there. */
import { anySignal } from '../async/any-signal.ts';
import { withLimit, type Budget } from '../async/limit.ts';
import type { PlannedObject } from '../layout/chain.ts';
import { invariant, isBackupError, type ErrorCode } from '../model/errors.ts';
import type { ObjectStore } from '../store/object-store.ts';
import type { Layer, PipelineResources, Progress } from './jobs.ts';
import { largestZeroBytes } from './memory.ts';
import type { ObjectFault, SealedSource, UnsealJob } from './sealer.ts';
import type { Slab, Slabs } from './slabs.ts';

/** The fault of an object that the store does not have. */
export const absentReason = 'it is absent from the store';

export type FetchedObject = {
  readonly planned: PlannedObject;
  readonly layer: Layer;
  readonly source: SealedSource;
  /** The hash list says that all of it is zeros. */
  readonly isZero: boolean;
};

export type FetchTools = {
  readonly resources: PipelineResources;
  readonly slabs: Slabs;
  /** Objects that are being fetched at a time within one operation. */
  readonly gets: Budget;
  readonly progress: Progress;
  /** Errors of the store that are faults of the object that was asked for. */
  readonly faultCodes: readonly ErrorCode[];
};

/** The fault that an error of the store is; throws one that is none. */
export function faultOf(error: unknown, { faultCodes }: Pick<FetchTools, 'faultCodes'>): ObjectFault {
  if (!isBackupError(error, ...faultCodes)) throw error;
  const reason = error.code === 'object-missing' ? absentReason : error.message;
  return { offset: 0, length: null, reason };
}

/** An object whose stored bytes stand at `start` of `into`. */
type Gathered = {
  readonly object: FetchedObject;
  readonly start: number;
  readonly into: Slab;
  readonly bodyBytes: number;
  /** Nothing is left to be done: it is faulty, or known to be whole. */
  readonly verdict: readonly ObjectFault[] | null;
};

/**
 * Fetches objects whose volume bytes together fit `slab` and hands each on to `done`, in order: its faults, or none and its
 * volume bytes, which are views of `slab`. Faults of objects are results, and so are the store's errors that `tools` call faults; others are thrown.
 */
export async function fetchBatch(
  objects: readonly FetchedObject[],
  slab: Slab,
  tools: FetchTools,
  signal: AbortSignal,
  done: (object: FetchedObject, faults: readonly ObjectFault[], bytes: Buffer) => Promise<void>,
): Promise<void> {
  const isPacked = objects.some(({ source }) => source.codec !== 'none');
  const packed = isPacked ? await tools.slabs.take('body', signal) : null;
  try {
    let used = 0;
    const works = objects.map((object) => {
      const start = used;
      used += object.source.length;
      const into = object.source.codec === 'none' ? slab : (packed ?? slab);
      return (inner: AbortSignal) => gather(object, into, start, tools, inner);
    });
    invariant(used <= slab.bytes.length, `a batch of ${used} bytes does not fit a slab`);
    const gathered = await allOf(works, signal);
    const open = gathered.filter(({ verdict }) => verdict === null);
    const jobs = open.map((one) => jobOf(one, slab));
    const unsealed = jobs.length === 0 ? [] : await tools.resources.sealer.unseal(jobs);
    packed?.free();
    const verdicts = unsealed.values();
    for (const { object, start, verdict } of gathered) {
      const faults = verdict ?? verdicts.next().value ?? [];
      await done(object, faults, slab.bytes.subarray(start, start + object.source.length));
    }
  } finally {
    packed?.free();
  }
}

function jobOf({ object, start, into, bodyBytes }: Gathered, slab: Slab): UnsealJob {
  const places = { body: into.memory, bodyStart: start, bodyBytes, out: slab.memory, outStart: start };
  return { ...object.source, ...places };
}

/** Reads the stored bytes; there is room for as many as the object has volume bytes. */
async function gather(
  object: FetchedObject,
  into: Slab,
  start: number,
  tools: FetchTools,
  signal: AbortSignal,
): Promise<Gathered> {
  const { resources, gets, progress } = tools;
  const room = object.source.length;
  const held = { object, start, into };
  const read = async (): Promise<Gathered> => {
    const bodyBytes = await readBody(
      object,
      into.bytes.subarray(start, start + room),
      resources.store,
      signal,
    );
    progress.readBytes += Math.min(bodyBytes, room);
    if (bodyBytes > room) return { ...held, bodyBytes: 0, verdict: [tooLong(object)] };
    const verdict = (await isOurZeroBody(held, bodyBytes, resources)) ? [] : null;
    return { ...held, bodyBytes, verdict };
  };
  try {
    return await withLimit(gets, read, signal);
  } catch (error) {
    return { ...held, bodyBytes: 0, verdict: [faultOf(error, tools)] };
  }
}

/** Reads the stored bytes of `object` into `target`; returns how many there are, or more than `target` has. */
async function readBody(
  { layer, planned }: FetchedObject,
  target: Buffer,
  store: ObjectStore,
  signal: AbortSignal,
): Promise<number> {
  const { container } = layer.place;
  const { key } = planned.entry;
  if (store.getInto !== undefined) return await store.getInto(container, key, target, { signal });
  const { body } = await store.get(container, key, { signal });
  let bodyBytes = 0;
  for await (const piece of body) {
    if (bodyBytes + piece.length > target.length) return bodyBytes + piece.length;
    piece.copy(target, bodyBytes);
    bodyBytes += piece.length;
  }
  return bodyBytes;
}

/** Zeros that we sealed are the same bytes every time: nothing need be decompressed to know what they hold. */
async function isOurZeroBody(
  { object, start, into }: Pick<Gathered, 'object' | 'start' | 'into'>,
  bodyBytes: number,
  { sealer }: PipelineResources,
): Promise<boolean> {
  const { codec, length, md5 } = object.source;
  if (!object.isZero || codec === 'none') return false;
  const zeros = await sealer.sealZeros(length, codec);
  return (
    zeros.md5 === md5 &&
    zeros.body.length === bodyBytes &&
    into.bytes.compare(zeros.body, 0, bodyBytes, start, start + bodyBytes) === 0
  );
}

/**
 * Whether the object, which its list says is zeros, is stored as we seal zeros: told without inflating it, for one of any length.
 * Throws what the store throws.
 */
export async function holdsOurZeros(
  { planned, layer, source, isZero }: FetchedObject,
  { resources, progress }: FetchTools,
  signal: AbortSignal,
): Promise<boolean> {
  const { codec, length, md5 } = source;
  if (!isZero || codec === 'none' || length > largestZeroBytes) return false;
  const zeros = await resources.sealer.sealZeros(length, codec);
  if (zeros.md5 !== md5) return false;
  const { body } = await resources.store.get(layer.place.container, planned.entry.key, { signal });
  let at = 0;
  for await (const piece of body) {
    progress.readBytes += piece.length;
    if (!zeros.body.subarray(at, at + piece.length).equals(piece)) return false;
    at += piece.length;
  }
  return at === zeros.body.length;
}

/** Cinder and we store an object as it is when compression does not make it smaller. */
function tooLong({ source }: FetchedObject): ObjectFault {
  const what = source.codec === 'none' ? 'it holds' : 'its compressed body has';
  return {
    offset: 0,
    length: null,
    reason: `${what} more than the ${source.length} bytes that its metadata says`,
  };
}

/** Runs all side by side. The first failure stops the others; it is thrown when they have stopped. */
async function allOf<T>(
  works: readonly ((signal: AbortSignal) => Promise<T>)[],
  outer: AbortSignal,
): Promise<T[]> {
  const stop = new AbortController();
  const signal = anySignal([outer, stop.signal]);
  const running = works.map(async (work) => {
    try {
      return await work(signal);
    } catch (error) {
      stop.abort(error);
      throw error;
    }
  });
  const values: T[] = [];
  for (const result of await Promise.allSettled(running)) {
    if (result.status === 'fulfilled') values.push(result.value);
  }
  if (values.length < works.length) throw signal.reason;
  return values;
}
