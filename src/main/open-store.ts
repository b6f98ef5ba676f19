/** The store that a configuration names. Loads the clients of the cloud stores: import it only where one may be needed. */
import type { KeystoneCredentials } from '../config/keystone-config.ts';
import type { StoreConfig, SwiftConfig } from '../config/store-config.ts';
import type { Logger } from '../log.ts';
import { checkStore, type CheckableStore } from '../store/check-store.ts';
import { createLimitStore, createStoreLimits, type StoreLimits } from '../store/limit-store.ts';
import { createRetryStore } from '../store/retry-store.ts';
import { createS3Store } from '../store/s3.ts';
import { s3RetryPolicy, s3Tuning } from '../store/s3-options.ts';
import { openPosixStore, type OpenedStore } from './open-posix-store.ts';
import { createSwiftStore } from '../store/swift.ts';
import { openSwiftConnections, type SwiftConnections } from '../store/swift-connections.ts';
import { swiftRetryPolicy, swiftTuning, type SwiftCaller } from '../store/swift-options.ts';

export type StoreDeps = {
  readonly serviceUser: KeystoneCredentials | undefined;
  /** The request that a Swift store in per_user mode works for; null for every other. */
  readonly caller: SwiftCaller | null;
  /** What S3 requests are signed for: AWS_DEFAULT_REGION, as boto3 has it. */
  readonly region: string | undefined;
  readonly log: Logger;
  /** What the Swift stores of all callers use together; absent for a store that serves all. */
  readonly shared?: SharedSwift;
};

export type SharedSwift = { readonly connections: SwiftConnections; readonly limits: StoreLimits };

const swiftLimits = { puts: 16, gets: 16 };

/** Opens no connection yet. The caller closes the connections. */
export function openSharedSwift(
  config: SwiftConfig,
  serviceUser: KeystoneCredentials | undefined,
): SharedSwift {
  return {
    connections: openSwiftConnections(config, serviceUser, swiftTuning, now),
    limits: createStoreLimits(swiftLimits),
  };
}

/** Opens no connection yet. Throws `config-invalid`, and `store-denied` for per_user without a token. */
export function openStore(config: StoreConfig, deps: StoreDeps): OpenedStore {
  const { log } = deps;
  switch (config.kind) {
    case 'posix':
      return openPosixStore(config.path, log, config.nfsShare);
    case 'swift': {
      const policy = swiftRetryPolicy(config);
      const swift = createSwiftStore({
        options: config,
        serviceUser: deps.serviceUser,
        shared: deps.shared?.connections,
        tuning: swiftTuning,
        caller: deps.caller,
        retryPolicy: policy,
        now,
        log,
      });
      const limits = deps.shared?.limits ?? createStoreLimits(swiftLimits);
      const store = createRetryStore(createLimitStore(swift, limits), { policy, log });
      return {
        store,
        naming: 'swift',
        container: config.container,
        check: checkOf(swift, config.container),
        adopt: nothing,
      };
    }
    case 's3': {
      const policy = s3RetryPolicy(config);
      const tuning = deps.region === undefined ? s3Tuning : { ...s3Tuning, region: deps.region };
      const s3 = createS3Store({ options: config, tuning, retryPolicy: policy, now, log });
      const most = config.maxPoolConnections;
      const limits = createStoreLimits({ puts: most, gets: most });
      const store = createRetryStore(createLimitStore(s3, limits), { policy, log });
      return {
        store,
        naming: 's3',
        container: config.bucket,
        check: checkOf(s3, config.bucket),
        adopt: nothing,
      };
    }
    default:
      return config satisfies never;
  }
}

function now(): number {
  return Date.now();
}

async function nothing(): Promise<void> {
  await Promise.resolve();
}

function checkOf(store: CheckableStore, container: string): OpenedStore['check'] {
  return async (signal) => await checkStore(store, container, signal);
}
