/** Puts of one buffer, and of a stream in parts. Bodies are always whole buffers: a stream would go out in signed chunks. */
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  PutObjectCommand,
  UploadPartCommand,
  type CompletedPart,
} from '@aws-sdk/client-s3';
import { createHash } from 'node:crypto';
import type { RetryPolicy } from '../async/backoff.ts';
import type { Logger } from '../log.ts';
import { BackupError, isBackupError, messageOf } from '../model/errors.ts';
import { digestInTurns } from './body-check.ts';
import { unquoted } from './etag.ts';
import type { PutOptions } from './object-store.ts';
import { retryCall } from './retry-call.ts';
import type { S3Connection } from './s3-client.ts';
import type { Segment } from './segments.ts';

/** Metadata of a multipart object: with it the ETag can be computed from the bytes. */
export const partBytesMetadata = 'cinder-delta-part-bytes';

const mostParts = 10_000;

/** The customer's key of SSE-C, as the commands take it; empty if none is configured. */
export type CustomerKey = { readonly SSECustomerAlgorithm?: string; readonly SSECustomerKey?: string };

export type UploadDeps = {
  readonly connection: S3Connection;
  readonly customerKey: CustomerKey;
  /** `backup_s3_md5_validation`. */
  readonly md5Validation: boolean;
  /** True over http: the signature then covers the payload, as boto3's does. */
  readonly signPayload: boolean;
  /** A part is tried again here: whoever wraps the store cannot, since the stream is used up. */
  readonly retryPolicy: RetryPolicy;
  readonly log: Logger;
};

type Place = { readonly bucket: string; readonly key: string };

/** The digests that a body goes out with. */
type Digests = { readonly md5: Buffer; readonly payload: string };

/** Stores one buffer. Throws `corrupt` if the server says it stored other bytes; that object is removed by `undo`. */
export async function putBuffer(
  deps: UploadDeps,
  { bucket, key }: Place,
  bytes: Buffer,
  options: PutOptions,
  undo: () => Promise<void>,
): Promise<void> {
  const { signal } = options;
  const digests = await digestsOf(deps, bytes, options);
  const output = await deps.connection.run({ action: 'PutObject', bucket, key }, signal, (client) => {
    const command = new PutObjectCommand({
      Bucket: bucket,
      Key: key,
      Body: bytes,
      ContentLength: bytes.length,
      ContentType: 'application/octet-stream',
      ...deps.customerKey,
      ...contentMd5(deps, digests),
    });
    command.middlewareStack.add(payloadHash(digests), { step: 'build', name: 'payloadHash' });
    return client.send(command, { abortSignal: signal });
  });
  const problem = wrongEtag(deps, output.ETag, output.ServerSideEncryption, digests);
  if (problem === null) return;
  await undo().catch((error: unknown) => {
    deps.log.warn(
      { bucket, key, error: messageOf(error) },
      'an object with wrong bytes could not be removed',
    );
  });
  throw new BackupError(
    'corrupt',
    `S3 stored object ${key} in bucket ${bucket} wrong: ${problem}; the object is removed, check the server`,
  );
}

/**
 * Stores `segments`, all but the last of `partBytes`, as one object. If anything fails the upload is aborted before the error
 * goes on, and the earlier object of that key is untouched. Throws `limit-exceeded` beyond 10 000 parts.
 */
export async function putParts(
  deps: UploadDeps,
  { bucket, key }: Place,
  segments: AsyncIterable<Segment>,
  partBytes: number,
  signal: AbortSignal,
): Promise<void> {
  const { connection } = deps;
  const patiently = <T>(work: () => Promise<T>) => retryCall(deps.retryPolicy, signal, work);
  const created = await patiently(() =>
    connection.run({ action: 'CreateMultipartUpload', bucket, key }, signal, (client) =>
      client.send(
        new CreateMultipartUploadCommand({
          Bucket: bucket,
          Key: key,
          ContentType: 'application/octet-stream',
          Metadata: { [partBytesMetadata]: String(partBytes) },
          ...deps.customerKey,
        }),
        { abortSignal: signal },
      ),
    ),
  );
  const uploadId = created.UploadId;
  if (uploadId === undefined) {
    throw new BackupError(
      'store-unavailable',
      `S3 gave no id for the upload of object ${key} in bucket ${bucket}`,
    );
  }
  const parts: CompletedPart[] = [];
  let sizeBytes = 0;
  try {
    for await (const { bytes } of segments) {
      if (parts.length >= mostParts) throw tooManyParts(bucket, key, partBytes);
      const number = parts.length + 1;
      const ETag = await patiently(() => putPart(deps, { bucket, key }, uploadId, number, bytes, signal));
      parts.push({ PartNumber: number, ETag });
      sizeBytes += bytes.length;
    }
    await patiently(async () => {
      try {
        await completeUpload(connection, { bucket, key }, uploadId, parts, signal);
      } catch (error) {
        // The answer to an earlier try may have been lost.
        const vanished = isBackupError(error) && error.details['s3Code'] === 'NoSuchUpload';
        if (!vanished || !(await isStored(deps, { bucket, key }, parts, sizeBytes, signal))) throw error;
      }
    });
  } catch (error) {
    await abortUpload(connection, bucket, key, uploadId, AbortSignal.timeout(60_000)).catch(
      (failure: unknown) => {
        deps.log.warn(
          { bucket, key, error: messageOf(failure) },
          'a multipart upload that failed could not be aborted',
        );
      },
    );
    throw error;
  }
}

