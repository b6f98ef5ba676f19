/**
 * Reads an open RBD image ahead of a reader job: all that has room in a window is on its way at once, so that the next
 * bytes come while the last ones are hashed. Runs in a reader thread.
 */
import { BackupError, invariant } from '../model/errors.ts';
import { totalLength, type Extent } from '../model/extent.ts';
import type { NativeMemory, RbdCalls } from './rbd-calls.ts';
import { translateRbdError } from './rbd-errors.ts';
import type { ReadBytes } from './reader-job.ts';
import type { ReadHandle } from './volume-backend.ts';

const MiB = 1024 * 1024;
/** Room for the reads of one job that are on their way at once; larger where a single read is. */
const windowBytes = 2 * MiB;
/** Windows that a thread keeps: one for each job that it holds. */
const keptWindows = 4;

type RbdHandle = Extract<ReadHandle, { readonly kind: 'rbd' }>;

export type RbdReads = {
  /** Takes the planned reads in their order. Throws what the cluster says, as an error of ours. */
  readonly read: ReadBytes;
  /** Waits for what is still on its way: nothing is written to the window afterwards. */
  close(): void;
};

/** What reading needs of librbd. */
export type RbdReadCalls = Pick<RbdCalls, 'allocate' | 'release' | 'startRead' | 'finishRead'>;

export type RbdReader = { start(handle: RbdHandle, reads: Iterable<Extent>): RbdReads };

export function createRbdReader(calls: RbdReadCalls): RbdReader {
  const free: NativeMemory[] = [];
  return {
    start(handle, reads) {
      const planned = [...reads];
      const longest = planned.reduce((most, { length }) => Math.max(most, length), 0);
      const total = totalLength(planned);
      const room = total <= windowBytes ? Math.max(total, MiB) : Math.max(windowBytes, 2 * longest);
      const at = free.findIndex(({ bytes }) => bytes.length >= room);
      const memory = (at < 0 ? undefined : free.splice(at, 1)[0]) ?? calls.allocate(room);
      return readInto(calls, handle, planned, memory, () => {
        if (free.length < keptWindows) free.push(memory);
        else calls.release(memory);
      });
    },
  };
}

function readInto(
  calls: RbdReadCalls,
  handle: RbdHandle,
  planned: readonly Extent[],
  memory: NativeMemory,
  done: () => void,
): RbdReads {
  const ring = createRing(memory.bytes.length);
  const running: { readonly extent: Extent; readonly place: number; readonly completion: bigint }[] = [];
  let next = 0;
  let open = true;

  const start = () => {
    for (let extent = planned[next]; extent !== undefined; extent = planned[next]) {
      const place = ring.take(extent.length);
      if (place === null) return;
      const { offset, length } = extent;
      const completion = calls.startRead(handle.image, offset, length, memory.address + BigInt(place));
      running.push({ extent, place, completion });
      next += 1;
    }
  };
  const translated = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      throw translateRbdError(error, handle.cluster, handle.thing);
    }
  };
  const close = () => {
    if (!open) return;
    open = false;
    for (const { completion } of running.splice(0)) {
      try {
        calls.finishRead(completion);
      } catch {
        // The job has failed already, or does not want these bytes.
      }
    }
    done();
  };

  try {
    translated(start);
  } catch (error) {
    close();
    throw error;
  }
  return {
    read(target, position) {
      const one = running.shift();
      invariant(
        one !== undefined && one.extent.offset === position && one.extent.length === target.length,
        'a job reads what it planned to read',
      );
      translated(() => {
        calls.finishRead(one.completion);
      });
      memory.bytes.copy(target, 0, one.place, one.place + target.length);
      ring.give();
      translated(start);
    },
    close,
  };
}

export type Ring = {
  /** Where `length` contiguous bytes are free, or null. */
  take(length: number): number | null;
  /** Frees the oldest that was taken. */
  give(): void;
};

/** Places in `size` bytes, given back in the order in which they were taken. */
export function createRing(size: number): Ring {
  const held: { readonly start: number; readonly end: number }[] = [];
  return {
    take(length) {
      const oldest = held[0];
      const newest = held.at(-1);
      let start: number | null;
      if (oldest === undefined || newest === undefined) start = length <= size ? 0 : null;
      else if (newest.end > oldest.start) {
        if (size - newest.end >= length) start = newest.end;
        else start = oldest.start >= length ? 0 : null;
      } else start = oldest.start - newest.end >= length ? newest.end : null;
      if (start !== null) held.push({ start, end: start + length });
      return start;
    },
    give() {
      if (held.shift() === undefined)
        throw new BackupError('bug', 'more places are given back than were taken');
    },
  };
}
