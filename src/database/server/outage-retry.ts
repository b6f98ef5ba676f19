/** The one retry of the database room: how long a statement or a transaction waits for a server that cannot do it now. */
import { anySignal } from '../../async/any-signal.ts';
import { retry, type RetryPolicy } from '../../async/backoff.ts';
import type { Logger } from '../../log.ts';
import { isBackupError } from '../../model/errors.ts';
import { outcomeOf, type Retry } from '../transaction.ts';

const delays = { firstDelayMs: 20, maxDelayMs: 2000 };

/**
 * Tries again what was not done, for `outageMs` (negative: for ever) or until `closing` aborts, then throws the last error.
 * A deadlock is over after the first wait, a server that restarts after some of them. From `stopping` on nothing is waited for
 * longer than `farewellMs`, also what waits already: what has to be written all the same is asked for again (row-step.ts).
 */
export function createOutageRetry(options: {
  readonly outageMs: number;
  readonly stopping: AbortSignal;
  readonly closing: AbortSignal;
  readonly log: Logger;
  readonly farewellMs?: number;
}): Retry {
  const { outageMs, stopping, closing, log, farewellMs = 10_000 } = options;
  const farewell = new AbortController();
  const leave = () => setTimeout(() => farewell.abort(), farewellMs).unref();
  stopping.addEventListener('abort', leave, { once: true });
  const patience = (): AbortSignal => {
    const limits = [outageMs, stopping.aborted ? farewellMs : -1].filter((limit) => limit >= 0);
    const timeouts = limits.map((limit) => AbortSignal.timeout(limit));
    return anySignal([closing, ...timeouts, ...(stopping.aborted ? [] : [farewell.signal])]);
  };
  // The signal ends the tries, not their number.
  const policy: RetryPolicy = { attempts: Number.MAX_SAFE_INTEGER, ...delays };

  return async (work) => {
    let last: unknown;
    const attempt = async () => {
      try {
        return await work();
      } catch (error) {
        last = error;
        throw error;
      }
    };
    try {
      return await attempt();
    } catch (error) {
      if (!isRetryable(error) || closing.aborted) throw error;
      log.warn({ err: error }, 'the database cannot do this now: it is tried again');
    }
    try {
      return await retry(policy, attempt, { isRetryable, signal: patience() });
    } catch {
      throw last;
    }
  };
}

function isRetryable(error: unknown): boolean {
  return isBackupError(error) && error.retryable && outcomeOf(error) === 'undone';
}
