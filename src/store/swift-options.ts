/**
 * The options of the Swift store, under the names of cinder/backup/drivers/swift.py. What is null is not configured.
 * Object and block size, container and retries are not here: the pipeline and the retry wrapper take those.
 */
import type { KeystoneIdentity } from '../openstack/log-in.ts';
import type { RetryPolicy } from '../async/backoff.ts';

export type SwiftStoreOptions = {
  /** `backup_swift_auth`, default `per_user`. */
  readonly auth: 'per_user' | 'single_user';
  /** `backup_swift_url`, no default: the storage URL up to the project id, which is appended (per_user only). */
  readonly url: string | null;
  /** `swift_catalog_info`, default `object-store:swift:publicURL`: looked up where `backup_swift_url` is not set. */
  readonly catalogInfo: string;
  /** `backup_swift_auth_url`, no default: Keystone's URL, or TempAuth's (single_user only). */
  readonly authUrl: string | null;
  /** `keystone_catalog_info`, default `identity:Identity Service:publicURL`: looked up where `backup_swift_auth_url` is not set. */
  readonly keystoneCatalogInfo: string;
  /** `backup_swift_auth_version`, default `1`. */
  readonly authVersion: '1' | '2' | '3';
  /** `backup_swift_user`, no default. */
  readonly user: string | null;
  /** `backup_swift_key`, no default. Secret. */
  readonly key: string | null;
  /** `backup_swift_tenant`, no default (version 2). */
  readonly tenant: string | null;
  /** `backup_swift_user_domain`, no default (version 3): a name. */
  readonly userDomain: string | null;
  /** `backup_swift_project_domain`, no default (version 3): a name. */
  readonly projectDomain: string | null;
  /** `backup_swift_project`, no default (version 3). */
  readonly project: string | null;
  /** The region to look up in the catalog; no option of Cinder's, which takes the first endpoint. */
  readonly region: string | null;
  /** `backup_swift_create_storage_policy`, no default. */
  readonly storagePolicy: string | null;
  /** `backup_create_containers`, default true. */
  readonly createContainers: boolean;
  /** `backup_swift_ca_cert_file`, no default. */
  readonly caFile: string | null;
  /** `backup_swift_auth_insecure`, default false. */
  readonly insecure: boolean;
  /** The `[service_user]` log-in, if `backup_swift_service_auth` and `send_service_user_token` are both true. */
  readonly serviceUser: ServiceUser | null;
  /** Connecting and standing still longer than this is a failure. No option of Cinder's; default 60 000. */
  readonly timeoutMs: number;
  /** Bytes of one segment of a static large object; also what `putStream` holds in memory. Default 33 554 432. */
  readonly segmentBytes: number;
};

/** The section `[service_user]`, as keystoneauth reads it. */
export type ServiceUser = {
  /** `auth_url`. */
  readonly authUrl: string;
  /** `username`, `password`, `project_name` and the domains, or `application_credential_id` and `_secret`. */
  readonly identity: KeystoneIdentity;
  /** `cafile`. */
  readonly caFile: string | null;
  /** `insecure`. */
  readonly insecure: boolean;
};

/** What the request brings in `per_user` mode, and the catalog in which `single_user` may look Keystone up. */
export type SwiftCaller = {
  /** `_context_auth_token`. Secret. */
  readonly authToken: string;
  /** `_context_project_id`. */
  readonly projectId: string;
  /** `_context_service_catalog`, as it came. */
  readonly serviceCatalog: unknown;
};

/** Cinder's defaults, for tests and tools that set little. */
export const swiftDefaults: SwiftStoreOptions = {
  auth: 'per_user',
  url: null,
  catalogInfo: 'object-store:swift:publicURL',
  authUrl: null,
  keystoneCatalogInfo: 'identity:Identity Service:publicURL',
  authVersion: '1',
  user: null,
  key: null,
  tenant: null,
  userDomain: null,
  projectDomain: null,
  project: null,
  region: null,
  storagePolicy: null,
  createContainers: true,
  caFile: null,
  insecure: false,
  serviceUser: null,
  timeoutMs: 60_000,
  segmentBytes: 33_554_432,
};

/**
 * The policy of the retry wrapper: `backup_swift_retry_attempts` (default 3, not counting the first try) and
 * `backup_swift_retry_backoff` (default 2, seconds, doubling up to 64 as in python-swiftclient).
 */
export function swiftRetryPolicy(retryAttempts: number, retryBackoffSeconds: number): RetryPolicy {
  return {
    attempts: retryAttempts + 1,
    firstDelayMs: retryBackoffSeconds * 1000,
    maxDelayMs: Math.max(64, retryBackoffSeconds) * 1000,
  };
}
