/**
 * Reads what a chain of backups holds, for restore.ts and verify.ts. The layers are merged before anything is fetched: each
 * needed object once, several at a time, in order of their first needed byte. Every object's MD5 is checked, and every block
 * against the hash list of the newest layer, which describes the merged volume.
 */
import { createBudget, withLimit } from '../async/limit.ts';
import { createTaskGroup, type TaskGroup } from '../async/task-group.ts';
import { digestBytes, zeroDigest } from '../model/digest.ts';
import {
  cancelledBy,
  invariant,
  isBackupError,
  throwIfAborted,
  type BackupError,
  type ErrorCode,
} from '../model/errors.ts';
import { blockCount, totalLength, type Extent } from '../model/extent.ts';
import {
  chainLengthBytes,
  planRestore,
  requireChainOrder,
  type Gaps,
  type PlannedObject,
} from '../layout/chain.ts';
import { sha256FileKey } from '../layout/names.ts';
import { openSha256File } from '../layout/read-layer.ts';
import { createDigestWindow, windowBytes, type DigestWindow } from './digest-window.ts';
import { faultOf, fetchBatch, holdsOurZeros, type FetchedObject, type FetchTools } from './fetch-batch.ts';
import type { BadRange, Layer, PipelineResources, Progress } from './jobs.ts';
import { memoryNeed } from './memory.ts';
import type { ObjectFault } from './sealer.ts';
import { openSlabs, type Slab } from './slabs.ts';

/** Small objects that are fetched and unsealed in one go. */
const batchLimits = { objects: 256, bytes: 4 * 1024 * 1024 } as const;
/** Objects that are being fetched at a time within one operation. */
const getsInFlight = 8;
/** Cinder's default, where nothing tells another. */
const defaultBlockSize = 32_768;

/** Who takes the volume's bytes. */
export type VolumeTaker = {
  /** Zeros that need not be fetched. */
  zero(extent: Extent): Promise<void>;
  /** Checked bytes and the digests of their blocks. They live until it resolves. */
  data(offset: number, bytes: Buffer, digests: Buffer, blockSize: number): Promise<void>;
};

export type ChainReader = {
  /**
   * Opens the taker: asked once, when the reading has its memory, so that nobody who waits for memory holds a place that others need.
   * Null if nobody wants the bytes: everything is fetched then.
   */
  readonly openTaker: (() => Promise<VolumeTaker>) | null;
  /** Errors of the store that are faults of one object; any other ends the reading. */
  readonly faultCodes: readonly ErrorCode[];
  /** An object has a fault; throws to stop. */
  readonly fault: (bad: BadRange, layer: Layer) => void;
  /** The hash list is damaged or absent; throws to stop, or returns to go on with the objects' MD5 alone. */
  readonly listFault: (error: BackupError, newest: Layer) => void;
};

export type ChainJob = {
  readonly chain: readonly Layer[];
  readonly progress: Progress;
  readonly signal: AbortSignal;
};

/**
 * Reads all that the newest layer of the chain needs. Returns the volume's bytes. Throws `chain-broken`, `corrupt` for documents that
 * contradict each other, `limit-exceeded`, `cancelled`, and what the reader and the store throw; after everything has come to rest.
 */
export async function readChain(
  resources: PipelineResources,
  job: ChainJob,
  reader: ChainReader,
): Promise<number> {
  throwIfAborted(job.signal);
  requireChainOrder(job.chain.map(({ metadata }) => metadata));
  return await readPlanned(resources, job, reader, 'refused');
}

/**
 * Reads all objects of one layer whose chain cannot be merged. Its hash list describes the volume of its own time, and so its own
 * objects. Returns and throws as readChain.
 */
export async function readLayerAlone(
  resources: PipelineResources,
  { layer, progress, signal }: Omit<ChainJob, 'chain'> & { readonly layer: Layer },
  reader: ChainReader,
): Promise<number> {
  throwIfAborted(signal);
  return await readPlanned(resources, { chain: [layer], progress, signal }, reader, 'passed');
}

