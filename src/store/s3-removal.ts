/** Removing objects of S3: one by one, or up to 1000 with one request where the server takes that. */
import {
  DeleteObjectCommand,
  DeleteObjectsCommand,
  ListMultipartUploadsCommand,
  type DeleteObjectsCommandOutput,
} from '@aws-sdk/client-s3';
import { createTaskGroup } from '../async/task-group.ts';
import type { Logger } from '../log.ts';
import { isBackupError } from '../model/errors.ts';
import type { S3Connection } from './s3-client.ts';
import { s3CodeError } from './s3-error.ts';
import { abortUpload } from './s3-upload.ts';

const batchSize = 1000;
const singlesSideBySide = 8;

/** Removes one object; an absent one or an absent bucket is no error. */
export async function removeOne(
  connection: S3Connection,
  bucket: string,
  key: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await connection.run({ action: 'DeleteObject', bucket, key }, signal, (client) =>
      client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal }),
    );
  } catch (error) {
    if (!isBackupError(error, 'object-missing')) throw error;
  }
}

/** Removes all that `keys` yields, and returns how many those were. */
export async function removeMany(
  connection: S3Connection,
  bucket: string,
  keys: AsyncIterable<string>,
  signal: AbortSignal,
): Promise<number> {
  let count = 0;
  let batch: string[] = [];
  let together = true;
  const flush = async () => {
    together = together && (await removeTogether(connection, bucket, batch, signal));
    if (!together) await removeSingly(connection, bucket, batch, signal);
    count += batch.length;
    batch = [];
  };
  for await (const key of keys) {
    batch.push(key);
    if (batch.length >= batchSize) await flush();
  }
  if (batch.length > 0) await flush();
  return count;
}

/**
 * Aborts every upload under `prefix` that was begun and neither finished nor aborted. Servers without such a list have none to
 * abort. Where the policy denies the list, which Cinder does not need, that is logged: unfinished uploads cost room and nothing else.
 */
export async function abortUploadsUnder(
  connection: S3Connection,
  bucket: string,
  prefix: string,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  let marker: { KeyMarker?: string; UploadIdMarker?: string } = {};
  for (;;) {
    const page = await connection
      .run({ action: 'ListMultipartUploads', bucket }, signal, (client) =>
        client.send(new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix, ...marker }), {
          abortSignal: signal,
        }),
      )
      .catch((error: unknown) => {
        if (isBackupError(error, 'object-missing') || isRefusal(error)) return null;
        if (!isBackupError(error, 'store-denied')) throw error;
        log.warn({ bucket, prefix, error: error.message }, 'not looked for uploads that were never finished');
        return null;
      });
    for (const { Key, UploadId } of page?.Uploads ?? []) {
      if (Key?.startsWith(prefix) === true && UploadId !== undefined) {
        await abortUpload(connection, bucket, Key, UploadId, signal);
      }
    }
    const { NextKeyMarker, NextUploadIdMarker } = page ?? {};
    if (page?.IsTruncated !== true || NextKeyMarker === undefined) return;
    marker = {
      KeyMarker: NextKeyMarker,
      ...(NextUploadIdMarker === undefined ? {} : { UploadIdMarker: NextUploadIdMarker }),
    };
  }
}

/** False if the server does not take removals of many objects. What it refuses in unknown words is asked for again, one by one. */
async function removeTogether(
  connection: S3Connection,
  bucket: string,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  let output: DeleteObjectsCommandOutput;
  try {
    output = await connection.run({ action: 'DeleteObjects', bucket }, signal, (client) =>
      client.send(
        new DeleteObjectsCommand({
          Bucket: bucket,
          Delete: { Objects: keys.map((Key) => ({ Key })), Quiet: true },
        }),
        { abortSignal: signal },
      ),
    );
  } catch (error) {
    if (isBackupError(error, 'object-missing')) return true;
    if (isRefusal(error)) return false;
    throw error;
  }
  const failed = (output.Errors ?? []).filter(({ Code }) => Code !== 'NoSuchKey');
  for (const { Code, Key: key, Message } of failed) {
    const error = s3CodeError({ action: 'DeleteObject', bucket, key }, Code ?? '', Message ?? '');
    if (error !== null) throw error;
  }
  const again = failed.flatMap(({ Key }) => Key ?? keys);
  await removeSingly(connection, bucket, again, signal);
  return true;
}

async function removeSingly(
  connection: S3Connection,
  bucket: string,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const group = createTaskGroup(singlesSideBySide, signal);
  for (const key of keys) await group.add((groupSignal) => removeOne(connection, bucket, key, groupSignal));
  await group.settle();
}

/** What a server answers that does not know the request: not that of one that forbids it or is down. */
function isRefusal(error: unknown): boolean {
  if (!isBackupError(error)) return false;
  const { s3Code, status } = error.details;
  const codes = ['NotImplemented', 'MethodNotAllowed', 'MalformedXML', 'MissingContentMD5', 'InvalidRequest'];
  return codes.includes(String(s3Code)) || status === 501 || status === 405;
}
