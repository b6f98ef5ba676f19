/** Stores of this project on the servers of the test scripts. */
import { createLogger } from '../../src/log.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
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
