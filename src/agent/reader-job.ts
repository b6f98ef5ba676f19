/**
 * One job of a reader thread: reads a list of extents of an open snapshot and turns it into whole frames, ready to
 * be sent. Runs in a worker: synchronous system calls are right here.
 */
import { hash } from 'node:crypto';
import { readSync } from 'node:fs';
import { digestBytes } from '../model/digest.ts';
import { BackupError } from '../model/errors.ts';
import { blockCount, splitExtents, type Extent } from '../model/extent.ts';
import { headerBytes, writeHeader } from '../protocol/frames.ts';
import type { ReadHandle } from './volume-backend.ts';

/**
 * `extents` holds triples: offset, length, and 1 for data or 0 for zeros; data starts on a block boundary and ends
 * on one or at the end of the snapshot. `frames` is `blocks` (data and digests) or `digests`. `buffer` takes the
 * frames: at least `outputBytes` of the same extents. It is shared memory, which V8 does not count: buffers handed from
 * thread to thread made it collect everything about every 40 MiB.
 */
export type ReaderJob = {
  readonly frames: 'blocks' | 'digests';
  readonly handle: ReadHandle;
  readonly blockSize: number;
  readonly extents: Float64Array;
  readonly buffer: SharedArrayBuffer;
};

export type ReaderResult = {
  /** Bytes of the job's `buffer` that are frames. */
  readonly usedBytes: number;
  readonly dataBytes: number;
  readonly zeroBytes: number;
  readonly digests: number;
  readonly readBytes: number;
};

/**
 * Room for the frames of `dataBytes` in `entries` extents: every entry may cost a data and a zero header, every
 * block a digest; and a zero header and a data header between two blocks fit the zero block they stand for,
 * or in a `digests` stream take 32 bytes for each block.
 */
export function outputBytes(
  frames: ReaderJob['frames'],
  dataBytes: number,
  entries: number,
  blockSize: number,
): number {
  const blocks = Math.ceil(dataBytes / blockSize) + entries;
  return (
    entries * 2 * headerBytes + blocks * (digestBytes + headerBytes) + (frames === 'blocks' ? dataBytes : 0)
  );
}

type Writer = {
  zero(offset: number, length: number): void;
  /** Where the next frame begins once the zero frame that may be held back is written. */
  readonly next: number;
  /** Writes the zero frame that is held back. Returns where the next frame begins. */
  flush(): number;
  advance(bytes: number): void;
};

/** Joins adjacent zero extents, and writes them when something else follows. */
function createWriter(out: Buffer): Writer {
  let at = 0;
  let heldOffset = 0;
  let heldLength = 0;
  const nothing = Buffer.alloc(0);
  return {
    get next() {
      return heldLength > 0 ? at + headerBytes : at;
    },
    zero(offset, length) {
      if (heldLength > 0 && heldOffset + heldLength !== offset) this.flush();
      if (heldLength === 0) heldOffset = offset;
      heldLength += length;
    },
    flush() {
      if (heldLength > 0) {
        writeHeader(out, at, { type: 'zero', offset: heldOffset, length: heldLength }, nothing);
        at += headerBytes;
        heldLength = 0;
      }
      return at;
    },
    advance(bytes) {
      at += bytes;
    },
  };
}

type Tally = { data: number; zero: number; digests: number; read: number };

const pieceBytes = 1024 * 1024;

export type ReaderScratch = { zeros: Buffer; piece: Buffer };

export function createScratch(): ReaderScratch {
  return { zeros: Buffer.alloc(64 * 1024), piece: Buffer.allocUnsafeSlow(pieceBytes) };
}

/** Fills `target` with the bytes at `position`. Called with the reads of `readsOf`, one after the other. */
export type ReadBytes = (target: Buffer, position: number) => void;

/** What a job is going to read, in order: for a reader that begins to read before it is asked. */
export function* readsOf(job: ReaderJob): Generator<Extent> {
  const { extents, frames, blockSize } = job;
  for (let i = 0; i + 2 < extents.length; i += 3) {
    if (extents[i + 2] === 0) continue;
    const extent = { offset: extents[i] ?? 0, length: extents[i + 1] ?? 0 };
    if (frames === 'blocks') yield extent;
    else yield* splitExtents([extent], digestPieceBytes(blockSize));
  }
}

/** Bytes that are read and hashed at a time where only digests are wanted: whole blocks. */
function digestPieceBytes(blockSize: number): number {
  return Math.max(blockSize, pieceBytes);
}

/** Does the job. Throws what `read` throws. */
export function runReaderJob(job: ReaderJob, read: ReadBytes, scratch: ReaderScratch): ReaderResult {
  if (scratch.zeros.length < job.blockSize) scratch.zeros = Buffer.alloc(job.blockSize);
  if (scratch.piece.length < job.blockSize) scratch.piece = Buffer.allocUnsafeSlow(job.blockSize);
  const out = Buffer.from(job.buffer);
  const writer = createWriter(out);
  const tally: Tally = { data: 0, zero: 0, digests: 0, read: 0 };
  const { extents } = job;
  for (let i = 0; i + 2 < extents.length; i += 3) {
    const offset = extents[i] ?? 0;
    const length = extents[i + 1] ?? 0;
    if (extents[i + 2] === 0) {
      writer.zero(offset, length);
      tally.zero += length;
    } else if (job.frames === 'blocks') blockFrames(job, read, out, writer, offset, length, scratch, tally);
    else digestFrames(job, read, out, writer, offset, length, scratch, tally);
  }
  const usedBytes = writer.flush();
  return {
    usedBytes,
    dataBytes: tally.data,
    zeroBytes: tally.zero,
    digests: tally.digests,
    readBytes: tally.read,
  };
}

