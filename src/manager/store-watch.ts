/**
 * Whether the store works: what heartbeat and capabilities go by. Cinder looks once at its start
 * (cinder/backup/manager.py, _setup_backup_driver); here it is looked at again and again, so that a store that comes back
 * is noticed, and one that goes away too. A store that worked is not given up for one failure.
 */
import { backoffMs } from '../async/backoff.ts';
import type { Logger } from '../log.ts';
import type { StoreCheck } from '../store/check-store.ts';

export type StoreWatch = {
  /** False until the first check has succeeded. */
  readonly isWorking: boolean;
  /** True from the first check on that succeeds. */
  readonly hasWorked: boolean;
  /** Checks now. Returns the time until the next check is due, in ms. Throws only when the signal aborts. */
  check(signal: AbortSignal): Promise<number>;
};

export type StoreWatchDeps = {
  /** The self-test of the store. */
  readonly check: (signal: AbortSignal) => Promise<StoreCheck>;
  /** Between checks of a store that works. */
  readonly intervalMs: number;
  /** backup_driver_init_check_interval: the longest wait before a store that does not work is tried again. */
  readonly retryMs: number;
  /** Told of each change; the first check is one if it succeeds. */
  readonly onChange: (isWorking: boolean) => void;
  readonly log: Logger;
};

const firstRetryMs = 2000;
const failuresBeforeDown = 2;

export function createStoreWatch({ check, intervalMs, retryMs, onChange, log }: StoreWatchDeps): StoreWatch {
  let isWorking = false;
  let hasWorked = false;
  let failures = 0;

  const change = (to: boolean) => {
    if (to === isWorking) return;
    isWorking = to;
    onChange(to);
  };

  return {
    get isWorking() {
      return isWorking;
    },
    get hasWorked() {
      return hasWorked;
    },
    async check(signal) {
      const { ready, findings } = await check(signal);
      if (ready) {
        if (!isWorking) log.info({ findings }, 'the store works');
        failures = 0;
        hasWorked = true;
        change(true);
        return intervalMs;
      }
      failures += 1;
      if (!isWorking || failures >= failuresBeforeDown) {
        if (isWorking || failures === 1) {
          log.error({ findings }, 'the store does not work: this service reports no heartbeat until it does');
        }
        change(false);
      } else log.warn({ findings }, 'the store has failed its self-test: it is tested again');
      return backoffMs({ attempts: failures, firstDelayMs: firstRetryMs, maxDelayMs: retryMs }, failures);
    },
  };
}
