/** Stores of this project on the servers of the test scripts. */
import { createLogger, type Logger } from '../../src/log.ts';
import type { CheckableStore } from '../../src/store/check-store.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
import { createS3Store } from '../../src/store/s3.ts';
import { s3Tuning, type S3StoreOptions, type S3Tuning } from '../../src/store/s3-options.ts';
import { createSwiftStore } from '../../src/store/swift.ts';
import type {
  ServiceUser,
  SwiftCaller,
  SwiftStoreOptions,
  SwiftTuning,
} from '../../src/store/swift-options.ts';

export const silentLog = createLogger({ level: 'silent' });
export const quickRetries = { attempts: 4, firstDelayMs: 5, maxDelayMs: 20 };

/** Cinder's defaults. */
export const swiftDefaults: SwiftStoreOptions = {
  auth: 'per_user',
  url: undefined,
  catalogInfo: { serviceType: 'object-store', serviceName: 'swift', endpointType: 'publicURL' },
  authUrl: undefined,
  keystoneCatalogInfo: {
    serviceType: 'identity',
    serviceName: 'Identity Service',
    endpointType: 'publicURL',
  },
  authVersion: 1,
  user: undefined,
  key: undefined,
  project: undefined,
  userDomainName: undefined,
  projectDomainName: undefined,
  regionName: undefined,
  storagePolicy: undefined,
  createContainers: true,
  caCertFile: undefined,
  insecure: false,
  serviceAuth: false,
};

/** Segments are small, so that tests of large objects are not. */
const smallSegments: SwiftTuning = { timeoutMs: 60_000, segmentBytes: 4 * 1024 * 1024 };

/** The options of TempAuth's user `test:tester`. */
export function tempAuthOptions(
  authUrl: string,
  changes: Partial<SwiftStoreOptions> = {},
): SwiftStoreOptions {
  const user = { user: 'test:tester', key: 'testing' };
  return { ...swiftDefaults, auth: 'single_user', authVersion: 1, authUrl, ...user, ...changes };
}

export function swiftStore(
  options: SwiftStoreOptions,
  more: {
    readonly caller?: SwiftCaller;
    readonly serviceUser?: ServiceUser;
    readonly tuning?: Partial<SwiftTuning>;
    readonly log?: Logger;
  } = {},
): ObjectStore & CheckableStore {
  return createSwiftStore({
    options,
    serviceUser: more.serviceUser,
    tuning: { ...smallSegments, ...more.tuning },
    caller: more.caller ?? null,
    retryPolicy: quickRetries,
    now: () => Date.now(),
    log: more.log ?? silentLog,
  });
}

/** Cinder's defaults, and TempAuth's user `test:tester` as s3api knows it. */
export function s3ApiOptions(endpointUrl: string, changes: Partial<S3StoreOptions> = {}): S3StoreOptions {
  return {
    endpointUrl,
    accessKey: 'test:tester',
    secretKey: 'testing',
    createContainers: true,
    timeoutMs: 60_000,
    verifyTls: true,
    caCertFile: undefined,
    httpProxy: undefined,
    httpsProxy: undefined,
    md5Validation: true,
    sseCustomerAlgorithm: undefined,
    sseCustomerKey: undefined,
    ...changes,
  };
}

export function s3Store(
  options: S3StoreOptions,
  tuning: Partial<S3Tuning> = {},
): ObjectStore & CheckableStore {
  const smallParts = { ...s3Tuning, partBytes: 5 * 1024 * 1024, ...tuning };
  return createS3Store({
    options,
    tuning: smallParts,
    retryPolicy: quickRetries,
    now: () => Date.now(),
    log: silentLog,
  });
}
