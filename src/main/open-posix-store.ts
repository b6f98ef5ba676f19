/** The store of a directory, inside its wrappers: retries outside, limits inside. */
import type { NamingKind } from '../layout/names.ts';
import type { Logger } from '../log.ts';
import { checkStore, type StoreCheck } from '../store/check-store.ts';
import { createLimitStore, createStoreLimits } from '../store/limit-store.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { createPosixStore } from '../store/posix-store.ts';
import { createRetryStore } from '../store/retry-store.ts';

export type OpenedStore = {
  readonly store: ObjectStore;
  readonly naming: NamingKind;
  /** The container of backups that name none; undefined where each gets its own. */
  readonly container: string | undefined;
  /** Takes the store for that of a service which has no backups yet. */
  adopt(signal: AbortSignal): Promise<void>;
  /** The self-test. Throws only when the signal aborts. */
  check(signal: AbortSignal): Promise<StoreCheck>;
};

/** A directory is near: small files go to their thread many at a time, and what fails for long is not coming back. */
const posixLimits = { puts: 32, gets: 16 };
const posixRetries = { attempts: 5, firstDelayMs: 100, maxDelayMs: 5000 };

/** The store of a directory, on which `share` has to be mounted if it is given. */
export function openPosixStore(directory: string, log: Logger, share?: string): OpenedStore {
  const posix = createPosixStore({ directory, log, share });
  const store = createRetryStore(createLimitStore(posix, createStoreLimits(posixLimits)), {
    policy: posixRetries,
    log,
  });
  return {
    store,
    naming: 'posix',
    container: undefined,
    check: async (signal) => await checkStore(posix, '', signal),
    adopt: (signal) => posix.adopt(signal),
  };
}
