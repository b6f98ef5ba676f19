/** Work that is done again and again, until a signal aborts. */

/** Waits; throws when the signal aborts. */
export type Wait = (delayMs: number, signal: AbortSignal) => Promise<void>;

/**
 * Calls `work` with `wait` between its end and its next start, for the time that it returned, in ms; at first after
 * `firstDelayMs`. Resolves when the signal aborts; throws what else `work` throws.
 */
export async function repeat(
  work: (signal: AbortSignal) => Promise<number>,
  options: { readonly firstDelayMs: number; readonly wait: Wait; readonly signal: AbortSignal },
): Promise<void> {
  const { wait, signal } = options;
  try {
    for (let delayMs = options.firstDelayMs; !signal.aborted; delayMs = await work(signal)) {
      await wait(delayMs, signal);
      if (signal.aborted) return;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