/** Forgets an upload and its parts; one that is gone already is no error. */
export async function abortUpload(
  connection: S3Connection,
  bucket: string,
  key: string,
  uploadId: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await connection.run({ action: 'AbortMultipartUpload', bucket, key }, signal, (client) =>
      client.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key: key, UploadId: uploadId }), {
        abortSignal: signal,
      }),
    );
  } catch (error) {
    const gone =
      isBackupError(error) && (error.details['s3Code'] === 'NoSuchUpload' || error.code === 'object-missing');
    if (!gone) throw error;
  }
}

async function completeUpload(
  connection: S3Connection,
  { bucket, key }: Place,
  uploadId: string,
  parts: CompletedPart[],
  signal: AbortSignal,
): Promise<void> {
  await connection.run({ action: 'CompleteMultipartUpload', bucket, key }, signal, (client) =>
    client.send(
      new CompleteMultipartUploadCommand({
        Bucket: bucket,
        Key: key,
        UploadId: uploadId,
        MultipartUpload: { Parts: parts },
      }),
      { abortSignal: signal },
    ),
  );
}

/** True if the object has the size and the ETag of `parts`: the MD5 of their MD5s, `-`, and their number. */
async function isStored(
  deps: UploadDeps,
  { bucket, key }: Place,
  parts: readonly CompletedPart[],
  sizeBytes: number,
  signal: AbortSignal,
): Promise<boolean> {
  const whole = createHash('md5');
  for (const { ETag } of parts) whole.update(Buffer.from(unquoted(ETag), 'hex'));
  const etag = `${whole.digest('hex')}-${parts.length}`;
  const head = new HeadObjectCommand({ Bucket: bucket, Key: key, ...deps.customerKey });
  try {
    const found = await deps.connection.run({ action: 'HeadObject', bucket, key }, signal, (client) =>
      client.send(head, { abortSignal: signal }),
    );
    return found.ContentLength === sizeBytes && unquoted(found.ETag) === etag;
  } catch (error) {
    if (isBackupError(error, 'object-missing')) return false;
    throw error;
  }
}

async function putPart(
  deps: UploadDeps,
  { bucket, key }: Place,
  uploadId: string,
  number: number,
  bytes: Buffer,
  signal: AbortSignal,
): Promise<string> {
  const digests = await digestsOf(deps, bytes, { signal });
  const output = await deps.connection.run({ action: 'UploadPart', bucket, key }, signal, (client) => {
    const command = new UploadPartCommand({
      Bucket: bucket,
      Key: key,
      UploadId: uploadId,
      PartNumber: number,
      Body: bytes,
      ContentLength: bytes.length,
      ...deps.customerKey,
      ...contentMd5(deps, digests),
    });
    command.middlewareStack.add(payloadHash(digests), { step: 'build', name: 'payloadHash' });
    return client.send(command, { abortSignal: signal });
  });
  const problem = wrongEtag(deps, output.ETag, output.ServerSideEncryption, digests);
  if (problem === null) return output.ETag ?? '';
  throw new BackupError(
    'corrupt',
    `S3 stored part ${number} of object ${key} in bucket ${bucket} wrong: ${problem}`,
  );
}

async function digestsOf(
  deps: UploadDeps,
  bytes: Buffer,
  { signal, md5: known }: PutOptions,
): Promise<Digests> {
  const md5 = known === undefined ? await digestInTurns('md5', bytes, signal) : Buffer.from(known, 'hex');
  const signed = deps.signPayload || !deps.md5Validation;
  const payload = signed
    ? (await digestInTurns('sha256', bytes, signal)).toString('hex')
    : 'UNSIGNED-PAYLOAD';
  return { md5, payload };
}

function contentMd5(deps: UploadDeps, digests: Digests): { ContentMD5?: string } {
  return deps.md5Validation ? { ContentMD5: digests.md5.toString('base64') } : {};
}

/** Middleware that says what the payload's hash is, so that the SDK does not compute it in one go. */
function payloadHash(digests: Digests) {
  return <A extends { request: unknown }, R>(next: (args: A) => Promise<R>) =>
    async (args: A): Promise<R> => {
      const { request } = args;
      if (hasHeaders(request)) request.headers['x-amz-content-sha256'] = digests.payload;
      return await next(args);
    };
}

function hasHeaders(request: unknown): request is { headers: Record<string, string> } {
  return (
    typeof request === 'object' &&
    request !== null &&
    'headers' in request &&
    typeof request.headers === 'object'
  );
}

/** Where the server encrypts, the ETag is not the MD5 of what was sent. */
function wrongEtag(
  deps: UploadDeps,
  etag: string | undefined,
  encryption: string | undefined,
  digests: Digests,
): string | null {
  const stored = unquoted(etag);
  const opaque = deps.customerKey.SSECustomerKey !== undefined || encryption?.startsWith('aws:') === true;
  if (opaque || !/^[0-9a-f]{32}$/.test(stored)) return null;
  const sent = digests.md5.toString('hex');
  return stored === sent ? null : `its MD5 is ${stored} instead of ${sent}`;
}

function tooManyParts(bucket: string, key: string, partBytes: number): BackupError {
  return new BackupError(
    'limit-exceeded',
    `object ${key} in bucket ${bucket} has more than ${mostParts} parts of ${partBytes} bytes: raise backup_s3_block_size`,
  );
}
