/**
 * Which store backups go to, as `backup_driver` says, and how. Every problem is noted in the settings; the caller stops
 * when all sections have been read. Ceph, GCS and GlusterFS are refused: their backups have another layout.
 */
import { isPowerOfTwo, largestBlockBytes, leastBlockBytes } from '../model/block-size.ts';
import { codecOf, type Codec } from '../model/codec.ts';
import { nfsMountPoint } from './nfs-mount-point.ts';
import type { Settings } from './settings.ts';
import { chunkedOptions, nfsOptions, posixOptions, s3Options, swiftOptions } from './store-options.ts';

type ChunkedConfig = {
  /** What Cinder writes into `backups.service`. */
  readonly driverClass: string;
  readonly codec: Codec;
  /** Largest object in uncompressed bytes: a multiple of the block size. */
  readonly objectSizeBytes: number;
  /** Bytes for which one digest is kept. */
  readonly blockSizeBytes: number;
  /** Create the container if it is absent. */
  readonly createContainers: boolean;
  /** Send `backup.createprogress` notifications also while no object is finished. */
  readonly enableProgressTimer: boolean;
};

/** `<service type>:<service name>:<endpoint type>`: where a service catalog is looked into. */
export type CatalogInfo = {
  readonly serviceType: string;
  readonly serviceName: string;
  /** publicURL, internalURL or adminURL. */
  readonly endpointType: string;
};

export type SwiftConfig = ChunkedConfig & {
  readonly kind: 'swift';
  readonly container: string;
  /** `per_user` works with the caller's token and account, `single_user` with the credentials below. */
  readonly auth: 'per_user' | 'single_user';
  /** per_user: base URL to which the project id is appended; else the catalog says it. */
  readonly url: string | undefined;
  /** Of per_user without a URL. */
  readonly catalogInfo: CatalogInfo;
  readonly authUrl: string | undefined;
  readonly keystoneCatalogInfo: CatalogInfo;
  readonly authVersion: 1 | 2 | 3;
  readonly user: string | undefined;
  readonly key: string | undefined;
  /** The project of auth 2 (tenant) or 3. */
  readonly project: string | undefined;
  readonly userDomainName: string | undefined;
  readonly projectDomainName: string | undefined;
  /**
   * In the catalog of a request: that of Swift with per_user, of Keystone with single_user and no authUrl. One that is not there
   * means the first endpoint.
   */
  readonly regionName: string | undefined;
  readonly storagePolicy: string | undefined;
  readonly retryAttempts: number;
  readonly retryBackoffMs: number;
  readonly caCertFile: string | undefined;
  readonly insecure: boolean;
  /** Send X-Service-Token with the credentials of [service_user]. */
  readonly serviceAuth: boolean;
};

export type S3Config = ChunkedConfig & {
  readonly kind: 's3';
  readonly bucket: string;
  readonly endpointUrl: string;
  readonly accessKey: string;
  readonly secretKey: string;
  readonly httpProxy: string | undefined;
  readonly httpsProxy: string | undefined;
  readonly timeoutMs: number;
  readonly maxPoolConnections: number;
  readonly retryMaxAttempts: number;
  readonly verifyTls: boolean;
  readonly caCertFile: string | undefined;
  readonly md5Validation: boolean;
  readonly sseCustomerKey: string | undefined;
  readonly sseCustomerAlgorithm: string | undefined;
};

export type PosixConfig = ChunkedConfig & {
  readonly kind: 'posix';
  /** The directory that holds the containers; for NFS the mount point of the share. */
  readonly path: string;
  /** The share that must be mounted on `path` before anything is written; undefined for a plain directory. */
  readonly nfsShare: string | undefined;
};

export type StoreConfig = SwiftConfig | S3Config | PosixConfig;

const drivers = {
  'cinder.backup.drivers.swift.SwiftBackupDriver': readSwift,
  'cinder.backup.drivers.s3.S3BackupDriver': readS3,
  'cinder.backup.drivers.posix.PosixBackupDriver': readPosix,
  'cinder.backup.drivers.nfs.NFSBackupDriver': readNfs,
} as const;

