/**
 * The newest layer's hash list as a window that slides over the volume while objects are begun in order of their first needed
 * byte. It reaches from there to the last byte that any of them gives.
 */
import { digestBytes } from '../model/digest.ts';
import { BackupError } from '../model/errors.ts';
import { blockCount, endOf, totalLength, type Extent } from '../model/extent.ts';
import type { PlannedObject } from '../layout/chain.ts';

/** Digests that the reader of a hash list gives at a time: what is read and forgotten in one step. */
const readerRunBlocks = 4096;

export type DigestWindow = {
  /** The digests of the blocks of all `segments` (sorted, on block boundaries, not below what was released), in a new buffer. */
  collect(segments: readonly Extent[]): Promise<Buffer>;
  /** Forgets the blocks below `offset`, and does not keep them when they are read. */
  releaseBelow(offset: number): void;
  /** Bytes of digests in the window. */
  readonly heldBytes: number;
  /** Reads the list to its end, which proves it whole. */
  finish(): Promise<void>;
  close(): Promise<void>;
};

type Run = { readonly firstBlock: number; readonly digests: Buffer };

/** `name` is that of the hash list, for messages. Throws `corrupt` where the list is shorter or longer than the volume. */
export function createDigestWindow(
  list: AsyncIterable<Buffer>,
  volume: { readonly name: string; readonly blockSize: number; readonly lengthBytes: number },
): DigestWindow {
  const { name, blockSize, lengthBytes } = volume;
  const blocks = blockCount(lengthBytes, blockSize);
  const source = list[Symbol.asyncIterator]();
  const runs: Run[] = [];
  let end = 0;
  let floor = 0;

  const mismatch = (have: string): BackupError =>
    new BackupError(
      'corrupt',
      `hash list ${name} has ${have} hashes, the volume has ${blocks} blocks of ${blockSize} bytes: the backup's documents were damaged; restore from another backup`,
    );

  const readTo = async (block: number): Promise<void> => {
    while (end < block) {
      const next = await source.next();
      if (next.done === true) throw mismatch(`${end}`);
      const firstBlock = end;
      end += next.value.length / digestBytes;
      if (end > floor) runs.push({ firstBlock, digests: Buffer.from(next.value) });
      if (end > blocks) throw mismatch('more');
    }
  };

  return {
    async collect(segments) {
      const counts = segments.map(({ length }) => blockCount(length, blockSize));
      const out = Buffer.allocUnsafe(counts.reduce((sum, count) => sum + count, 0) * digestBytes);
      let at = 0;
      for (const [index, segment] of segments.entries()) {
        if (
          segment.offset % blockSize !== 0 ||
          (endOf(segment) % blockSize !== 0 && endOf(segment) !== lengthBytes)
        ) {
          throw new BackupError(
            'corrupt',
            `an object ends inside the block at offset ${endOf(segment)}: the backup's metadata was damaged; restore from another backup`,
          );
        }
        const first = segment.offset / blockSize;
        const last = first + (counts[index] ?? 0);
        await readTo(last);
        for (const { firstBlock, digests } of runs) {
          const from = Math.max(first, firstBlock);
          const to = Math.min(last, firstBlock + digests.length / digestBytes);
          if (from >= to) continue;
          at += digests.copy(out, at, (from - firstBlock) * digestBytes, (to - firstBlock) * digestBytes);
        }
      }
      return out;
    },
    releaseBelow(offset) {
      floor = Math.floor(offset / blockSize);
      let gone = 0;
      for (const { firstBlock, digests } of runs) {
        if (firstBlock + digests.length / digestBytes > floor) break;
        gone += 1;
      }
      runs.splice(0, gone);
    },
    get heldBytes() {
      return runs.reduce((sum, { digests }) => sum + digests.length, 0);
    },
    async finish() {
      runs.length = 0;
      for (let read = end; read < blocks; read = end) {
        await readTo(read + 1);
        runs.length = 0;
      }
      const next = await source.next();
      if (next.done !== true) throw mismatch('more');
    },
    async close() {
      await source.return?.();
    },
  };
}

/**
 * Bytes of digests that a restore along `plan` holds at most: the window, and those of `inFlight` objects that have been begun.
 */
export function windowBytes(plan: Iterable<PlannedObject>, blockSize: number, inFlight: number): number {
  let reached = 0;
  let widest = 0;
  let largest = 0;
  for (const { segments } of plan) {
    const first = segments[0];
    const last = segments.at(-1);
    if (first === undefined || last === undefined) continue;
    reached = Math.max(reached, endOf(last));
    widest = Math.max(widest, reached - first.offset);
    largest = Math.max(largest, totalLength(segments));
  }
  const objects = inFlight * blockCount(largest, blockSize);
  return (blockCount(widest, blockSize) + 2 * readerRunBlocks + objects) * digestBytes;
}
