/** What all tries again on the path to a store have in common: which errors, how long the waits, how they end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { retry, type RetryPolicy } from '../async/backoff.ts';
import { cancelledBy, isBackupError, throwIfAborted } from '../model/errors.ts';

/** True for what a store says may succeed later. */
export function isRetryable(error: unknown): boolean {
  return isBackupError(error) && error.retryable;
}

/** Details of the error that an answer with this `Retry-After` becomes; a date there is passed over. */
export function retryAfterDetails(header: string | null | undefined): { readonly retryAfterMs?: number } {
  return /^\d{1,9}$/.test(header ?? '') ? { retryAfterMs: Number(header) * 1000 } : {};
}

/** The wait that the store asked for; 0 if it did not. */
export function askedMs(error: unknown): number {
  const asked = isBackupError(error) ? error.details['retryAfterMs'] : undefined;
  return typeof asked === 'number' ? asked : 0;
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
    return await retry(policy, work, { isRetryable, askedMs, onRetry, signal });
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
