/**
 * Backups in an S3 bucket, where Cinder's S3BackupDriver finds them (cinder/backup/drivers/s3.py).
 *
 * Entry: `createS3Store`. Invariants:
 * - Every put is signed and carries the MD5 of its bytes (unless `backup_s3_md5_validation` is off), so that the server refuses
 *   what was changed on the way; every get is checked against the ETag where that tells about the bytes.
 * - A stream of more than one part is a multipart upload, which shows whole or not at all; a failed one is aborted.
 * - Retries and limits are the wrappers'. Only what a wrapper cannot repeat is repeated here: a part of a stream, and a body
 *   that was cut.
 */
import {
  CreateBucketCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  type BucketLocationConstraint,
  type GetObjectCommandOutput,
} from '@aws-sdk/client-s3';
import type { RetryPolicy } from '../async/backoff.ts';
import type { Logger } from '../log.ts';
import { BackupError, cancelledBy, isBackupError, throwIfAborted } from '../model/errors.ts';
import { checkedBody, md5Check, multipartCheck, noCheck, type BodyCheck } from './body-check.ts';
import { clockFinding, type CheckableStore } from './check-store.ts';
import { unquoted } from './etag.ts';
import { requireContainer, requireKey } from './key-rules.ts';
import { listedKeys } from './listed-keys.ts';
import type { ObjectStore, PutOptions, StoredObject } from './object-store.ts';
import { retryCall } from './retry-call.ts';
import { createS3Connection, type S3Connection } from './s3-client.ts';
import type { S3StoreOptions, S3Tuning } from './s3-options.ts';
import { abortUploadsUnder, removeMany, removeOne } from './s3-removal.ts';
import { partBytesMetadata, putBuffer, putParts, type CustomerKey } from './s3-upload.ts';
import { cutIntoSegments, startingWith } from './segments.ts';

export type S3Deps = {
  /** An `S3Config` will do. */
  readonly options: S3StoreOptions;
  /** `s3Tuning` unless there is a reason. */
  readonly tuning: S3Tuning;
  /** For parts of `putStream`; the same as the wrapper's. */
  readonly retryPolicy: RetryPolicy;
  readonly now: () => number;
  readonly log: Logger;
};

