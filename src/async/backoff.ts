/** Waiting between tries: exponential, with jitter over the upper half. */
import { setTimeout as sleep } from 'node:timers/promises';

export type RetryPolicy = {
  /** Tries in all, the first included. */
  readonly attempts: number;
  readonly firstDelayMs: number;
  readonly maxDelayMs: number;
};

/** The upper bound of the wait before try `attempt` (1 = the first retry): first * 2^(attempt-1), capped. */
export function backoffMs(policy: RetryPolicy, attempt: number): number {
  return Math.min(policy.maxDelayMs, policy.firstDelayMs * 2 ** (attempt - 1));
}

/**
 * The wait before try `attempt`, in whole ms: between half of `backoffMs` and all of it, or `askedMs`, what the other side asked
 * for, if that is longer. No longer than the policy's longest.
 */
export function jitteredBackoffMs(policy: RetryPolicy, attempt: number, askedMs = 0): number {
  const own = backoffMs(policy, attempt) * (0.5 + Math.random() / 2);
  return Math.round(Math.max(own, Math.min(askedMs, policy.maxDelayMs)));
}

/**
 * Calls `work` until it succeeds, `isRetryable` says no, the attempts are used up, or the signal aborts.
 * Throws the last error. `onRetry` is told of each failed try that is followed by another.
 */
export async function retry<T>(
  policy: RetryPolicy,
  work: (attempt: number) => Promise<T>,
  options: {
    readonly isRetryable: (error: unknown) => boolean;
    /** The wait that an error asks for; 0 if none. */
    readonly askedMs?: (error: unknown) => number;
    readonly onRetry?: (error: unknown, attempt: number, delayMs: number) => void;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    options.signal?.throwIfAborted();
    try {
      return await work(attempt);
    } catch (error) {
      if (attempt >= policy.attempts || !options.isRetryable(error)) throw error;
      const delayMs = jitteredBackoffMs(policy, attempt, options.askedMs?.(error));
      options.onRetry?.(error, attempt, delayMs);
      await sleep(delayMs, undefined, options.signal === undefined ? {} : { signal: options.signal });
    }
  }
}
