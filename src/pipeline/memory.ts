/**
 * The memory of the pipelines. All operations of a process share one budget, the declared ceiling:
 *
 *   slab      = min(25 MiB, ceiling / 10), in whole blocks, and up to whole 64 KiB; no object of data of ours is larger, whatever size is configured.
 *               Objects of zeros, which take no slab, are up to 50 MiB. A slab of one block is 64 KiB longer: the stored bytes of objects
 *               larger than it pass beside the block
 *   fixed     = 8 MiB and the digests of one slab's blocks for each slab: hash lists on their way, batches of a comparison
 *   backup    = fixed + slabs:  at least 2 (volume bytes, and the bodies made of them), at most 2 * (threads + 1);
 *               with codec none the volume bytes are the bodies: at least 1, at most threads + 2;
 *               beside that 41 bytes for each object that has been stored, which are not counted
 *   restore, verify = fixed + window + slabs: at least 2 (a body, and the volume bytes in it), at most 2 * (threads + 1)
 *   window    = 32 bytes for each block between the first byte that waits for an object and the last that an object in
 *               flight gives
 *
 * An operation takes its least in one request before it begins, and ends with that alone, so operations cannot wait for each
 * other in a circle. Places at an agent come after it: whoever has a stream or a target open has its memory. What it takes beyond is
 * only taken while nobody waits, and goes back with each use.
 */
import { digestBytes } from '../model/digest.ts';
import { BackupError } from '../model/errors.ts';
import type { Codec } from '../model/codec.ts';
import { memoryUnitBytes } from '../model/page-memory.ts';

const mebibyte = 1024 * 1024;

/** Half of Cinder's default object: larger ones win no speed, and six slabs of them would be most of the process. */
export const largestSlabBytes = 25 * mebibyte;
/** Cinder's default object, which its readers inflate in memory at once; ours read such zeros without inflating them. */
export const largestZeroBytes = 50 * mebibyte;
const slabsInCeiling = 10;
const fixedBytes = 8 * mebibyte;

export type MemoryNeed = {
  /** Volume bytes that fit a slab: whole blocks. */
  readonly objectBytes: number;
  /** Bytes of each slab. */
  readonly slabBytes: number;
  /** What one slab counts: itself and the digests of its blocks. */
  readonly slabCost: number;
  readonly fixedBytes: number;
  /** Slabs of an operation. */
  readonly leastSlabs: number;
  readonly mostSlabs: number;
  /** What an operation has to have before it begins. */
  readonly leastBytes: number;
};

/**
 * What an operation needs under a ceiling of `capacity` bytes. `windowBytes` is zero for a backup. Throws `limit-exceeded` if the
 * ceiling is too low for it.
 */
export function memoryNeed(
  kind: 'backup' | 'restore',
  capacity: number,
  options: {
    readonly blockSize: number;
    readonly threads: number;
    readonly codec?: Codec;
    readonly windowBytes?: number;
  },
): MemoryNeed {
  const { blockSize, threads, windowBytes = 0 } = options;
  const objectBytes = slabObjectBytes(capacity, blockSize);
  const besideBytes = objectBytes === blockSize ? memoryUnitBytes : 0;
  const slabBytes = Math.ceil((objectBytes + besideBytes) / memoryUnitBytes) * memoryUnitBytes;
  const slabCost = slabBytes + (objectBytes / blockSize) * digestBytes;
  const single = kind === 'backup' && options.codec === 'none';
  const leastSlabs = single ? 1 : 2;
  const mostSlabs = single ? threads + 2 : 2 * (threads + 1);
  const fixed = Math.min(fixedBytes, Math.floor(capacity / 4)) + windowBytes;
  const leastBytes = fixed + leastSlabs * slabCost;
  if (leastBytes > capacity) {
    throw new BackupError(
      'limit-exceeded',
      `the memory ceiling of ${capacity} bytes is too low for blocks of ${blockSize} bytes: set it to at least ${leastBytes + fixedBytes}`,
      { details: { capacity, blockSize, leastBytes } },
    );
  }
  return { objectBytes, slabBytes, slabCost, fixedBytes: fixed, leastSlabs, mostSlabs, leastBytes };
}

/** Volume bytes that fit a slab under a ceiling of `capacity` bytes: whole blocks. */
export function slabObjectBytes(capacity: number, blockSize: number): number {
  return wholeBlocks(Math.min(largestSlabBytes, Math.floor(capacity / slabsInCeiling)), blockSize);
}

/** Bytes of the largest objects of data and of zeros where `configuredBytes` are wanted and `slabBytes` fit a slab: whole blocks. */
export function objectSizes(
  configuredBytes: number,
  blockSize: number,
  slabBytes: number,
): { readonly dataBytes: number; readonly zeroBytes: number } {
  const wanted = wholeBlocks(configuredBytes, blockSize);
  const dataBytes = Math.min(wanted, slabBytes);
  const zeroBytes = Math.max(dataBytes, Math.min(wanted, wholeBlocks(largestZeroBytes, blockSize)));
  return { dataBytes, zeroBytes };
}

function wholeBlocks(bytes: number, blockSize: number): number {
  return Math.max(1, Math.floor(bytes / blockSize)) * blockSize;
}
