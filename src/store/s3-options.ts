/** What the S3 store is told: options of cinder.conf, and tuning of our own. */
import type { RetryPolicy } from '../async/backoff.ts';
import type { S3Config } from '../config/store-config.ts';

/** The options of `S3Config` that the store itself looks at; the rest is the pipeline's and the wrappers'. */
export type S3StoreOptions = Pick<
  S3Config,
  | 'endpointUrl'
  | 'accessKey'
  | 'secretKey'
  | 'createContainers'
  | 'timeoutMs'
  | 'verifyTls'
  | 'caCertFile'
  | 'httpProxy'
  | 'httpsProxy'
  | 'md5Validation'
  | 'sseCustomerAlgorithm'
  | 'sseCustomerKey'
>;

/** What no option of Cinder's says. */
export type S3Tuning = {
  /** The region to sign for; a server that names another is followed. boto3 takes AWS_DEFAULT_REGION, or us-east-1. */
  readonly region: string;
  /** Bucket in the path, or in the host name. With an endpoint URL boto3 takes the path. */
  readonly addressing: 'path' | 'virtual-host';
  /**
   * Bytes of one part of a multipart upload; also what `putStream` holds in memory. At least 5 MiB. All parts but the last have
   * the same size, which some servers demand (Cloudflare R2): 10 000 of 8 MiB hold the hash list of 34 TiB in blocks of 32 KiB.
   */
  readonly partBytes: number;
};

export const s3Tuning: S3Tuning = { region: 'us-east-1', addressing: 'path', partBytes: 8_388_608 };

/**
 * The policy of the retry wrapper: `backup_s3_retry_max_attempts` does not count the first try, as boto3 takes it. The
 * modes of `backup_s3_retry_mode` differ in their waits alone; here it is 0.5 s doubling up to 20 s, with jitter.
 */
export function s3RetryPolicy(config: Pick<S3Config, 'retryMaxAttempts'>): RetryPolicy {
  return { attempts: config.retryMaxAttempts + 1, firstDelayMs: 500, maxDelayMs: 20_000 };
}
