/**
 * The options of the S3 store, under the names of cinder/backup/drivers/s3.py. What is null is not configured.
 * Object and block size, bucket and retries are not here: the pipeline and the retry wrapper take those.
 */
import type { RetryPolicy } from '../async/backoff.ts';

export type S3StoreOptions = {
  /** `backup_s3_endpoint_url`, no default. */
  readonly endpointUrl: string | null;
  /** `backup_s3_store_access_key`, no default. Secret. */
  readonly accessKey: string | null;
  /** `backup_s3_store_secret_key`, no default. Secret. */
  readonly secretKey: string | null;
  /** The region to sign for; no option of Cinder's, where boto3 takes AWS_DEFAULT_REGION. Default `us-east-1`; a server that names another is followed. */
  readonly region: string;
  /** Bucket in the path, or in the host name. No option of Cinder's: with an endpoint URL boto3 takes the path, the default here. */
  readonly addressing: 'path' | 'virtual-host';
  /** `backup_create_containers`, default true. */
  readonly createContainers: boolean;
  /** `backup_s3_timeout`, default 60 s: for connecting, and for standing still. */
  readonly timeoutMs: number;
  /** `backup_s3_max_pool_connections`, default 10. */
  readonly maxPoolConnections: number;
  /** `backup_s3_verify_ssl`, default true. */
  readonly verifySsl: boolean;
  /** `backup_s3_ca_cert_file`, no default. */
  readonly caFile: string | null;
  /** `backup_s3_http_proxy`, default empty. */
  readonly httpProxyUrl: string | null;
  /** `backup_s3_https_proxy`, default empty. */
  readonly httpsProxyUrl: string | null;
  /** `backup_s3_md5_validation`, default true: Content-MD5 on every put. */
  readonly md5Validation: boolean;
  /** `backup_s3_sse_customer_algorithm`, no default. Only with a key, as in Cinder. */
  readonly sseCustomerAlgorithm: string | null;
  /** `backup_s3_sse_customer_key`, no default. Secret. */
  readonly sseCustomerKey: string | null;
  /** Bytes of one part of a multipart upload; also what `putStream` holds in memory. At least 5 MiB; default 33 554 432. */
  readonly partBytes: number;
};

/** Cinder's defaults, for tests and tools that set little. */
export const s3Defaults: S3StoreOptions = {
  endpointUrl: null,
  accessKey: null,
  secretKey: null,
  region: 'us-east-1',
  addressing: 'path',
  createContainers: true,
  timeoutMs: 60_000,
  maxPoolConnections: 10,
  verifySsl: true,
  caFile: null,
  httpProxyUrl: null,
  httpsProxyUrl: null,
  md5Validation: true,
  sseCustomerAlgorithm: null,
  sseCustomerKey: null,
  partBytes: 33_554_432,
};

/**
 * The policy of the retry wrapper. `backup_s3_retry_max_attempts` (default 4) counts the tries after the first, as boto3
 * takes it. The modes of `backup_s3_retry_mode` differ in their waits only: up to 20 s doubling from 1 s (`standard`,
 * `adaptive`) or from 0.5 s (`legacy`, the default); what is overloaded is spared by the wait in each of them.
 */
export function s3RetryPolicy(maxAttempts: number, mode: 'legacy' | 'standard' | 'adaptive'): RetryPolicy {
  return { attempts: maxAttempts + 1, firstDelayMs: mode === 'legacy' ? 500 : 1000, maxDelayMs: 20_000 };
}
