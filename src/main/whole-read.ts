/**
 * What a backup costs that reads the whole volume, as Cinder's chunked driver does (cinder/backup/chunkeddriver.py, backup):
 * every byte read and hashed in blocks of 32 KiB, and what is stored compressed with zlib at its default level.
 */
import { createHash, hash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { promisify } from 'node:util';
import { deflate } from 'node:zlib';
import { throwIfAborted } from '../model/errors.ts';

const pieceBytes = 1024 * 1024;
const blockBytes = 32 * 1024;
/** A prime, so that no regular layout of the volume fits it. */
const sampleEvery = 37;

export type WholeRead = {
  /** SHA-256 over the SHA-256 of every block, in hex: equal only for equal bytes. */
  readonly sha256: string;
  readonly bytes: number;
  /** Measured: reading every byte and hashing every block, in one thread. */
  readonly readSeconds: number;
  /** Computed: compressing every byte, extrapolated from every 37th MiB, which was measured. */
  readonly compressSeconds: number;
};

/** Reads the whole file. `sample`: also measure the compression. */
export async function readWhole(
  path: string,
  options: {
    readonly sample: boolean;
    readonly signal: AbortSignal;
    readonly onRead?: (bytes: number) => void;
  },
): Promise<WholeRead> {
  const whole = createHash('sha256');
  const piece = Buffer.allocUnsafeSlow(pieceBytes);
  let [bytes, readSeconds, sampledBytes, sampledSeconds] = [0, 0, 0, 0];
  const file = await open(path, 'r');
  try {
    for (;;) {
      throwIfAborted(options.signal);
      const started = performance.now();
      const { bytesRead } = await file.read(piece, 0, pieceBytes, bytes);
      if (bytesRead === 0) break;
      for (let at = 0; at < bytesRead; at += blockBytes) {
        whole.update(hash('sha256', piece.subarray(at, Math.min(at + blockBytes, bytesRead)), 'buffer'));
      }
      readSeconds += (performance.now() - started) / 1000;
      if (options.sample && Math.floor(bytes / pieceBytes) % sampleEvery === 0) {
        const before = performance.now();
        await promisify(deflate)(piece.subarray(0, bytesRead));
        sampledSeconds += (performance.now() - before) / 1000;
        sampledBytes += bytesRead;
      }
      bytes += bytesRead;
      options.onRead?.(bytes);
    }
  } finally {
    await file.close();
  }
  const compressSeconds = sampledBytes === 0 ? 0 : (sampledSeconds * bytes) / sampledBytes;
  return { sha256: whole.digest('hex'), bytes, readSeconds, compressSeconds };
}