async function readPlanned(
  resources: PipelineResources,
  { chain, progress, signal }: ChainJob,
  reader: ChainReader,
  gaps: Gaps,
): Promise<number> {
  const { memory, sealer } = resources;
  const layers = chain.map(({ metadata }) => metadata);
  const newest = chain.at(-1);
  invariant(newest !== undefined, 'a chain has a newest layer');
  const lengthBytes = chainLengthBytes(layers);
  progress.plannedBytes = (gaps === 'refused' ? 0 : (progress.plannedBytes ?? 0)) + lengthBytes;
  // Where an increment of Python's ends tells nothing about the end of its volume, which its list has to have.
  const isMeasured = gaps === 'refused' || newest.metadata.delta !== null;
  const list = isMeasured
    ? await openList(resources, newest, lengthBytes, reader, signal)
    : { blockSize: defaultBlockSize, window: null, close: () => Promise.resolve() };
  const { blockSize } = list;
  try {
    const plan = planRestore(layers, lengthBytes, list.window === null ? 1 : blockSize, gaps);
    const { threads } = sealer;
    const need = memoryNeed('restore', memory.capacity, {
      blockSize,
      threads,
      windowBytes: windowBytes(plan, blockSize, threads + 1),
    });
    const slabs = await openSlabs(memory, sealer.shelf, need, ['volume', 'body'], signal);
    const group = createTaskGroup(need.mostSlabs, signal);
    const { faultCodes } = reader;
    const tools = { resources, slabs, gets: createBudget(getsInFlight), progress, faultCodes };
    try {
      const taker = reader.openTaker === null ? null : await reader.openTaker();
      const { objectBytes } = need;
      await dispatchAll({ chain, newest, reader, taker, tools, group, list, objectBytes }, plan);
      await group.settle();
      return lengthBytes;
    } catch (error) {
      group.cancel(error);
      throw group.signal.reason;
    } finally {
      await Promise.allSettled([group.settle()]);
      slabs.close();
    }
  } catch (error) {
    throw signal.aborted ? cancelledBy(signal) : error;
  } finally {
    await list.close();
  }
}

/** The digests of the merged volume, in order; without a window there are none to be had. */
type HashList = {
  readonly blockSize: number;
  readonly window: DigestWindow | null;
  close(): Promise<void>;
};

async function openList(
  { store }: PipelineResources,
  newest: Layer,
  lengthBytes: number,
  reader: ChainReader,
  signal: AbortSignal,
): Promise<HashList> {
  try {
    const { blockSize, digests } = await openSha256File(store, newest, signal);
    const name = sha256FileKey(newest.place.prefix);
    const window = createDigestWindow(digests, { name, blockSize, lengthBytes });
    return { blockSize, window, close: () => window.close() };
  } catch (error) {
    if (!isListFault(error, reader)) throw signal.aborted ? cancelledBy(signal) : error;
    reader.listFault(error, newest);
    const blockSize = newest.metadata.delta?.blockSize ?? defaultBlockSize;
    return { blockSize, window: null, close: () => Promise.resolve() };
  }
}

function isListFault(error: unknown, { faultCodes }: ChainReader): error is BackupError {
  return isBackupError(error, 'corrupt', 'object-missing', 'version-unsupported', ...faultCodes);
}

type Run = {
  readonly chain: readonly Layer[];
  readonly newest: Layer;
  readonly reader: ChainReader;
  readonly taker: VolumeTaker | null;
  readonly tools: FetchTools;
  readonly group: TaskGroup;
  readonly list: HashList;
  /** Volume bytes that fit a slab. */
  readonly objectBytes: number;
};

/** Begins every object in order, as slabs become free; small ones together. */
async function dispatchAll(run: Run, plan: Iterable<PlannedObject>): Promise<void> {
  const { reader, taker, group, objectBytes } = run;
  let { window } = run.list;
  let batch: FetchedObject[] = [];
  let batchBytes = 0;

  /** What `read` gives, or null when the list turns out to be damaged and the reader wants to go on. */
  const fromList = async <T>(read: (from: DigestWindow) => Promise<T>): Promise<T | null> => {
    if (window === null) return null;
    try {
      return await read(window);
    } catch (error) {
      if (!isListFault(error, reader)) throw error;
      reader.listFault(error, run.newest);
      window = null;
      return null;
    }
  };

  const dispatch = async () => {
    const objects = batch;
    batch = [];
    batchBytes = 0;
    if (objects.length > 0) await begin(run, (slab, signal) => readBatch(run, objects, slab, signal));
  };

  for (const planned of plan) {
    throwIfAborted(group.signal);
    window?.releaseBelow(planned.segments[0]?.offset ?? 0);
    const digests = await fromList((from) => from.collect(planned.segments));
    const object = fetchedOf(run, planned, digests);
    if (object.isZero && taker !== null) {
      for (const segment of planned.segments) await taker.zero(segment);
      continue;
    }
    const { length } = object.source;
    if (length > objectBytes) {
      await dispatch();
      await begin(run, (slab, signal) => readLarge(run, object, slab, signal));
      continue;
    }
    if (batchBytes + length > objectBytes) await dispatch();
    batch.push(object);
    batchBytes += length;
    if (batch.length >= batchLimits.objects || batchBytes >= batchLimits.bytes) await dispatch();
  }
  await dispatch();
  await fromList((from) => from.finish());
}

