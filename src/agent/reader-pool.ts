/**
 * Reads extents of a snapshot in worker threads and gives back whole frames, in order, ready to be sent.
 *
 * Each cluster has threads of its own, and the files have, which start with the first stream: a read that a cluster does not
 * answer holds a thread for minutes, and must not hold up the streams of the others.
 *
 * Jobs are about 1 MiB of data each, whether that is one extent or a thousand scattered blocks. Of one stream at
 * most `threads + 2` jobs run, wait or lie finished until their turn; a reader that does not take its pieces holds
 * everything back. Buffers are shared with the workers, and used again when a piece is released, so a stream
 * holds about (threads + 4) * 1.3 MiB, or buffers as much longer as its blocks are longer than 1 MiB; one of an RBD snapshot has four jobs more, whose bytes are on
 * their way from the cluster meanwhile. All threads share the buffers that are kept.
 */
import { availableParallelism } from 'node:os';
import { anySignal } from '../async/any-signal.ts';
import { createQueue } from '../async/queue.ts';
import type { TypedExtent } from '../model/extent.ts';
import { dataFrameBytes } from '../protocol/frames.ts';
import { outputBytes, type ReaderJob, type ReaderResult } from './reader-job.ts';
import { createThreadPool, stopping, workerModule, type ThreadPool } from './thread-pool.ts';
import type { ReadHandle } from './volume-backend.ts';

export type ReadRequest = {
  /** It must stay open until the stream has ended. */
  readonly handle: ReadHandle;
  readonly frames: ReaderJob['frames'];
  readonly blockSize: number;
  /** On block boundaries, sorted, not overlapping. */
  readonly extents: Iterable<TypedExtent> | AsyncIterable<TypedExtent>;
};

/** Whole frames that follow those of the piece before. `release` gives the buffer back: nothing may read it then. */
export type ReadPiece = {
  readonly bytes: Buffer;
  /** Where the next piece goes on. */
  readonly endOffset: number;
  readonly dataBytes: number;
  readonly zeroBytes: number;
  readonly digests: number;
  readonly readBytes: number;
  readonly release: () => void;
};

export type ReaderPool = {
  /** Of each cluster, and of the files. */
  readonly threads: number;
  /** Jobs that wait or run, of all streams. */
  readonly pending: number;
  /** When the generator has ended or was returned, none of its jobs is left. */
  stream(request: ReadRequest, signal: AbortSignal): AsyncGenerator<ReadPiece>;
  /** Starts the threads that read files now, so that the first stream need not wait for them. */
  warm(): void;
  close(): Promise<void>;
};

const maxEntries = 2048;
const digestJobBytes = 8 * 1024 * 1024;
const maxDigestsPerFrame = 4096;
/** Buffers have this size, which fits every job of the usual block sizes, or a multiple of it. */
const bufferBytes = dataFrameBytes + 256 * 1024;
/** Shared memory that is dropped waits for the collectors of all threads: so buffers are kept, those of some 20 streams. */
const keptBytes = 128 * bufferBytes;
/** A worker does one job while the bytes of the others are on their way from a cluster. */
const jobsPerWorker = 4;
/** Jobs of a stream that wait for a cluster, beside one for each thread: its answers take longer than those of a disk. */
const aheadOfCluster = 5;

/** As many threads as there are cores, but no more than four: SHA-256 of four cores is more than a network takes. */
export const defaultReaderThreads = Math.min(4, availableParallelism());

