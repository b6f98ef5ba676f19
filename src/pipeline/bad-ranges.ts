/** The findings of a verification: the first bad ranges, and the numbers of all, whatever is damaged. */
import type { BadRange } from './jobs.ts';

/** Bad ranges that are told one by one. */
export const mostBadRanges = 1000;

export type BadRanges = {
  add(bad: BadRange): void;
  readonly count: number;
  /** Bytes of all of them; one that several objects give counts more than once. */
  readonly bytes: number;
  /** The first `mostBadRanges` by offset, then by object. */
  first(): readonly BadRange[];
};

export function createBadRanges(): BadRanges {
  let kept: BadRange[] = [];
  let count = 0;
  let bytes = 0;
  const first = (): readonly BadRange[] => {
    kept = kept
      .toSorted((a, b) => a.offset - b.offset || (a.object < b.object ? -1 : 1))
      .slice(0, mostBadRanges);
    return kept;
  };
  return {
    add(bad) {
      count += 1;
      bytes += bad.length;
      kept.push(bad);
      if (kept.length >= 2 * mostBadRanges) first();
    },
    get count() {
      return count;
    },
    get bytes() {
      return bytes;
    },
    first,
  };
}