const refused: Readonly<Record<string, string>> = {
  ceph: 'backups in a Ceph pool are RBD images, which cinder-delta does not write',
  gcs: 'cinder-delta does not speak to Google Cloud Storage',
  google: 'cinder-delta does not speak to Google Cloud Storage',
  glusterfs: 'cinder-delta does not mount GlusterFS; mount it yourself and use the posix driver on it',
};

/** The store of `driver`, or undefined after noting why there is none. */
export function readStoreConfig(settings: Settings, driver: string): StoreConfig | undefined {
  const read = Object.entries(drivers).find(([name]) => name === driver)?.[1];
  if (read !== undefined) return read(settings, driver);
  const known = Object.keys(drivers).join(', ');
  const word = Object.keys(refused).find((name) => driver.split('.').includes(name));
  const reason = word === undefined ? 'there is no such driver' : (refused[word] ?? '');
  settings.reject('DEFAULT', 'backup_driver', `${reason}; it must be one of ${known}`);
  return undefined;
}

type NamedSize = { readonly option: string; readonly bytes: number };

function readChunked(settings: Settings, driverClass: string, object: NamedSize, block: NamedSize) {
  const options = settings.read('DEFAULT', chunkedOptions);
  if (!isPowerOfTwo(block.bytes) || block.bytes < leastBlockBytes || block.bytes > largestBlockBytes) {
    const reason = `it must be a power of two from ${leastBlockBytes} to ${largestBlockBytes}, since agents read no other blocks: set it to 32768, the default. Backups with other blocks can still be restored; the next one of each volume is a full one`;
    settings.reject('DEFAULT', block.option, reason);
  } else if (object.bytes < block.bytes || object.bytes % block.bytes !== 0) {
    const better = Math.max(1, Math.round(object.bytes / block.bytes)) * block.bytes;
    const reason = `it must be a multiple of ${block.option} (${block.bytes}), for example ${better}`;
    settings.reject('DEFAULT', object.option, reason);
  }
  return {
    driverClass,
    codec: codecOf(options.backup_compression_algorithm) ?? 'zlib',
    createContainers: options.backup_create_containers,
    objectSizeBytes: object.bytes,
    blockSizeBytes: block.bytes,
  };
}

function readSwift(settings: Settings, driverClass: string): SwiftConfig {
  const options = settings.read('DEFAULT', swiftOptions);
  const isSingleUser = options.backup_swift_auth === 'single_user';
  const need = (option: keyof typeof options, purpose: string) => {
    if (options[option] === undefined) settings.reject('DEFAULT', option, `it must be set: ${purpose}`);
  };
  if (isSingleUser) {
    need('backup_swift_user', 'backup_swift_auth is single_user');
    need('backup_swift_key', 'backup_swift_auth is single_user');
  }
  const version = { '1': 1, '1.0': 1, '2': 2, '2.0': 2, '3': 3, '3.0': 3 }[options.backup_swift_auth_version];
  if (version === undefined) settings.reject('DEFAULT', 'backup_swift_auth_version', 'it must be 1, 2 or 3');
  const authVersion = version === 2 ? 2 : version === 3 ? 3 : 1;
  const { tenant, user } = tenantAndUser(authVersion, options.backup_swift_tenant, options.backup_swift_user);
  return {
    ...readChunked(
      settings,
      driverClass,
      { option: 'backup_swift_object_size', bytes: options.backup_swift_object_size },
      { option: 'backup_swift_block_size', bytes: options.backup_swift_block_size },
    ),
    kind: 'swift',
    enableProgressTimer: options.backup_swift_enable_progress_timer,
    container: options.backup_swift_container,
    auth: isSingleUser ? 'single_user' : 'per_user',
    url: options.backup_swift_url,
    catalogInfo: parseCatalogInfo(settings, 'swift_catalog_info', options.swift_catalog_info),
    authUrl: options.backup_swift_auth_url,
    keystoneCatalogInfo: parseCatalogInfo(settings, 'keystone_catalog_info', options.keystone_catalog_info),
    authVersion,
    user,
    key: options.backup_swift_key,
    project:
      authVersion === 3 ? (options.backup_swift_project ?? tenant) : (tenant ?? options.backup_swift_project),
    userDomainName: options.backup_swift_user_domain,
    projectDomainName: options.backup_swift_project_domain,
    regionName: options.backup_swift_region_name,
    storagePolicy: options.backup_swift_create_storage_policy,
    retryAttempts: options.backup_swift_retry_attempts,
    retryBackoffMs: options.backup_swift_retry_backoff * 1000,
    caCertFile: options.backup_swift_ca_cert_file,
    insecure: options.backup_swift_auth_insecure,
    serviceAuth: options.backup_swift_service_auth,
  };
}

