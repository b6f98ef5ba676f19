/** What all tries again on the path to a store have in common: which errors, how long the waits, how they end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { retry, type RetryPolicy } from '../async/backoff.ts';
import { cancelledBy, isBackupError, throwIfAborted } from '../model/errors.ts';

/** True for what a store says may succeed later. */
export function isRetryable(error: unknown): boolean {
  return isBackupError(error) && error.retryable;
}

/** Calls `work` until it succeeds or `policy` ends it. Throws the error of the last try, or `cancelled` when `signal` aborts. */
export async function retryCall<T>(
  policy: RetryPolicy,
  signal: AbortSignal,
  work: () => Promise<T>,
  onRetry: (error: unknown, attempt: number, delayMs: number) => void = () => undefined,
): Promise<T> {
  throwIfAborted(signal);
  try {
    return await retry(policy, work, { isRetryable, onRetry, signal });
  } catch (error) {
    if (signal.aborted && !isBackupError(error)) throw cancelledBy(signal);
    throw error;
  }
}

/** Waits; throws `cancelled` when `signal` aborts. */
export async function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(delayMs, undefined, { signal });
  } catch {
    throw cancelledBy(signal);
  }
}
