/** Stores of this project on the servers of the test scripts. */
import { createLogger } from '../../src/log.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
import { createS3Store } from '../../src/store/s3.ts';
import { s3Defaults, type S3StoreOptions } from '../../src/store/s3-options.ts';
import { createSwiftStore } from '../../src/store/swift.ts';
import { swiftDefaults, type SwiftCaller, type SwiftStoreOptions } from '../../src/store/swift-options.ts';

export const silentLog = createLogger({ level: 'silent' });
export const quickRetries = { attempts: 4, firstDelayMs: 5, maxDelayMs: 20 };

/** The options of TempAuth's user `test:tester`; segments are small, so that tests of large objects are not. */
export function tempAuthOptions(
  authUrl: string,
  changes: Partial<SwiftStoreOptions> = {},
): SwiftStoreOptions {
  return {
    ...swiftDefaults,
    auth: 'single_user',
    authVersion: '1',
    authUrl,
    user: 'test:tester',
    key: 'testing',
    segmentBytes: 4 * 1024 * 1024,
    ...changes,
  };
}

export function swiftStore(options: SwiftStoreOptions, caller: SwiftCaller | null = null): ObjectStore {
  return createSwiftStore({
    options,
    caller,
    retryPolicy: quickRetries,
    now: () => Date.now(),
    log: silentLog,
  });
}

/** The options of s3api with TempAuth's user `test:tester`. */
export function s3ApiOptions(endpointUrl: string, changes: Partial<S3StoreOptions> = {}): S3StoreOptions {
  return {
    ...s3Defaults,
    endpointUrl,
    accessKey: 'test:tester',
    secretKey: 'testing',
    partBytes: 5 * 1024 * 1024,
    ...changes,
  };
}

export function s3Store(options: S3StoreOptions): ObjectStore {
  return createS3Store({ options, retryPolicy: quickRetries, log: silentLog });
}