/** Where no tenant is set, `tenant:user` names both for Keystone (swiftclient/client.py get_auth); TempAuth has it as the user. */
function tenantAndUser(
  authVersion: SwiftConfig['authVersion'],
  tenant: string | undefined,
  user: string | undefined,
): { readonly tenant: string | undefined; readonly user: string | undefined } {
  if (tenant !== undefined || authVersion === 1) return { tenant, user };
  const both = /^([^:]+):([^:]+)$/.exec(user ?? '');
  return both === null ? { tenant, user } : { tenant: both[1], user: both[2] };
}

function parseCatalogInfo(settings: Settings, option: string, value: string): CatalogInfo {
  const [serviceType = '', serviceName = '', endpointType = '', ...rest] = value.split(':');
  if (serviceType === '' || endpointType === '' || rest.length > 0) {
    settings.reject('DEFAULT', option, 'it must be <service_type>:<service_name>:<endpoint_type>');
  }
  return { serviceType, serviceName, endpointType };
}

function readS3(settings: Settings, driverClass: string): S3Config {
  const options = settings.read('DEFAULT', s3Options);
  const required = (
    option: 'backup_s3_endpoint_url' | 'backup_s3_store_access_key' | 'backup_s3_store_secret_key',
  ) => {
    const value = options[option] ?? '';
    if (value === '') settings.reject('DEFAULT', option, 'it must be set for the S3 driver');
    return value;
  };
  const {
    backup_s3_sse_customer_key: sseCustomerKey,
    backup_s3_sse_customer_algorithm: sseCustomerAlgorithm,
  } = options;
  if (!sseCustomerKey !== !sseCustomerAlgorithm) {
    settings.warnings.push(
      '[DEFAULT] backup_s3_sse_customer_algorithm and backup_s3_sse_customer_key must both be set: as with cinder-backup, objects are not encrypted',
    );
  }
  return {
    ...readChunked(
      settings,
      driverClass,
      { option: 'backup_s3_object_size', bytes: options.backup_s3_object_size },
      { option: 'backup_s3_block_size', bytes: options.backup_s3_block_size },
    ),
    kind: 's3',
    enableProgressTimer: options.backup_s3_enable_progress_timer,
    bucket: options.backup_s3_store_bucket,
    endpointUrl: required('backup_s3_endpoint_url'),
    accessKey: required('backup_s3_store_access_key'),
    secretKey: required('backup_s3_store_secret_key'),
    httpProxy: options.backup_s3_http_proxy || undefined,
    httpsProxy: options.backup_s3_https_proxy || undefined,
    timeoutMs: Math.round(options.backup_s3_timeout * 1000),
    maxPoolConnections: options.backup_s3_max_pool_connections,
    retryMaxAttempts: options.backup_s3_retry_max_attempts,
    verifyTls: options.backup_s3_verify_ssl,
    caCertFile: options.backup_s3_ca_cert_file,
    md5Validation: options.backup_s3_md5_validation,
    sseCustomerKey,
    sseCustomerAlgorithm,
  };
}

function readPosix(settings: Settings, driverClass: string): PosixConfig {
  const options = settings.read('DEFAULT', posixOptions);
  return {
    ...readChunked(
      settings,
      driverClass,
      { option: 'backup_file_size', bytes: options.backup_file_size },
      { option: 'backup_sha_block_size_bytes', bytes: options.backup_sha_block_size_bytes },
    ),
    kind: 'posix',
    enableProgressTimer: options.backup_enable_progress_timer,
    path: options.backup_posix_path,
    nfsShare: undefined,
  };
}

function readNfs(settings: Settings, driverClass: string): PosixConfig {
  const { backup_share: share, backup_mount_point_base: base } = settings.read('DEFAULT', nfsOptions);
  if (share === undefined || share === '')
    settings.reject('DEFAULT', 'backup_share', 'it must be set for the NFS driver: host:/path');
  return { ...readPosix(settings, driverClass), path: nfsMountPoint(base, share ?? ''), nfsShare: share };
}