/** Opens no connection yet. Throws `config-invalid`. */
export function createS3Store({
  options,
  tuning,
  retryPolicy,
  now,
  log,
}: S3Deps): ObjectStore & CheckableStore {
  const connection = createS3Connection(options, tuning);
  const customerKey = customerKeyOf(options, log);
  const uploads = {
    connection,
    customerKey,
    md5Validation: options.md5Validation,
    signPayload: !options.endpointUrl.startsWith('https:'),
    retryPolicy,
    log,
  };

  const put = async (bucket: string, key: string, bytes: Buffer, how: PutOptions) => {
    await putBuffer(uploads, { bucket, key }, bytes, how, () =>
      removeOne(connection, bucket, key, how.signal),
    );
  };

  async function open(
    bucket: string,
    key: string,
    signal: AbortSignal,
    from?: { offset: number; etag?: string },
  ) {
    const range = from === undefined ? {} : { Range: `bytes=${from.offset}-` };
    const match = from?.etag === undefined ? {} : { IfMatch: from.etag };
    return await connection.run({ action: 'GetObject', bucket, key }, signal, (client) =>
      client.send(new GetObjectCommand({ Bucket: bucket, Key: key, ...range, ...match, ...customerKey }), {
        abortSignal: signal,
      }),
    );
  }

  return {
    kind: 's3',
    service: 'cinder.backup.drivers.s3.S3BackupDriver',
    async ensureContainer(bucket, signal) {
      throwIfAborted(signal);
      requireBucket(bucket);
      if (await bucketExists(connection, bucket, signal)) return;
      if (!options.createContainers) throw absentBucket(bucket);
      await createBucket(connection, bucket, signal);
    },
    async put(bucket, key, body, how) {
      throwIfAborted(how.signal);
      await put(requireBucket(bucket), requireKey(key), body, how);
    },
    async putStream(bucket, key, body, { signal }) {
      throwIfAborted(signal);
      requireBucket(bucket);
      requireKey(key);
      const segments = cutIntoSegments(body, () => tuning.partBytes, signal);
      const first = await segments.next();
      if (first.done === true) throw cancelledBy(signal);
      try {
        if (first.value.last) {
          const { bytes } = first.value;
          await retryCall(retryPolicy, signal, () => put(bucket, key, bytes, { signal }));
        } else {
          const all = startingWith(first.value, segments);
          await putParts(uploads, { bucket, key }, all, tuning.partBytes, signal);
        }
      } finally {
        await segments.return(undefined);
      }
    },
    async flush(_bucket, _prefix, signal) {
      throwIfAborted(signal);
      await Promise.resolve();
    },
    async get(bucket, key, { signal }) {
      throwIfAborted(signal);
      const output = await open(requireBucket(bucket), requireKey(key), signal);
      const sizeBytes = output.ContentLength;
      if (sizeBytes === undefined) {
        throw new BackupError(
          'store-unavailable',
          `S3 does not tell the size of object ${key} in bucket ${bucket}`,
        );
      }
      const body = checkedBody({
        what: `object ${key} in bucket ${bucket} of S3`,
        sizeBytes,
        check: checkOf(output, customerKey),
        first: bytesOf(output),
        reopen: async (offset) => {
          const from = output.ETag === undefined ? { offset } : { offset, etag: output.ETag };
          return bytesOf(await open(bucket, key, signal, from));
        },
        retryPolicy,
        log,
        signal,
      });
      return { sizeBytes, body };
    },
    list: (bucket, prefix, signal) => listBucket(connection, bucket, prefix, signal),
    async remove(bucket, key, signal) {
      throwIfAborted(signal);
      await removeOne(connection, requireBucket(bucket), requireKey(key), signal);
    },
    async removePrefix(bucket, prefix, signal) {
      throwIfAborted(signal);
      requireBucket(bucket);
      requireKey(prefix);
      const keys = listedKeys(listBucket(connection, bucket, prefix, signal));
      const count = await removeMany(connection, bucket, keys, signal);
      await abortUploadsUnder(connection, bucket, prefix, log, signal);
      return count;
    },
    async removeContainer(bucket, signal) {
      throwIfAborted(signal);
      requireBucket(bucket);
      await Promise.resolve();
    },
    async check(bucket, signal) {
      throwIfAborted(signal);
      const found = await bucketExists(connection, requireBucket(bucket), signal);
      if (!found && !options.createContainers) throw absentBucket(bucket);
      const region = connection.region();
      const lone = !options.sseCustomerKey !== !options.sseCustomerAlgorithm;
      return [
        ...(found ? [] : [`bucket ${bucket} is absent from S3: the first backup will create it`]),
        ...(region === tuning.region
          ? []
          : [`S3 keeps bucket ${bucket} in region ${region}, not ${tuning.region}: that one is used`]),
        ...(lone
          ? [
              'backup_s3_sse_customer_algorithm and backup_s3_sse_customer_key must both be set: nothing is encrypted',
            ]
          : []),
        ...clockFinding(connection.date(), now()),
      ];
    },
    async close() {
      await connection.close();
    },
  };
}

function absentBucket(bucket: string): BackupError {
  return new BackupError(
    'object-missing',
    `bucket ${bucket} is absent from S3, and backup_create_containers is false: create it, or name one that exists`,
  );
}

async function* listBucket(
  connection: S3Connection,
  bucket: string,
  prefix: string,
  signal: AbortSignal,
): AsyncGenerator<readonly StoredObject[]> {
  throwIfAborted(signal);
  requireBucket(bucket);
  for (let token: string | undefined; ;) {
    const after = token === undefined ? {} : { ContinuationToken: token };
    const page = await connection
      .run({ action: 'ListObjectsV2', bucket }, signal, (client) =>
        client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ...after }), {
          abortSignal: signal,
        }),
      )
      .catch((error: unknown) => {
        if (isBackupError(error, 'object-missing')) return null;
        throw error;
      });
    yield (page?.Contents ?? []).flatMap(({ Key, Size }) =>
      Key === undefined ? [] : [{ key: Key, sizeBytes: Size ?? 0 }],
    );
    if (page?.IsTruncated !== true) return;
    token = page.NextContinuationToken;
    if (token === undefined) {
      throw new BackupError('store-unavailable', `the listing of bucket ${bucket} in S3 stops in the middle`);
    }
  }
}

