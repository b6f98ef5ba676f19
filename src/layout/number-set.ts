/** Which numbers of objects there are: one bit each, since Cinder counts them from 1 without a gap. */

const firstBytes = 1024;
/** Numbers of a backup that are told apart at most; every backup counts its objects from 1. */
export const greatestNumber = 2 ** 24;

export type NumberSet = {
  readonly size: number;
  has(number: number): boolean;
  /** False if it is in it already, or is not between 1 and the greatest that fits. */
  add(number: number): boolean;
  /** False if it was not in it. */
  delete(number: number): boolean;
  /** In ascending order. */
  [Symbol.iterator](): Generator<number>;
};

/** Holds numbers from 1 to `greatest`, and costs a bit for each up to the greatest that it holds. */
export function createNumberSet(greatest: number): NumberSet {
  let bits = new Uint8Array(firstBytes);
  let size = 0;
  const has = (number: number): boolean => ((bits[Math.floor(number / 8)] ?? 0) & bitOf(number)) !== 0;
  return {
    get size() {
      return size;
    },
    has,
    add(number) {
      if (number < 1 || number > greatest || has(number)) return false;
      const byte = Math.floor(number / 8);
      if (byte >= bits.length) {
        const larger = new Uint8Array(Math.max(byte + 1, bits.length * 2));
        larger.set(bits);
        bits = larger;
      }
      bits[byte] = (bits[byte] ?? 0) | bitOf(number);
      size += 1;
      return true;
    },
    delete(number) {
      if (number < 1 || number > greatest || !has(number)) return false;
      const byte = Math.floor(number / 8);
      bits[byte] = (bits[byte] ?? 0) & ~bitOf(number);
      size -= 1;
      return true;
    },
    *[Symbol.iterator]() {
      for (let number = 1; number < bits.length * 8; number += 1) if (has(number)) yield number;
    },
  };
}

function bitOf(number: number): number {
  return 1 << (number & 7);
}
