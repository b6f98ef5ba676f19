/** Errors of S3 servers as our errors. The codes are those of AWS, Ceph's radosgw, Swift's s3api and MinIO. */
import { S3ServiceException } from '@aws-sdk/client-s3';
import { BackupError, cancelledBy, isBackupError, messageOf, type ErrorCode } from '../model/errors.ts';
import { retryAfterDetails } from './retry-call.ts';

export type S3Target = {
  /** What was tried, as S3 calls it: `PutObject`. */
  readonly action: string;
  readonly bucket: string;
  readonly key?: string | undefined;
};

type Meaning = { readonly code: ErrorCode; readonly sentence: (what: string) => string };

const meanings: Readonly<Record<string, Meaning>> = {
  InvalidAccessKeyId: denied(() => 'S3 does not know the access key: correct backup_s3_store_access_key'),
  SignatureDoesNotMatch: denied(
    () =>
      'S3 says that the signature is wrong: correct backup_s3_store_secret_key and backup_s3_store_access_key (a proxy that changes requests does this too)',
  ),
  ExpiredToken: denied(() => 'S3 says that the key has expired: renew backup_s3_store_access_key'),
  AccessDenied: denied(
    (what) =>
      `S3 forbids access to ${what}: check backup_s3_store_access_key, the secret key, and the policy of the bucket`,
  ),
  AuthorizationHeaderMalformed: denied(
    (what) => `S3 expects another region for ${what}: set the region of the bucket`,
  ),
  PermanentRedirect: denied(
    (what) => `S3 keeps ${what} at another endpoint: correct backup_s3_endpoint_url or the region`,
  ),
  IllegalLocationConstraintException: denied(
    (what) => `S3 expects another region for ${what}: set the region of the bucket`,
  ),
  NotImplemented: denied((what) => `this S3 server does not have what was asked for ${what}`),
  InvalidBucketName: {
    code: 'message-invalid',
    sentence: (what) =>
      `S3 does not accept the name of ${what}: 3 to 63 lower-case letters, digits and dashes`,
  },
  QuotaExceeded: {
    code: 'store-full',
    sentence: (what) => `S3 has no room for ${what}: raise the quota, or delete backups`,
  },
  XMinioStorageFull: {
    code: 'store-full',
    sentence: (what) => `S3 has no room for ${what}: its disks are full`,
  },
  EntityTooLarge: {
    code: 'limit-exceeded',
    sentence: (what) => `${what} is too large for this S3 server: lower backup_s3_object_size`,
  },
  BadDigest: unavailable((what) => `the bytes of ${what} were changed on their way to S3; it kept nothing`),
  XAmzContentSHA256Mismatch: unavailable(
    (what) => `the bytes of ${what} were changed on their way to S3; it kept nothing`,
  ),
  // The SDK takes the server's time from this answer, so the next try can succeed.
  RequestTimeTooSkewed: unavailable(
    () => 'the clocks of this host and of S3 are too far apart: let a time service (NTP) set this one',
  ),
  RequestTimeout: unavailable((what) => `S3 waited too long for the bytes of ${what}`),
  SlowDown: unavailable((what) => `S3 asks to slow down (${what})`),
  OperationAborted: unavailable((what) => `somebody else is changing ${what} in S3`),
  InternalError: unavailable(broken),
  InternalServerError: unavailable(broken),
  ServiceUnavailable: unavailable(broken),
  // Of s3api, for one key of many.
  'Server Error': unavailable(broken),
  SLODeleteError: unavailable(broken),
  NoSuchUpload: unavailable((what) => `the upload of ${what} has vanished from S3`),
};

/** What any error of the SDK means. Errors that are ours already go through. */
export function s3Error(target: S3Target, error: unknown, signal: AbortSignal): BackupError {
  if (isBackupError(error)) return error;
  if (signal.aborted) return cancelledBy(signal);
  if (!(error instanceof S3ServiceException)) {
    return new BackupError(
      'store-unavailable',
      `${target.action} of ${describe(target)} failed: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
  return translate(target, error.name, error.$metadata.httpStatusCode ?? 0, error.message, error);
}

/** What one entry in the `Errors` of a DeleteObjects answer means; null for a code that only a status would explain. */
export function s3CodeError(target: S3Target, code: string, message: string): BackupError | null {
  return Object.hasOwn(meanings, code) ? translate(target, code, 200, message, undefined) : null;
}

function translate(
  target: S3Target,
  name: string,
  status: number,
  message: string,
  cause: S3ServiceException | undefined,
): BackupError {
  const what = describe(target);
  const answer = message.slice(0, 300);
  const make = (code: ErrorCode, sentence: string) =>
    new BackupError(code, `${sentence} (${status} ${name})`, {
      cause,
      details: {
        status,
        s3Code: name,
        answer,
        ...retryAfterDetails(cause?.$response?.headers['retry-after']),
      },
    });
  const known = Object.hasOwn(meanings, name) ? meanings[name] : undefined;
  if (known !== undefined) return make(known.code, known.sentence(what));
  if (status === 404) return make('object-missing', `${absent(target, name)} is absent from S3`);
  if (status === 507) return make('store-full', `S3 has no room for ${what}: delete backups, or add disks`);
  if (status === 413) {
    return make('limit-exceeded', `${what} is too large for this S3 server: lower backup_s3_object_size`);
  }
  if (status === 401 || status === 403) {
    return make(
      'store-denied',
      `S3 refuses ${target.action} of ${what}: check the keys and the bucket's policy`,
    );
  }
  if (status >= 500 || [0, 408, 409, 429].includes(status)) {
    return make(
      'store-unavailable',
      `S3 could not do ${target.action} of ${what}: it is overloaded or broken`,
    );
  }
  if (status >= 300 && status < 400) {
    return make(
      'store-denied',
      `S3 redirects ${target.action} of ${what}: correct backup_s3_endpoint_url or the region`,
    );
  }
  return make('store-denied', `S3 refuses ${target.action} of ${what}: ${answer}`);
}

function describe(target: S3Target): string {
  return target.key === undefined
    ? `bucket ${target.bucket}`
    : `object ${target.key} in bucket ${target.bucket}`;
}

function absent(target: S3Target, name: string): string {
  const bucketMissing = name === 'NoSuchBucket' || target.key === undefined || target.action !== 'GetObject';
  return bucketMissing ? `bucket ${target.bucket}` : `object ${target.key} in bucket ${target.bucket}`;
}

function broken(what: string): string {
  return `S3 could not do what was asked for ${what}: it is overloaded or broken`;
}

function denied(sentence: Meaning['sentence']): Meaning {
  return { code: 'store-denied', sentence };
}

function unavailable(sentence: Meaning['sentence']): Meaning {
  return { code: 'store-unavailable', sentence };
}
