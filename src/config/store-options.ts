/**
 * Options of [DEFAULT] that describe the object store: Cinder's names, types and defaults
 * (cinder/backup/chunkeddriver.py and cinder/backup/drivers/{swift,s3,posix,nfs}.py), Zed to 2026.1.
 */
import { choice, flag, integer, number, text, uri } from './option.ts';

export const chunkedOptions = {
  backup_compression_algorithm: choice(['none', 'off', 'no', 'zlib', 'gzip', 'bz2', 'bzip2', 'zstd'], {
    default: 'zlib',
    ignoreCase: true,
  }),
  backup_create_containers: flag({ default: true }),
};

export const swiftOptions = {
  backup_swift_url: uri(),
  backup_swift_auth_url: uri(),
  swift_catalog_info: text({ default: 'object-store:swift:publicURL' }),
  keystone_catalog_info: text({ default: 'identity:Identity Service:publicURL' }),
  backup_swift_auth: choice(['per_user', 'single_user'], { default: 'per_user' }),
  backup_swift_auth_version: text({ default: '1' }),
  backup_swift_tenant: text(),
  backup_swift_user_domain: text(),
  backup_swift_project_domain: text(),
  backup_swift_project: text(),
  backup_swift_user: text(),
  backup_swift_key: text({ secret: true }),
  backup_swift_container: text({ default: 'volumebackups' }),
  backup_swift_create_storage_policy: text(),
  backup_swift_object_size: integer({ default: 52428800 }),
  backup_swift_block_size: integer({ default: 32768 }),
  backup_swift_retry_attempts: integer({ default: 3 }),
  backup_swift_retry_backoff: integer({ default: 2 }),
  backup_swift_enable_progress_timer: flag({ default: true }),
  backup_swift_ca_cert_file: text(),
  backup_swift_auth_insecure: flag({ default: false }),
  backup_swift_service_auth: flag({ default: false }),
  backup_swift_region_name: text(),
};

export const s3Options = {
  backup_s3_endpoint_url: text(),
  backup_s3_store_access_key: text({ secret: true }),
  backup_s3_store_secret_key: text({ secret: true }),
  backup_s3_store_bucket: text({ default: 'volumebackups' }),
  backup_s3_object_size: integer({ default: 52428800 }),
  backup_s3_block_size: integer({ default: 32768 }),
  backup_s3_enable_progress_timer: flag({ default: true }),
  backup_s3_http_proxy: text({ default: '' }),
  backup_s3_https_proxy: text({ default: '' }),
  backup_s3_timeout: number({ default: 60 }),
  backup_s3_max_pool_connections: integer({ default: 10 }),
  backup_s3_retry_max_attempts: integer({ default: 4 }),
  // Read so that what boto3 refuses is refused; the waits are the same in all of them (store/s3-options.ts).
  backup_s3_retry_mode: choice(['legacy', 'standard', 'adaptive'], { default: 'legacy' }),
  backup_s3_verify_ssl: flag({ default: true }),
  backup_s3_ca_cert_file: text(),
  backup_s3_md5_validation: flag({ default: true }),
  backup_s3_sse_customer_key: text({ secret: true }),
  backup_s3_sse_customer_algorithm: text(),
};

export const posixOptions = {
  backup_file_size: integer({ default: 1999994880 }),
  backup_sha_block_size_bytes: integer({ default: 32768 }),
  backup_enable_progress_timer: flag({ default: true }),
  backup_posix_path: text({ default: '$state_path/backup' }),
};

export const nfsOptions = {
  backup_mount_point_base: text({ default: '$state_path/backup_mount' }),
  backup_share: text(),
  backup_mount_options: text(),
  backup_mount_attempts: integer({ default: 3, min: 1 }),
};