/**
 * The data is read to where it stays when no block of it is zero: behind one header and all digests. When some
 * are zero, the runs between them move down: every zero block frees at least 512 bytes and costs two headers of
 * 32, so a run never moves up, and nothing is overwritten before it was hashed and moved.
 */
function blockFrames(
  job: ReaderJob,
  read: ReadBytes,
  out: Buffer,
  writer: Writer,
  offset: number,
  length: number,
  scratch: ReaderScratch,
  tally: Tally,
): void {
  const { blockSize } = job;
  const dataAt = writer.next + headerBytes + blockCount(length, blockSize) * digestBytes;
  read(out.subarray(dataAt, dataAt + length), offset);
  tally.read += length;

  for (const run of zeroRuns(out, dataAt, length, blockSize, scratch.zeros)) {
    const runOffset = offset + run.start;
    if (run.zero) {
      writer.zero(runOffset, run.length);
      tally.zero += run.length;
      continue;
    }
    const digests = blockCount(run.length, blockSize);
    const frameAt = writer.flush();
    const digestsAt = frameAt + headerBytes;
    const targetAt = digestsAt + digests * digestBytes;
    const sourceAt = dataAt + run.start;
    hashBlocks(out, sourceAt, run.length, blockSize, out, digestsAt);
    if (targetAt !== sourceAt) out.copyWithin(targetAt, sourceAt, sourceAt + run.length);
    writeHeader(
      out,
      frameAt,
      { type: 'data', digestCount: digests, offset: runOffset, length: run.length },
      out.subarray(digestsAt, targetAt + run.length),
    );
    writer.advance(headerBytes + digests * digestBytes + run.length);
    tally.data += run.length;
    tally.digests += digests;
  }
}

function digestFrames(
  job: ReaderJob,
  read: ReadBytes,
  out: Buffer,
  writer: Writer,
  offset: number,
  length: number,
  scratch: ReaderScratch,
  tally: Tally,
): void {
  const { blockSize } = job;
  let frameAt = 0;
  let frameOffset = 0;
  let count = 0;
  const finish = (end: number) => {
    if (count === 0) return;
    const payload = out.subarray(frameAt + headerBytes, frameAt + headerBytes + count * digestBytes);
    const frame = {
      type: 'digests',
      digestCount: count,
      offset: frameOffset,
      length: end - frameOffset,
    } as const;
    writeHeader(out, frameAt, frame, payload);
    writer.advance(headerBytes + payload.length);
    tally.data += frame.length;
    tally.digests += count;
    count = 0;
  };

  const step = digestPieceBytes(blockSize);
  for (let done = 0; done < length; done += step) {
    const piece = scratch.piece.subarray(0, Math.min(step, length - done));
    read(piece, offset + done);
    tally.read += piece.length;
    for (const run of zeroRuns(piece, 0, piece.length, blockSize, scratch.zeros)) {
      const runOffset = offset + done + run.start;
      if (run.zero) {
        finish(runOffset);
        writer.zero(runOffset, run.length);
        tally.zero += run.length;
        continue;
      }
      if (count === 0) {
        frameAt = writer.flush();
        frameOffset = runOffset;
      }
      const digestsAt = frameAt + headerBytes + count * digestBytes;
      hashBlocks(piece, run.start, run.length, blockSize, out, digestsAt);
      count += blockCount(run.length, blockSize);
    }
  }
  finish(offset + length);
}

/** Cuts a piece into runs of blocks that are all zeros, or not. `start` counts from the piece's begin. */
function* zeroRuns(
  bytes: Buffer,
  at: number,
  length: number,
  blockSize: number,
  zeros: Buffer,
): Generator<{ start: number; length: number; zero: boolean }> {
  let start = 0;
  let zero: boolean | undefined;
  for (let block = 0; block < length; block += blockSize) {
    const size = Math.min(blockSize, length - block);
    const isZero = bytes.compare(zeros, 0, size, at + block, at + block + size) === 0;
    if (zero !== undefined && isZero !== zero) {
      yield { start, length: block - start, zero };
      start = block;
    }
    zero = isZero;
  }
  if (zero !== undefined) yield { start, length: length - start, zero };
}

function hashBlocks(
  from: Buffer,
  at: number,
  length: number,
  blockSize: number,
  to: Buffer,
  digestsAt: number,
): void {
  let target = digestsAt;
  for (let done = 0; done < length; done += blockSize) {
    const end = at + Math.min(done + blockSize, length);
    hash('sha256', from.subarray(at + done, end), 'buffer').copy(to, target);
    target += digestBytes;
  }
}

/** Reads all of `target` from `position`. */
export function readFully(fd: number, target: Buffer, position: number): void {
  for (let done = 0; done < target.length;) {
    const got = readSync(fd, target, done, target.length - done, position + done);
    if (got === 0) {
      throw new BackupError(
        'corrupt',
        `a snapshot ends at byte ${position + done}, before the size in its record: something has cut its file`,
      );
    }
    done += got;
  }
}
