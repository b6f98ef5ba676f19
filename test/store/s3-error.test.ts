import { S3ServiceException } from '@aws-sdk/client-s3';
import { describe, expect, test } from 'vitest';
import { BackupError } from '../../src/model/errors.ts';
import { s3CodeError, s3Error } from '../../src/store/s3-error.ts';

const live = new AbortController().signal;
const target = { action: 'PutObject', bucket: 'volumebackups', key: 'a-00001' };

function exception(name: string, httpStatusCode: number, message = 'raw words'): S3ServiceException {
  return new S3ServiceException({ name, $fault: 'client', message, $metadata: { httpStatusCode } });
}

describe('an error of S3', () => {
  test.each([
    ['InvalidAccessKeyId', 403, 'store-denied', 'backup_s3_store_access_key'],
    ['SignatureDoesNotMatch', 403, 'store-denied', 'backup_s3_store_secret_key'],
    ['AccessDenied', 403, 'store-denied', 'policy'],
    ['AuthorizationHeaderMalformed', 400, 'store-denied', 'region'],
    ['PermanentRedirect', 301, 'store-denied', 'endpoint'],
    ['RequestTimeTooSkewed', 403, 'store-unavailable', 'clocks'],
    ['NoSuchKey', 404, 'object-missing', 'absent'],
    ['NoSuchBucket', 404, 'object-missing', 'bucket volumebackups is absent'],
    ['InvalidBucketName', 400, 'message-invalid', 'name'],
    ['QuotaExceeded', 403, 'store-full', 'quota'],
    ['EntityTooLarge', 400, 'limit-exceeded', 'backup_s3_object_size'],
    ['BadDigest', 400, 'store-unavailable', 'changed on their way'],
    ['RequestTimeout', 400, 'store-unavailable', 'waited too long'],
    ['SlowDown', 503, 'store-unavailable', 'slow down'],
    ['OperationAborted', 409, 'store-unavailable', 'somebody else'],
    ['InternalError', 500, 'store-unavailable', 'overloaded or broken'],
    ['Http429', 429, 'store-unavailable', 'overloaded or broken'],
    ['Http507', 507, 'store-full', 'no room'],
    ['InvalidArgument', 400, 'store-denied', 'raw words'],
  ])('%s (%i) is %s: %s', (name, status, code, words) => {
    const error = s3Error(target, exception(name, status), live);
    expect(error).toMatchObject({ code, message: expect.stringContaining(words) });
    expect(error.details).toMatchObject({ status, s3Code: name });
  });

  test('tells how long the server asks to wait', () => {
    const slow = Object.assign(exception('SlowDown', 503), {
      $response: { statusCode: 503, headers: { 'retry-after': '7' } },
    });
    expect(s3Error(target, slow, live).details).toMatchObject({ retryAfterMs: 7000 });
    expect(s3Error(target, exception('SlowDown', 503), live).details).not.toHaveProperty('retryAfterMs');
  });

  test('after an abort is cancelled, and one of ours goes through', () => {
    const aborted = AbortSignal.abort(new Error('enough'));
    expect(s3Error(target, exception('SlowDown', 503), aborted).code).toBe('cancelled');
    const ours = new BackupError('corrupt', 'x');
    expect(s3Error(target, ours, live)).toBe(ours);
  });

  test('that is none of S3 is unavailable', () => {
    expect(s3Error(target, new Error('strange'), live)).toMatchObject({ code: 'store-unavailable' });
  });

  test.each([
    ['AccessDenied', 'store-denied'],
    ['InternalError', 'store-unavailable'],
    ['ServiceUnavailable', 'store-unavailable'],
    ['SlowDown', 'store-unavailable'],
    ['Server Error', 'store-unavailable'],
    ['SLODeleteError', 'store-unavailable'],
    ['NeverHeardOf', undefined],
  ])('in the answer to a removal of many is told by its code: %s is %s', (s3Code, code) => {
    expect(s3CodeError(target, s3Code, '')?.code).toBe(code);
  });
});
