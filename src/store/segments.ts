/** Cuts a stream into buffers that are big enough to be objects or parts of their own. */
import { throwIfAborted } from '../model/errors.ts';

/** `bytes` is good until the next segment is asked for. `last` is true once, also for an empty stream. */
export type Segment = { readonly bytes: Buffer; readonly last: boolean };

const firstBufferBytes = 262_144;

/**
 * Holds at most `segmentBytes`, and during growth of the buffer half as much again. What `body` throws goes through as it is.
 * Throws `cancelled` between two pieces once `signal` has aborted.
 */
export async function* cutIntoSegments(
  body: AsyncIterable<Buffer>,
  segmentBytes: number,
  signal: AbortSignal,
): AsyncGenerator<Segment> {
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
