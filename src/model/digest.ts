/**
 * Block digests: SHA-256, 32 raw bytes each inside the project, lower-case hex only at the border of
 * the layout. A run of digests is one Buffer of 32 * n bytes.
 */
import { hash } from 'node:crypto';

export const digestBytes = 32;

const zeroDigests = new Map<number, Buffer>();

/** The SHA-256 of `lengthBytes` zero bytes (32 raw bytes, shared: do not write to it). */
export function zeroDigest(lengthBytes: number): Buffer {
  let digest = zeroDigests.get(lengthBytes);
  if (digest === undefined) {
    digest = hash('sha256', Buffer.alloc(lengthBytes), 'buffer');
    if (zeroDigests.size > 64) zeroDigests.clear();
    zeroDigests.set(lengthBytes, digest);
  }
  return digest;
}

/**
 * The digests of the zero blocks of an extent (block-aligned start; the last block may be short),
 * at most `maxBlocks` at a time, so that a terabyte of zeros needs no gigabyte of digests.
 */
export function* zeroDigestRuns(lengthBytes: number, blockSize: number, maxBlocks = 4096): Generator<Buffer> {
  const whole = Math.floor(lengthBytes / blockSize);
  const full = zeroDigest(blockSize);
  for (let done = 0; done < whole; done += maxBlocks) {
    const run = Buffer.allocUnsafe(Math.min(maxBlocks, whole - done) * digestBytes);
    run.fill(full);
    yield run;
  }
  const rest = lengthBytes % blockSize;
  if (rest > 0) yield Buffer.from(zeroDigest(rest));
}
