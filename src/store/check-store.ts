/** The start-up self-test of a store: what is wrong, in words that an operator can act on, before the first backup meets it. */
import { anySignal } from '../async/any-signal.ts';
import { untilAborted } from '../async/until-aborted.ts';
import { isBackupError, throwIfAborted } from '../model/errors.ts';

/** A store that can look at itself without changing anything. */
export type CheckableStore = {
  /**
   * Reaches the store as a backup into `container` would, and returns what is worth knowing though it hinders nothing. Throws what
   * that backup would meet.
   */
  check(container: string, signal: AbortSignal): Promise<readonly string[]>;
};

export type StoreCheck = {
  /** False if a backup would fail now. */
  readonly ready: boolean;
  /** One sentence each; the reason first if it is not ready. */
  readonly findings: readonly string[];
};

const checkTimeoutMs = 30_000;

/** Checks within 30 s. Throws only when `signal` aborts. */
export async function checkStore(
  store: CheckableStore,
  container: string,
  signal: AbortSignal,
): Promise<StoreCheck> {
  const timeout = AbortSignal.timeout(checkTimeoutMs);
  const ending = anySignal([signal, timeout]);
  try {
    // A file server that is away holds a call of the file system, whatever the signal says.
    return { ready: true, findings: await untilAborted(store.check(container, ending), ending) };
  } catch (error) {
    throwIfAborted(signal);
    if (timeout.aborted) {
      return { ready: false, findings: [`the store did not answer within ${checkTimeoutMs / 1000} s`] };
    }
    if (!isBackupError(error)) throw error;
    return { ready: false, findings: [error.message] };
  }
}

/** The finding about clocks that differ by more than a minute, from the `Date` of an answer. S3 refuses from 15 minutes on. */
export function clockFinding(date: string | null, nowMs: number): readonly string[] {
  const serverMs = date === null ? Number.NaN : Date.parse(date);
  const skewSeconds = Math.round((nowMs - serverMs) / 1000);
  if (Number.isNaN(skewSeconds) || Math.abs(skewSeconds) <= 60) return [];
  const side = skewSeconds > 0 ? 'ahead of' : 'behind';
  return [
    `the clock of this host is ${Math.abs(skewSeconds)} s ${side} the store's: let a time service (NTP) set it`,
  ];
}
