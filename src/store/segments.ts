/** Cuts a stream into buffers that are big enough to be objects or parts of their own. */
import { throwIfAborted } from '../model/errors.ts';

/** `bytes` is good until the next segment is asked for. `last` is true once, also for an empty stream. */
export type Segment = { readonly bytes: Buffer; readonly last: boolean };

const firstBufferBytes = 262_144;
const segmentsOfOneSize = 64;

/**
 * Sizes of segments by their number from 0 on: `firstBytes`, and half as much more after every 64. From 8 MiB on, 1000 segments
 * (what a Swift allows by default) are 36.4 GiB, which holds the hash list of 16 TiB in blocks of 32 KiB: 72 bytes for each, 36 GiB.
 * Most lists are small, and each segment is memory that no ceiling counts.
 */
export function growingSegments(firstBytes: number): (at: number) => number {
  return (at) => firstBytes + Math.floor(at / segmentsOfOneSize) * Math.floor(firstBytes / 2);
}

/** The stream again from its first segment on, which was taken out to see whether it is the only one. */
export async function* startingWith(first: Segment, rest: AsyncIterable<Segment>): AsyncGenerator<Segment> {
  yield first;
  yield* rest;
}

/**
 * `sizeOf` gives the bytes of a segment by its number from 0 on; sizes may grow. Holds one segment, and during growth of the
 * first buffer half as much again. What `body` throws goes through as it is. Throws `cancelled` between two pieces once `signal` has
 * aborted.
 */
export async function* cutIntoSegments(
  body: AsyncIterable<Buffer>,
  sizeOf: (at: number) => number,
  signal: AbortSignal,
): AsyncGenerator<Segment> {
  let at = 0;
  let segmentBytes = sizeOf(at);
  let buffer = Buffer.allocUnsafeSlow(Math.min(firstBufferBytes, segmentBytes));
  let filled = 0;

  const makeRoom = (wanted: number) => {
    if (buffer.length >= wanted) return;
    const wider = Buffer.allocUnsafeSlow(Math.min(segmentBytes, Math.max(wanted, buffer.length * 2)));
    buffer.copy(wider, 0, 0, filled);
    buffer = wider;
  };

  throwIfAborted(signal);
  for await (const piece of body) {
    throwIfAborted(signal);
    for (let start = 0; start < piece.length;) {
      if (filled === segmentBytes) {
        yield { bytes: buffer.subarray(0, filled), last: false };
        filled = 0;
        at += 1;
        segmentBytes = sizeOf(at);
        if (segmentBytes > buffer.length) {
          // Nothing refers to the smaller one while the larger one is made.
          buffer = Buffer.alloc(0);
          buffer = Buffer.allocUnsafeSlow(segmentBytes);
        }
      }
      const take = Math.min(segmentBytes - filled, piece.length - start);
      makeRoom(filled + take);
      piece.copy(buffer, filled, start, start + take);
      filled += take;
      start += take;
    }
  }
  throwIfAborted(signal);
  yield { bytes: buffer.subarray(0, filled), last: true };
}