export function createReaderPool(
  options: { readonly threads?: number | undefined; readonly module?: URL } = {},
): ReaderPool {
  const { module = workerModule('reader-worker'), threads = defaultReaderThreads } = options;
  const pools = new Map<string, ThreadPool<ReaderJob, ReaderResult>>();
  let closed = false;

  const poolOf = (storage: string): ThreadPool<ReaderJob, ReaderResult> => {
    if (closed) throw stopping();
    const pool = pools.get(storage) ?? createThreadPool({ module, threads, jobsPerWorker });
    pools.set(storage, pool);
    return pool;
  };

  const free = new Map<number, SharedArrayBuffer[]>();
  let freeBytes = 0;

  const take = (least: number): SharedArrayBuffer => {
    const size = Math.ceil(least / bufferBytes) * bufferBytes;
    const kept = free.get(size)?.pop();
    if (kept === undefined) return new SharedArrayBuffer(size);
    freeBytes -= size;
    return kept;
  };
  const give = (buffer: SharedArrayBuffer) => {
    const size = buffer.byteLength;
    if (freeBytes + size > keptBytes) return;
    freeBytes += size;
    const same = free.get(size);
    if (same === undefined) free.set(size, [buffer]);
    else same.push(buffer);
  };

  const read = async (request: ReadRequest, batch: Batch, signal: AbortSignal): Promise<Filled> => {
    const { frames, handle, blockSize } = request;
    const buffer = take(outputBytes(frames, batch.dataBytes, batch.extents.length / 3, blockSize));
    try {
      const job = { frames, handle, blockSize, extents: batch.extents, buffer };
      return { ...(await poolOf(storageOf(handle)).run(job, [], signal)), buffer };
    } catch (error) {
      give(buffer);
      throw error;
    }
  };

  return {
    threads,
    get pending() {
      let pending = 0;
      for (const pool of pools.values()) pending += pool.pending;
      return pending;
    },
    async *stream(request, outer) {
      const stopped = new AbortController();
      const signal = anySignal([outer, stopped.signal]);
      const ahead = request.handle.kind === 'rbd' ? aheadOfCluster : 1;
      const queue = createQueue<{ batch: Batch; result: Promise<Filled> }>(threads + ahead);
      const running = new Set<Promise<void>>();
      const feed = async () => {
        try {
          for await (const batch of batches(request)) {
            const result = read(request, batch, signal);
            const settled = result.then(
              () => {},
              () => {},
            );
            running.add(settled);
            void settled.then(() => running.delete(settled));
            await queue.push({ batch, result });
          }
          queue.end();
        } catch (error) {
          queue.fail(error);
        }
      };
      const feeding = feed();
      try {
        for await (const { batch, result } of queue) {
          const { buffer, usedBytes, ...counts } = await result;
          yield {
            ...counts,
            bytes: Buffer.from(buffer, 0, usedBytes),
            endOffset: batch.endOffset,
            release: () => give(buffer),
          };
        }
      } finally {
        stopped.abort();
        await feeding;
        await Promise.all(running);
      }
    },
    warm: () => poolOf(files).warm(),
    async close() {
      closed = true;
      free.clear();
      await Promise.all([...pools.values()].map((pool) => pool.close()));
    },
  };
}

const files = 'files';

/** What answers the reads of `handle`, or does not. Two clusters may have one name. */
function storageOf(handle: ReadHandle): string {
  return handle.kind === 'file' ? files : `rbd ${handle.fsid}`;
}

type Filled = ReaderResult & { readonly buffer: SharedArrayBuffer };

type Batch = { readonly extents: Float64Array; readonly dataBytes: number; readonly endOffset: number };

/** Groups extents into jobs: at most `limit` bytes of data and `maxEntries` extents each. */
async function* batches(request: ReadRequest): AsyncGenerator<Batch> {
  const { extents } = request;
  const batcher = createBatcher(request);
  // Waiting for each of a thousand extents that are there already would take as long as reading some of them.
  if (Symbol.iterator in extents) for (const extent of extents) yield* batcher.push(extent);
  else for await (const extent of extents) yield* batcher.push(extent);
  yield* batcher.end();
}

function createBatcher({ blockSize, frames }: ReadRequest) {
  const limit =
    frames === 'blocks'
      ? Math.max(dataFrameBytes, blockSize)
      : Math.max(blockSize, Math.min(digestJobBytes, maxDigestsPerFrame * blockSize));
  let triples: number[] = [];
  let dataBytes = 0;
  let endOffset = 0;
  const cut = (): Batch => {
    const batch = { extents: Float64Array.from(triples), dataBytes, endOffset };
    triples = [];
    dataBytes = 0;
    return batch;
  };
  return {
    /** The batches that are full with it. */
    *push(extent: TypedExtent): Generator<Batch> {
      for (let done = 0; done < extent.length;) {
        const isData = extent.kind === 'data';
        const length = isData ? Math.min(extent.length - done, limit - dataBytes) : extent.length;
        triples.push(extent.offset + done, length, isData ? 1 : 0);
        done += length;
        if (isData) dataBytes += length;
        endOffset = extent.offset + done;
        if (dataBytes >= limit || triples.length >= maxEntries * 3) yield cut();
      }
    },
    *end(): Generator<Batch> {
      if (triples.length > 0) yield cut();
    },
  };
}
