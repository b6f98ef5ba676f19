/**
 * Trying again at an agent. One that is busy serves others and is well: it is waited for by time, not by the number of tries,
 * since what it serves may take minutes.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { jitteredBackoffMs, retry, type RetryPolicy } from '../async/backoff.ts';
import { isBackupError } from '../model/errors.ts';

export type AgentRetry = RetryPolicy & {
  /** How long a busy agent is waited for in all. */
  readonly mostBusyMs: number;
};

/** The waits for one agent that is busy. */
export type BusyWait = {
  /** How long to wait before the next try; undefined when it has been waited for long enough. */
  next(): number | undefined;
};

export function createBusyWait(policy: AgentRetry): BusyWait {
  let waitedMs = 0;
  let tries = 0;
  return {
    next() {
      if (waitedMs >= policy.mostBusyMs) return undefined;
      tries += 1;
      const delayMs = jitteredBackoffMs(policy, tries);
      waitedMs += delayMs;
      return delayMs;
    },
  };
}

/** `retry`, where answers of a busy agent do not count as tries. Throws the last error, or the signal's reason. */
export async function retryAgent<T>(
  policy: AgentRetry,
  work: () => Promise<T>,
  options: {
    readonly isRetryable: (error: unknown) => boolean;
    readonly onRetry: (error: unknown, attempt: number, delayMs: number) => void;
    readonly signal: AbortSignal;
  },
): Promise<T> {
  const { isRetryable, onRetry, signal } = options;
  const busy = createBusyWait(policy);
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await retry(policy, work, {
        isRetryable: (error) => !isBackupError(error, 'busy') && isRetryable(error),
        onRetry,
        signal,
      });
    } catch (error) {
      const delayMs = isBackupError(error, 'busy') ? busy.next() : undefined;
      if (delayMs === undefined) throw error;
      onRetry(error, attempt, delayMs);
      await sleep(delayMs, undefined, { signal });
    }
  }
}