/** Asks with a listing of nothing: unlike to a HEAD, servers tell in the answer what they object to. */
async function bucketExists(connection: S3Connection, bucket: string, signal: AbortSignal): Promise<boolean> {
  try {
    await connection.run({ action: 'ListObjectsV2', bucket }, signal, (client) =>
      client.send(new ListObjectsV2Command({ Bucket: bucket, MaxKeys: 1 }), { abortSignal: signal }),
    );
    return true;
  } catch (error) {
    if (isBackupError(error, 'object-missing')) return false;
    throw error;
  }
}

async function createBucket(connection: S3Connection, bucket: string, signal: AbortSignal): Promise<void> {
  try {
    await connection.run({ action: 'CreateBucket', bucket }, signal, (client) =>
      client.send(new CreateBucketCommand({ Bucket: bucket, ...placeOf(connection.region()) }), {
        abortSignal: signal,
      }),
    );
  } catch (error) {
    if (!isBackupError(error) || error.details['s3Code'] !== 'BucketAlreadyOwnedByYou') throw error;
  }
}

/** AWS wants the region in the body, except for the first one, where it must be absent. */
function placeOf(region: string) {
  return isLocation(region) ? { CreateBucketConfiguration: { LocationConstraint: region } } : {};
}

/** Servers other than AWS have regions of their own, which the SDK's list does not know. */
function isLocation(region: string): region is BucketLocationConstraint {
  return region !== 'us-east-1';
}

function checkOf(output: GetObjectCommandOutput, customerKey: CustomerKey): BodyCheck {
  const etag = unquoted(output.ETag);
  const opaque =
    customerKey.SSECustomerKey !== undefined || output.ServerSideEncryption?.startsWith('aws:') === true;
  if (opaque) return noCheck;
  if (/^[0-9a-f]{32}$/.test(etag)) return md5Check(etag);
  const partBytes = Number(output.Metadata?.[partBytesMetadata] ?? Number.NaN);
  const multipart = /^[0-9a-f]{32}-\d+$/.test(etag) && Number.isSafeInteger(partBytes) && partBytes > 0;
  return multipart ? multipartCheck(etag, partBytes) : noCheck;
}

async function* bytesOf(output: GetObjectCommandOutput): AsyncGenerator<Buffer> {
  const { Body } = output;
  if (Body === undefined || !(Symbol.asyncIterator in Body)) return;
  for await (const piece of Body) yield Buffer.isBuffer(piece) ? piece : Buffer.from(piece);
}

/** What no S3 accepts is refused here; the finer rules are the server's. */
function requireBucket(bucket: string): string {
  requireContainer(bucket);
  if (!bucket.includes('/') && Buffer.byteLength(bucket) <= 255) return bucket;
  throw new BackupError(
    'message-invalid',
    `container ${JSON.stringify(bucket)} cannot be an S3 bucket: it must have no "/" and at most 255 bytes`,
  );
}

function customerKeyOf(options: S3StoreOptions, log: Logger): CustomerKey {
  const { sseCustomerAlgorithm, sseCustomerKey } = options;
  if (sseCustomerAlgorithm && sseCustomerKey) {
    return {
      SSECustomerAlgorithm: sseCustomerAlgorithm,
      SSECustomerKey: Buffer.from(sseCustomerKey).toString('base64'),
    };
  }
  if (sseCustomerAlgorithm || sseCustomerKey) {
    log.warn(
      'backup_s3_sse_customer_algorithm and backup_s3_sse_customer_key must both be set: objects are not encrypted',
    );
  }
  return {};
}
