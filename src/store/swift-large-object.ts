/**
 * Static large objects of Swift: what does not fit one segment is stored as segments in `<container>_segments` under
 * `<key>/<upload>/<number>`, and a manifest at `key` that reads as one object (swift/common/middleware/slo.py).
 * The manifest comes last, so a reader sees the whole or nothing.
 */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { RetryPolicy } from '../async/backoff.ts';
import type { Logger } from '../log.ts';
import { BackupError, isBackupError, messageOf } from '../model/errors.ts';
import { noCheck, partsCheck, type BodyCheck } from './body-check.ts';
import { listedKeys } from './listed-keys.ts';
import { retryCall } from './retry-call.ts';
import type { Segment } from './segments.ts';
import { orUntold, type SwiftCapabilities } from './swift-capabilities.ts';
import type { SwiftExchange } from './swift-exchange.ts';
import { listSwift } from './swift-listing.ts';
import { removeMany, removeOne } from './swift-removal.ts';

const cleanUpMs = 60_000;

export type ManifestEntry = {
  /** `/container/key`. */
  readonly path: string;
  readonly etag: string;
  readonly size_bytes: number;
};

export function segmentContainer(container: string): string {
  return `${container}_segments`;
}

/** The prefix of all segments that were ever uploaded for `key`, finished or not. */
export function segmentPrefix(key: string): string {
  return `${key}/`;
}

export type LargeObjectDeps = {
  readonly exchange: SwiftExchange;
  readonly capabilities: (signal: AbortSignal) => Promise<SwiftCapabilities>;
  /** Stores a buffer and returns its MD5; as `put` of the store. */
  readonly putBuffer: (container: string, key: string, bytes: Buffer, signal: AbortSignal) => Promise<string>;
  readonly createContainer: (container: string, signal: AbortSignal) => Promise<void>;
  /** A segment is tried again here: whoever wraps the store cannot, since the stream is used up. */
  readonly retryPolicy: RetryPolicy;
  readonly log: Logger;
};

/**
 * Stores `segments` as one object. If anything fails, what was uploaded is removed before the error goes on. The earlier object
 * of that key is untouched, unless nobody knows whether the manifest arrived: then there is none. Throws `limit-exceeded`
 * beyond the cluster's number of segments.
 */
export async function putLargeObject(
  deps: LargeObjectDeps,
  container: string,
  key: string,
  segments: AsyncIterable<Segment>,
  signal: AbortSignal,
): Promise<void> {
  const home = segmentContainer(container);
  const upload = `${segmentPrefix(key)}${randomUUID()}/`;
  const entries: ManifestEntry[] = [];
  const patiently = <T>(work: () => Promise<T>) => retryCall(deps.retryPolicy, signal, work);
  let placing = false;
  try {
    const { manifestSegments } = await orUntold(patiently(() => deps.capabilities(signal)));
    for await (const { bytes } of segments) {
      if (bytes.length === 0) continue;
      if (entries.length >= manifestSegments) throw tooManySegments(container, key, manifestSegments);
      if (entries.length === 0) await patiently(() => deps.createContainer(home, signal));
      const segmentKey = `${upload}${String(entries.length + 1).padStart(8, '0')}`;
      const etag = await patiently(() => deps.putBuffer(home, segmentKey, bytes, signal));
      entries.push({ path: `/${home}/${segmentKey}`, etag, size_bytes: bytes.length });
    }
    placing = true;
    await patiently(() =>
      deps.exchange.tell({
        method: 'PUT',
        container,
        key,
        query: { 'multipart-manifest': 'put' },
        headers: { 'content-type': 'application/octet-stream' },
        body: JSON.stringify(entries),
        signal,
        accept: [201],
      }),
    );
  } catch (error) {
    const unreferenced = !(placing && mayHaveArrived(error)) || (await removeManifest(deps, container, key));
    if (unreferenced) await removeSegments(deps, container, upload, null);
    throw error;
  }
  await removeSegments(deps, container, segmentPrefix(key), upload);
}

const manifestSizeSchema = z.number().int().positive();

