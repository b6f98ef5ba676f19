/** Two steps at a time. */
import { createTaskGroup } from './task-group.ts';

/**
 * Runs both side by side and gives both results. If one fails, the other's signal aborts; the first failure is thrown after
 * both have settled.
 */
export async function both<A, B>(
  outer: AbortSignal,
  first: (signal: AbortSignal) => Promise<A>,
  second: (signal: AbortSignal) => Promise<B>,
): Promise<[A, B]> {
  const group = createTaskGroup(2, outer);
  const results: { first?: { readonly value: A }; second?: { readonly value: B } } = {};
  await group.add(async (signal) => {
    results.first = { value: await first(signal) };
  });
  await group.add(async (signal) => {
    results.second = { value: await second(signal) };
  });
  await group.settle();
  const { first: one, second: two } = results;
  if (one === undefined || two === undefined) throw outer.reason;
  return [one.value, two.value];
}