function fetchedOf(run: Run, planned: PlannedObject, digests: Buffer | null): FetchedObject {
  const { entry, layer, segments } = planned;
  const { blockSize } = run.list;
  const place = run.chain[layer];
  invariant(place !== undefined, `the plan names layer ${layer} of ${run.chain.length}`);
  const { codec, length, md5 } = entry;
  const relative = segments.map((segment) => ({
    offset: segment.offset - entry.offset,
    length: segment.length,
  }));
  const source =
    digests === null
      ? { codec, length, md5, blockSize, segments: [], digests: Buffer.alloc(0) }
      : { codec, length, md5, blockSize, segments: relative, digests };
  return {
    planned,
    layer: place,
    source,
    isZero: digests !== null && areZeros(relative, digests, blockSize),
  };
}

function areZeros(segments: readonly Extent[], digests: Buffer, blockSize: number): boolean {
  let at = 0;
  for (const { length } of segments) {
    for (let done = 0; done < length; done += blockSize, at += digestBytes) {
      const zero = zeroDigest(Math.min(blockSize, length - done));
      if (digests.compare(zero, 0, digestBytes, at, at + digestBytes) !== 0) return false;
    }
  }
  return true;
}

/** Starts `work` on a slab of its own as soon as one is free. */
async function begin(
  { tools, group }: Run,
  work: (slab: Slab, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const slab = await tools.slabs.take('volume', group.signal);
  const task = async (signal: AbortSignal) => {
    try {
      await work(slab, signal);
    } finally {
      slab.free();
    }
  };
  try {
    await group.add(task);
  } catch (error) {
    slab.free();
    throw error;
  }
}

async function readBatch(
  run: Run,
  objects: readonly FetchedObject[],
  slab: Slab,
  signal: AbortSignal,
): Promise<void> {
  await fetchBatch(objects, slab, run.tools, signal, async (object, faults, bytes) => {
    report(run, object, faults);
    const { segments, digests } = object.source;
    const { offset } = object.planned.entry;
    const { blockSize } = run.list;
    let at = 0;
    for (const segment of faults.length > 0 ? [] : segments) {
      const end = at + blockCount(segment.length, blockSize) * digestBytes;
      const part = bytes.subarray(segment.offset, segment.offset + segment.length);
      await run.taker?.data(offset + segment.offset, part, digests.subarray(at, end), blockSize);
      at = end;
    }
    run.tools.progress.doneBytes += totalLength(object.planned.segments);
  });
}

/** Reads an object that is larger than a slab, piece by piece. */
async function readLarge(run: Run, object: FetchedObject, slab: Slab, signal: AbortSignal): Promise<void> {
  const { tools, taker } = run;
  const { resources, progress } = tools;
  const { entry, segments } = object.planned;
  const { blockSize } = run.list;
  let digestAt = 0;
  const take = async (offset: number, bytes: Buffer) => {
    const end = digestAt + blockCount(bytes.length, blockSize) * digestBytes;
    const digests = object.source.digests.subarray(digestAt, end);
    digestAt = end;
    await taker?.data(entry.offset + offset, bytes, digests, blockSize);
    progress.doneBytes += bytes.length;
  };
  const pieces = async function* () {
    const { body } = await resources.store.get(object.layer.place.container, entry.key, { signal });
    for await (const piece of body) {
      progress.readBytes += piece.length;
      yield piece;
    }
  };
  const read = async () => {
    if (taker === null && (await holdsOurZeros(object, tools, signal))) return [];
    return await resources.sealer.unsealStream({
      ...object.source,
      slab: slab.memory,
      pieces: pieces(),
      take: taker === null ? null : take,
      signal,
    });
  };
  const faults = await withLimit(tools.gets, read, signal).catch((error: unknown) => [faultOf(error, tools)]);
  report(run, object, faults);
  if (taker === null) progress.doneBytes += totalLength(segments);
}

function report({ reader }: Run, { planned, layer }: FetchedObject, faults: readonly ObjectFault[]): void {
  const { entry } = planned;
  const { backupId } = layer.metadata;
  for (const { offset, length, reason } of faults) {
    const range =
      length === null
        ? { offset: entry.offset, length: entry.length }
        : { offset: entry.offset + offset, length };
    reader.fault({ ...range, backupId, object: entry.key, reason }, layer);
  }
}
