/** Steps on rows that have to be made, because nothing else gives back what a row holds. */
import { retry } from '../async/backoff.ts';
import type { Logger } from '../log.ts';
import { isBackupError } from '../model/errors.ts';

const isRetryable = (error: unknown) => isBackupError(error, 'database-unavailable');
const policy = { attempts: 1000, firstDelayMs: 20, maxDelayMs: 5000 };

/**
 * Tries `step` once, and again while the database does not answer and the signal is not aborted. Throws the last error
 * of the step.
 */
export async function persist<T>(step: () => Promise<T>, signal: AbortSignal): Promise<T> {
  let last: unknown;
  const tryStep = async () => {
    try {
      return await step();
    } catch (error) {
      last = error;
      throw error;
    }
  };
  if (signal.aborted) return await tryStep();
  try {
    return await retry(policy, tryStep, { isRetryable, signal });
  } catch (error) {
    throw last ?? error;
  }
}

/**
 * `persist` of the transaction that makes a backup `available`. Where the answer to an earlier try was lost, a row that is
 * `available` already says that its commit was not.
 */
export async function persistAvailable(commit: () => Promise<void>, signal: AbortSignal): Promise<void> {
  let isUncertain = false;
  await persist(async () => {
    try {
      await commit();
    } catch (error) {
      const isDone = isBackupError(error, 'stale-update') && error.details['status'] === 'available';
      if (isUncertain && isDone) return;
      isUncertain ||= isBackupError(error, 'database-unavailable');
      throw error;
    }
  }, signal);
}

/** `persist` of what nobody has asked for who could be told of an error: says once in the log what it waits for. */
export async function persistAndTell(
  log: Logger,
  step: () => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  let isTold = false;
  await persist(async () => {
    try {
      await step();
    } catch (err) {
      if (isRetryable(err) && !isTold) log.warn({ err }, 'earlier work waits for the database');
      isTold = true;
      throw err;
    }
  }, signal);
}
