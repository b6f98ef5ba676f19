/** Describes many images, a few at a time. */
import { withLimit, type Budget } from '../async/limit.ts';
import { throwIfAborted } from '../model/errors.ts';

/**
 * What `describe` says of each name, in their order, without those that it says undefined of. No more than the capacity
 * of `budget` are described at once, over all lists that share it. Once one fails, or the signal aborts, no other is begun; throws that first error after those under
 * way have ended.
 */
export async function describeEach<T>(
  names: readonly string[],
  budget: Budget,
  signal: AbortSignal,
  describe: (name: string) => Promise<T | undefined>,
): Promise<T[]> {
  const described: (T | undefined)[] = [];
  const left = names.entries();
  let failed = false;
  const worker = async () => {
    for (const [at, name] of left) {
      try {
        described[at] = await withLimit(
          budget,
          async () => {
            throwIfAborted(signal);
            return failed ? undefined : await describe(name);
          },
          signal,
        );
      } catch (error) {
        failed = true;
        throw error;
      }
      if (failed) return;
    }
  };
  const workers = await Promise.allSettled(Array.from({ length: budget.capacity }, worker));
  for (const one of workers) if (one.status === 'rejected') throw one.reason;
  return described.filter((one) => one !== undefined);
}
