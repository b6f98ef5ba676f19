/** Sizes that agents take. Whoever configures others is told so at the start, and not by each backup. */

/** A block, the unit of hashing and change, is a power of two of so many bytes. */
export const leastBlockBytes = 512;
export const largestBlockBytes = 4 * 1024 * 1024;
/** Unchanged bytes between two changed ranges that may be asked for with them. */
export const largestMergeGapBytes = 64 * 1024 * 1024;

export function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(Math.log2(value));
}
