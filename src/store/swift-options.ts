/** What the Swift store is told: options of cinder.conf, tuning of our own, and the request it works for. */
import type { RetryPolicy } from '../async/backoff.ts';
import type { KeystoneCredentials } from '../config/keystone-config.ts';
import type { SwiftConfig } from '../config/store-config.ts';

/** The options of `SwiftConfig` that the store itself looks at; the rest is the pipeline's and the wrappers'. */
export type SwiftStoreOptions = Pick<
  SwiftConfig,
  | 'auth'
  | 'url'
  | 'catalogInfo'
  | 'authUrl'
  | 'keystoneCatalogInfo'
  | 'authVersion'
  | 'user'
  | 'key'
  | 'project'
  | 'userDomainName'
  | 'projectDomainName'
  | 'regionName'
  | 'storagePolicy'
  | 'createContainers'
  | 'caCertFile'
  | 'insecure'
  | 'serviceAuth'
>;

/** What no option of Cinder's says. */
export type SwiftTuning = {
  /** Connecting, or standing still, for longer is a failure. */
  readonly timeoutMs: number;
  /** Bytes of the first segments of a static large object (segments.ts); also what `putStream` holds in memory. */
  readonly segmentBytes: number;
};

export const swiftTuning: SwiftTuning = { timeoutMs: 60_000, segmentBytes: 8_388_608 };

/** `[service_user]`, used if `backup_swift_service_auth` is true; undefined if that section sends no token. */
export type ServiceUser = KeystoneCredentials | undefined;

/** What the request brings in `per_user` mode, and the catalog in which `single_user` may look Keystone up. */
export type SwiftCaller = {
  /** `_context_auth_token`. Secret. */
  readonly authToken: string;
  /** `_context_project_id`. */
  readonly projectId: string;
  /** `_context_service_catalog`, as it came. */
  readonly serviceCatalog: unknown;
};

/**
 * The policy of the retry wrapper: `backup_swift_retry_attempts` does not count the first try, and the wait
 * doubles from `backup_swift_retry_backoff` up to 64 s as in python-swiftclient.
 */
export function swiftRetryPolicy(config: Pick<SwiftConfig, 'retryAttempts' | 'retryBackoffMs'>): RetryPolicy {
  return {
    attempts: config.retryAttempts + 1,
    firstDelayMs: config.retryBackoffMs,
    maxDelayMs: Math.max(64_000, config.retryBackoffMs),
  };
}
