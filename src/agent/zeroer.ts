/** Makes ranges of a restore's target zeros: holes in a file, blocks given back in a thin device, and written zeros where neither can be. */
import { unsupported } from './file-errors.ts';
import type { FileThreads } from './file-snapshots.ts';
import type { FileStep } from './file-steps.ts';

/** What one discard gives back: a thin pool looks at each of its blocks. */
const discardStepBytes = 256 * 1024 * 1024;

/** `discardBytes`: the size of the blocks of a thin device; a file has none. */
export function createZeroer(
  fd: number,
  threads: FileThreads,
  discardBytes: number | undefined,
): (offset: number, length: number) => Promise<void> {
  const { signal } = new AbortController();
  /** False where the pool ignores discards (`lvchange --discards ignore`). */
  let discards = true;

  const run = async (kind: 'zero' | 'fill' | 'discard', from: number, end: number): Promise<void> => {
    const step = (at: number): FileStep => ({
      kind,
      fd,
      from: at,
      end: kind === 'discard' ? Math.min(end, at + discardStepBytes) : end,
    });
    for (let at = from; at < end;) at = (await threads.run(step(at), [], signal)).next;
  };

  const giveBack = async (from: number, end: number): Promise<void> => {
    if (discards && from < end) {
      try {
        await run('discard', from, end);
        return;
      } catch (error) {
        if (!unsupported(error)) throw error;
        discards = false;
      }
    }
    await run('fill', from, end);
  };

  return async (offset, length) => {
    const end = offset + length;
    if (discardBytes === undefined) {
      await run('zero', offset, end);
      return;
    }
    const first = Math.min(end, Math.ceil(offset / discardBytes) * discardBytes);
    const last = Math.max(first, end - (end % discardBytes));
    await run('fill', offset, first);
    await giveBack(first, last);
    await run('fill', last, end);
  };
}