/** As Swift tells its segments, or as they were put, which is how radosgw will (ceph PR 70699). */
const manifestSchema = z
  .array(
    z.union([
      z
        .object({ bytes: manifestSizeSchema, hash: z.string() })
        .transform(({ bytes, hash }) => ({ sizeBytes: bytes, md5: hash })),
      z
        .object({ size_bytes: manifestSizeSchema, etag: z.string() })
        .transform(({ size_bytes: sizeBytes, etag }) => ({ sizeBytes, md5: etag })),
    ]),
  )
  .min(1);

/**
 * Returns a function that asks for the manifest of a large object, and gives the check of its segments. Where the server tells nothing of
 * them (radosgw answers with an empty body), only the length is left to check; the first such object is logged.
 */
export function createManifestCheck(
  exchange: SwiftExchange,
  log: Logger,
): (container: string, key: string, signal: AbortSignal) => Promise<BodyCheck> {
  let isTold = false;
  return async (container, key, signal) => {
    const query = { 'multipart-manifest': 'get' };
    const answer = await exchange.send({ method: 'GET', container, key, query, signal, accept: [200] });
    const parts = parseManifest(await answer.text());
    if (parts !== null) return partsCheck(parts);
    if (!isTold) {
      log.warn(
        { container, key },
        'this Swift does not tell the segments of large objects, so what is read of them is checked for its length only',
      );
      isTold = true;
    }
    return noCheck;
  };
}

/** Null for what is no manifest. */
function parseManifest(text: string): z.infer<typeof manifestSchema> | null {
  try {
    return manifestSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** False for what a server says that has refused; true if no answer came, or one of a server in trouble. */
function mayHaveArrived(error: unknown): boolean {
  return !isBackupError(error) || error.retryable || error.code === 'cancelled';
}

/** False, after a warning, if the manifest may still be there: its segments must then stay. */
async function removeManifest(deps: LargeObjectDeps, container: string, key: string): Promise<boolean> {
  try {
    await removeOne(deps.exchange, container, key, AbortSignal.timeout(cleanUpMs));
    return true;
  } catch (error) {
    deps.log.warn(
      { container, key, error: messageOf(error) },
      'the manifest of an upload that failed could not be removed, so its segments stay',
    );
    return false;
  }
}

/** Removes what lies under `prefix` in the segments' container, but for what starts with `keep`. */
async function removeSegments(
  deps: LargeObjectDeps,
  container: string,
  prefix: string,
  keep: string | null,
): Promise<void> {
  const home = segmentContainer(container);
  await cleanUpSegments(deps.log, container, prefix, async (signal) => {
    async function* keys(): AsyncGenerator<string> {
      for await (const key of listedKeys(listSwift(deps.exchange, home, prefix, signal))) {
        if (keep === null || !key.startsWith(keep)) yield key;
      }
    }
    await removeMany(deps.exchange, await orUntold(deps.capabilities(signal)), home, keys(), signal);
  });
}

/**
 * Runs a removal of segments on its own time, since it cleans up after jobs that were cancelled; a failure is logged: segments
 * without a manifest cost room and nothing else.
 */
export async function cleanUpSegments(
  log: Logger,
  container: string,
  prefix: string,
  remove: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  try {
    await remove(AbortSignal.timeout(cleanUpMs));
  } catch (error) {
    log.warn(
      { container: segmentContainer(container), prefix, error: messageOf(error) },
      'segments that nothing refers to could not be removed',
    );
  }
}

/** Removes every segment under `prefix`; nothing if there are none. */
export async function removeSegmentsUnder(
  exchange: SwiftExchange,
  capabilities: SwiftCapabilities,
  container: string,
  prefix: string,
  signal: AbortSignal,
): Promise<void> {
  const home = segmentContainer(container);
  await removeMany(
    exchange,
    capabilities,
    home,
    listedKeys(listSwift(exchange, home, prefix, signal)),
    signal,
  );
}

function tooManySegments(container: string, key: string, most: number): BackupError {
  return new BackupError(
    'limit-exceeded',
    most === 0
      ? `object ${key} in container ${container} needs a static large object, and this Swift has none: enable its slo middleware`
      : `object ${key} in container ${container} needs more than the ${most} segments that this Swift allows: raise max_manifest_segments of its slo middleware, or backup_swift_block_size`,
  );
}
