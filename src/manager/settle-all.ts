/** Cleaning up after an error: every step is tried, and the first error stays the first. */

/** Runs all `steps` in order, whatever becomes of each. Returns `error`, or an AggregateError of it and theirs. */
export async function settleAll(
  error: unknown,
  steps: readonly (() => Promise<unknown>)[],
): Promise<unknown> {
  const errors = [error];
  for (const step of steps) {
    try {
      await step();
    } catch (failure) {
      errors.push(failure);
    }
  }
  if (errors.length === 1) return error;
  return new AggregateError(errors, error instanceof Error ? error.message : String(error), { cause: error });
}
