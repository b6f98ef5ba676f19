/** Which bytes of a volume a restore has written: sorted, joined ranges, so that nothing is written twice. */
import { BackupError } from '../model/errors.ts';

export type WrittenRanges = {
  /** Adds [offset, offset + length). Throws `message-invalid` if any byte of it was added before. */
  add(offset: number, length: number): void;
  /** How many separate ranges are held. */
  readonly count: number;
};

/** More separate ranges than this are refused (`limit-exceeded`): the sender has no order at all. */
const maxRanges = 1_000_000;

export function createWrittenRanges(): WrittenRanges {
  const starts: number[] = [];
  const ends: number[] = [];

  /** The index of the first range that ends behind `offset`. */
  const firstEndingAfter = (offset: number): number => {
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((ends[middle] ?? 0) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  };

  return {
    get count() {
      return starts.length;
    },
    add(offset, length) {
      const end = offset + length;
      const at = firstEndingAfter(offset);
      if ((starts[at] ?? Infinity) < end) {
        throw new BackupError(
          'message-invalid',
          `bytes ${offset} to ${end} overlap what this stream wrote before`,
        );
      }
      const joinsLeft = at > 0 && ends[at - 1] === offset;
      const joinsRight = starts[at] === end;
      if (joinsLeft && joinsRight) {
        ends.splice(at - 1, 1);
        starts.splice(at, 1);
      } else if (joinsLeft) ends[at - 1] = end;
      else if (joinsRight) starts[at] = offset;
      else {
        if (starts.length >= maxRanges) {
          throw new BackupError(
            'limit-exceeded',
            `a stream may leave at most ${maxRanges} gaps: send it in order`,
          );
        }
        starts.splice(at, 0, offset);
        ends.splice(at, 0, end);
      }
    },
  };
}
