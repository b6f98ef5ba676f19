/**
 * The slow things that are done to files, cut into steps of bounded work: each looks at a range from `from` on and
 * says how far it came, so that the caller can stop between two steps, and many callers share a thread.
 * Runs in a worker: synchronous system calls are right here.
 */
import { fsyncSync, writeSync } from 'node:fs';
import { BackupError, invariant } from '../model/errors.ts';
import { diffExtentMaps, readExtentMap, sameMap, type MapDifference } from './extent-map.ts';
import { unsupported } from './file-errors.ts';
import type { LinuxCalls } from './linux-calls.ts';
import { readFully } from './reader-job.ts';

/** File descriptors belong to the main thread and stay open until the step has ended. Ranges are [from, end). */
export type FileStep =
  /** Data and zeros that tile the range: by the file's holes. */
  | { readonly kind: 'allocation'; readonly fd: number; readonly from: number; readonly end: number }
  /** What changed between two reflinked files, by their physical extents. */
  | {
      readonly kind: 'extents';
      readonly previousFd: number;
      readonly currentFd: number;
      readonly from: number;
      readonly end: number;
    }
  /** What changed between two files, block by block, by their bytes. */
  | {
      readonly kind: 'bytes';
      readonly previousFd: number;
      readonly currentFd: number;
      readonly from: number;
      readonly end: number;
      readonly blockSize: number;
    }
  /** Copies what is not zero to the same place of a file that is all holes. */
  | {
      readonly kind: 'copy';
      readonly sourceFd: number;
      readonly targetFd: number;
      readonly from: number;
      readonly end: number;
    }
  /** Makes the range zeros, as a hole where the file system can. */
  | { readonly kind: 'zero'; readonly fd: number; readonly from: number; readonly end: number }
  /** Makes the range zeros by writing: what is not, or all of it. */
  | {
      readonly kind: 'fill';
      readonly fd: number;
      readonly from: number;
      readonly end: number;
      readonly all?: boolean;
    }
  /** Tells a thin device that a whole number of its blocks is not needed; it may keep some. EOPNOTSUPP where it takes none. */
  | { readonly kind: 'discard'; readonly fd: number; readonly from: number; readonly end: number }
  /** Locks a file until it is closed: EAGAIN if it is locked, ENOSYS where that cannot be done. */
  | { readonly kind: 'lock'; readonly fd: number };

/** The third number of a triple. `unsure`: only their bytes tell whether the two files differ here. */
export const stepFlags = { zero: 0, data: 1, unsure: 2 } as const satisfies Record<
  MapDifference['kind'],
  number
>;

/** `extents` are triples: offset, length, and a flag. */
export type FileStepResult = {
  readonly next: number;
  readonly extents: Float64Array;
  readonly readBytes: number;
};

const stepBytes = 16 * 1024 * 1024;
const pieceBytes = 1024 * 1024;
const sparseBytes = 64 * 1024;
const segmentsPerStep = 1024;
/** How often a range is mapped again while the file system moves its blocks about. */
const mapAttempts = 5;

export type StepRunner = (step: FileStep) => FileStepResult;

