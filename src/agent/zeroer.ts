/** Makes ranges of a restore's target zeros: holes in a file; in a thin device blocks are given back, and zeros written. */
import { unsupported } from './file-errors.ts';
import type { FileThreads } from './file-snapshots.ts';
import type { FileStep } from './file-steps.ts';

/** What one discard gives back: a thin pool looks at each of its blocks. */
const discardStepBytes = 256 * 1024 * 1024;

export type ThinBlocks = {
  readonly bytes: number;
  /** False in a pool that gives out blocks with what they held before: what was never written there then appears around a write. */
  readonly zeroed: boolean;
};

/** `blocks` are those of a thin device; a file has none. */
export function createZeroer(
  fd: number,
  threads: FileThreads,
  blocks: ThinBlocks | undefined,
): (offset: number, length: number) => Promise<void> {
  const { signal } = new AbortController();
  /** False where the pool ignores discards (`lvchange --discards ignore`). */
  let discards = true;

  const run = async (from: number, end: number, make: (at: number) => FileStep): Promise<void> => {
    for (let at = from; at < end;) at = (await threads.run(make(at), [], signal)).next;
  };
  const fill = (from: number, end: number, all: boolean) =>
    run(from, end, (at) => ({ kind: 'fill', fd, from: at, end, all }));

  /** A thin device may end a discard well and keep blocks all the same (dm-thin.c): what is left is written. */
  const giveBack = async (from: number, end: number): Promise<void> => {
    if (discards) {
      try {
        await run(from, end, (at) => {
          return { kind: 'discard', fd, from: at, end: Math.min(end, at + discardStepBytes) };
        });
      } catch (error) {
        if (!unsupported(error)) throw error;
        discards = false;
      }
    }
    await fill(from, end, false);
  };

  return async (offset, length) => {
    const end = offset + length;
    if (blocks === undefined) {
      await run(offset, end, (at) => ({ kind: 'zero', fd, from: at, end }));
      return;
    }
    const { bytes, zeroed } = blocks;
    const first = Math.min(end, Math.ceil(offset / bytes) * bytes);
    const last = Math.max(first, end - (end % bytes));
    await fill(offset, first, !zeroed);
    await giveBack(first, last);
    await fill(last, end, !zeroed);
  };
}
