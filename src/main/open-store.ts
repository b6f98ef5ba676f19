/** The store that a configuration names, inside its wrappers: retries outside, limits inside. */
import type { KeystoneCredentials } from '../config/keystone-config.ts';
import type { StoreConfig } from '../config/store-config.ts';
import type { NamingKind } from '../layout/names.ts';
import type { Logger } from '../log.ts';
import { checkStore, type CheckableStore, type StoreCheck } from '../store/check-store.ts';
import { createLimitStore } from '../store/limit-store.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { createPosixStore } from '../store/posix-store.ts';
import { createRetryStore } from '../store/retry-store.ts';
import { createS3Store } from '../store/s3.ts';
import { s3RetryPolicy, s3Tuning } from '../store/s3-options.ts';
import { createSwiftStore } from '../store/swift.ts';
import { swiftRetryPolicy, swiftTuning, type SwiftCaller } from '../store/swift-options.ts';

export type OpenedStore = {
  readonly store: ObjectStore;
  readonly naming: NamingKind;
  /** The container of backups that name none; undefined where each gets its own. */
  readonly container: string | undefined;
  /** The self-test; a store that has none is ready. */
  check(signal: AbortSignal): Promise<StoreCheck>;
};

export type StoreDeps = {
  readonly serviceUser: KeystoneCredentials | undefined;
  /** The request that a Swift store in per_user mode works for; null for every other. */
  readonly caller: SwiftCaller | null;
  /** What S3 requests are signed for: AWS_DEFAULT_REGION, as boto3 has it. */
  readonly region: string | undefined;
  readonly log: Logger;
};

/** A directory is near: few calls at once keep it busy, and what fails for long is not coming back. */
const posixLimits = { puts: 8, gets: 16 };
const posixRetries = { attempts: 5, firstDelayMs: 100, maxDelayMs: 5000 };
const swiftLimits = { puts: 16, gets: 16 };

/** Opens no connection yet. Throws `config-invalid`, and `store-denied` for per_user without a token. */
export function openStore(config: StoreConfig, deps: StoreDeps): OpenedStore {
  const { log } = deps;
  switch (config.kind) {
    case 'posix':
      return { ...openPosixStore(config.path, log), container: config.container };
    case 'swift': {
      const policy = swiftRetryPolicy(config);
      const swift = createSwiftStore({
        options: config,
        serviceUser: deps.serviceUser,
        tuning: swiftTuning,
        caller: deps.caller,
        retryPolicy: policy,
        now,
        log,
      });
      const store = createRetryStore(createLimitStore(swift, swiftLimits), { policy, log });
      return { store, naming: 'swift', container: config.container, check: checkOf(swift, config.container) };
    }
    case 's3': {
      const policy = s3RetryPolicy(config);
      const tuning = deps.region === undefined ? s3Tuning : { ...s3Tuning, region: deps.region };
      const s3 = createS3Store({ options: config, tuning, retryPolicy: policy, now, log });
      const limits = { puts: config.maxPoolConnections, gets: config.maxPoolConnections };
      const store = createRetryStore(createLimitStore(s3, limits), { policy, log });
      return { store, naming: 's3', container: config.bucket, check: checkOf(s3, config.bucket) };
    }
    default:
      return config satisfies never;
  }
}

/** The store of a directory. */
export function openPosixStore(directory: string, log: Logger): OpenedStore {
  const posix = createPosixStore({ directory, log });
  const store = createRetryStore(createLimitStore(posix, posixLimits), { policy: posixRetries, log });
  return { store, naming: 'posix', container: undefined, check: alwaysReady };
}

function now(): number {
  return Date.now();
}

async function alwaysReady(): Promise<StoreCheck> {
  return await Promise.resolve({ ready: true, findings: [] });
}

function checkOf(store: CheckableStore, container: string): OpenedStore['check'] {
  return async (signal) => await checkStore(store, container, signal);
}