/** `calls` null: everything is done by reading and writing bytes. */
export function createStepRunner(calls: LinuxCalls | null): StepRunner {
  const first = Buffer.allocUnsafeSlow(pieceBytes);
  const second = Buffer.allocUnsafeSlow(pieceBytes);
  const zeros = Buffer.alloc(pieceBytes);
  const holes = holeFinder(calls);

  const compare = (step: FileStep & { kind: 'bytes' }): FileStepResult => {
    const { previousFd, currentFd, end, blockSize } = step;
    const found = collector();
    const size = Math.max(blockSize, pieceBytes);
    const was = size > first.length ? Buffer.allocUnsafeSlow(size) : first;
    const is = size > second.length ? Buffer.allocUnsafeSlow(size) : second;
    const zeroBlock = blockSize > zeros.length ? Buffer.alloc(blockSize) : zeros;
    let at = step.from;
    let read = 0;
    while (at < end && read < 2 * stepBytes) {
      const data = Math.min(holes.nextData(previousFd, at, end), holes.nextData(currentFd, at, end));
      if (data >= end) {
        at = end;
        break;
      }
      at = Math.max(at, data - (data % blockSize));
      const length = Math.min(size, end - at);
      const before = was.subarray(0, length);
      const now = is.subarray(0, length);
      readFully(previousFd, before, at);
      readFully(currentFd, now, at);
      read += 2 * length;
      if (!before.equals(now)) {
        for (let block = 0; block < length; block += blockSize) {
          const stop = Math.min(length, block + blockSize);
          if (before.compare(now, block, stop, block, stop) === 0) continue;
          const isZero = now.compare(zeroBlock, 0, stop - block, block, stop) === 0;
          found.add(isZero ? 'zero' : 'data', at + block, stop - block);
        }
      }
      at += length;
    }
    return { next: at, extents: found.triples(), readBytes: read };
  };

  const allocation = (step: FileStep & { kind: 'allocation' }): FileStepResult => {
    const found = collector();
    let at = step.from;
    for (let i = 0; i < segmentsPerStep && at < step.end; i += 1) {
      const data = holes.nextData(step.fd, at, step.end);
      if (data > at) found.add('zero', at, data - at);
      at = data;
      if (at >= step.end) break;
      const hole = holes.nextHole(step.fd, at, step.end);
      found.add('data', at, hole - at);
      at = hole;
    }
    return { next: at, extents: found.triples(), readBytes: 0 };
  };

  const copy = (step: FileStep & { kind: 'copy' }): FileStepResult => {
    let at = step.from;
    let read = 0;
    while (at < step.end && read < stepBytes) {
      at = holes.nextData(step.sourceFd, at, step.end);
      if (at >= step.end) break;
      const stop = Math.min(holes.nextHole(step.sourceFd, at, step.end), at + pieceBytes);
      const piece = first.subarray(0, stop - at);
      readFully(step.sourceFd, piece, at);
      read += piece.length;
      for (let part = 0; part < piece.length; part += sparseBytes) {
        const bytes = piece.subarray(part, part + sparseBytes);
        if (bytes.compare(zeros, 0, bytes.length) !== 0) writeFully(step.targetFd, bytes, at + part);
      }
      at = stop;
    }
    return reached(at, read);
  };

  const zero = (step: FileStep & { kind: 'zero' }): FileStepResult => {
    if (calls === null) return fill(step);
    try {
      calls.punchHole(step.fd, step.from, step.end - step.from);
      return reached(step.end, 0);
    } catch (error) {
      if (!unsupported(error)) throw error;
      return fill(step);
    }
  };

  const fill = (step: FileStep & { kind: 'zero' | 'fill' }): FileStepResult => {
    const isBlind = step.kind === 'fill' && step.all === true;
    let at = step.from;
    while (at < step.end && at - step.from < stepBytes) {
      const piece = first.subarray(0, Math.min(pieceBytes, step.end - at));
      if (!isBlind) readFully(step.fd, piece, at);
      if (isBlind || piece.compare(zeros, 0, piece.length) !== 0) {
        writeFully(step.fd, zeros.subarray(0, piece.length), at);
      }
      at += piece.length;
    }
    return reached(at, 0);
  };

  return (step) => {
    switch (step.kind) {
      case 'allocation':
        return allocation(step);
      case 'extents':
        invariant(calls !== null, 'extents are asked for only where the probe has seen them work');
        return compareExtents(calls, step);
      case 'bytes':
        return compare(step);
      case 'copy':
        return copy(step);
      case 'zero':
        return zero(step);
      case 'fill':
        return fill(step);
      case 'discard':
        if (calls === null) throw Object.assign(new Error('EOPNOTSUPP: discard'), { code: 'EOPNOTSUPP' });
        calls.discard(step.fd, step.from, step.end - step.from);
        return reached(step.end, 0);
      case 'lock':
        if (calls === null) throw Object.assign(new Error('ENOSYS: flock'), { code: 'ENOSYS' });
        calls.lock(step.fd);
        return reached(0, 0);
      default:
        return step satisfies never;
    }
  };
}

/**
 * The previous file is mapped before and after the current one. Only if both maps agree did it hold its physical
 * places all the time, and an equal place in the current file is the same bytes: a file system that moves blocks
 * about (balance, defragmentation) could else have given a freed place to new data in between.
 */
function compareExtents(calls: LinuxCalls, step: FileStep & { kind: 'extents' }): FileStepResult {
  const { previousFd, currentFd, from, end } = step;
  const map = (fd: number, until: number) => {
    const found = readExtentMap(calls, fd, from, until, segmentsPerStep);
    if (found.extents.every(({ shift }) => shift !== null)) return found;
    fsyncSync(fd);
    return readExtentMap(calls, fd, from, until, segmentsPerStep);
  };
  for (let attempt = 0; attempt < mapAttempts; attempt += 1) {
    const before = map(previousFd, end);
    const current = map(currentFd, before.until);
    if (!sameMap(before, map(previousFd, end))) continue;
    const found = collector();
    for (const { kind, offset, length } of diffExtentMaps(before, current)) found.add(kind, offset, length);
    return { next: Math.min(before.until, current.until), extents: found.triples(), readBytes: 0 };
  }
  throw new BackupError(
    'delta-unavailable',
    `the file system keeps moving the blocks of a snapshot at byte ${from}: wait until its balance or defragmentation is done`,
  );
}

/** A step that has found nothing to tell. */
function reached(next: number, readBytes: number): FileStepResult {
  return { next, extents: new Float64Array(), readBytes };
}

function collector() {
  const numbers: number[] = [];
  return {
    /** Joins with the extent before where they touch and are of one kind. */
    add(kind: MapDifference['kind'], offset: number, length: number) {
      const flag = stepFlags[kind];
      const at = numbers.length - 3;
      const end = (numbers[at] ?? 0) + (numbers[at + 1] ?? 0);
      if (at >= 0 && numbers[at + 2] === flag && end === offset)
        numbers[at + 1] = (numbers[at + 1] ?? 0) + length;
      else numbers.push(offset, length, flag);
    },
    triples: () => Float64Array.from(numbers),
  };
}

/** Where a file has data and holes; all of it counts as data where that cannot be asked. */
function holeFinder(calls: LinuxCalls | null) {
  return {
    nextData(fd: number, at: number, end: number): number {
      if (calls === null) return at;
      return Math.min(end, calls.seekData(fd, at) ?? end);
    },
    nextHole(fd: number, at: number, end: number): number {
      if (calls === null) return end;
      return Math.min(end, calls.seekHole(fd, at));
    },
  };
}

function writeFully(fd: number, bytes: Buffer, position: number): void {
  for (let done = 0; done < bytes.length;) {
    done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  }
}
