/**
 * A backup's closing documents in the store: reading a layer of a chain, checking that its objects are there, and
 * writing the `_metadata` of a new one. Order on the store: objects, `_sha256file`, `_metadata`; so a backup whose
 * `_metadata` is there is whole.
 */
import { BackupError, isBackupError } from '../model/errors.ts';
import { blockCount } from '../model/extent.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { decodeMetadata, encodeMetadata, surveyMetadata } from './metadata.ts';
import type { MetadataDocument, MetadataHead } from './metadata-document.ts';
import { metadataKey, objectKey, objectNumber, sha256FileKey } from './names.ts';
import { createNumberSet, greatestNumber, type NumberSet } from './number-set.ts';
import { readSha256File, type Sha256File } from './sha256-file.ts';

/** Where the objects of one backup are: its row's `container` and `service_metadata`. */
export type LayerPlace = { readonly container: string; readonly prefix: string };

/** One backup of a chain, read back. */
export type StoredLayer = { readonly place: LayerPlace; readonly metadata: MetadataDocument };

/** The same without its objects. */
export type LayerHead = { readonly place: LayerPlace; readonly metadata: MetadataHead };

/**
 * Reads a backup's `_metadata`; `takeRoom` is called for each object before it is kept. Throws `object-missing` if the backup never got one, what `decodeMetadata` throws, and what
 * the store throws.
 */
export async function readLayer(
  store: ObjectStore,
  place: LayerPlace,
  signal: AbortSignal,
  takeRoom?: () => void,
): Promise<StoredLayer> {
  const key = metadataKey(place.prefix);
  const { body } = await getDocument(store, place, key, signal);
  return { place, metadata: await decodeMetadata(body, key, place.prefix, takeRoom) };
}

/**
 * Opens a backup's list of digests; its digests must be iterated or it must be closed. `blocks` is the number that it must have,
 * if that is known; for a layer of ours it is. Throws as `readSha256File` and the store do.
 */
export async function openSha256File(
  store: ObjectStore,
  layer: LayerHead,
  signal: AbortSignal,
  blocks?: number,
): Promise<Sha256File & { readonly blockSize: number }> {
  const name = sha256FileKey(layer.place.prefix);
  const { backupId, volumeId, delta } = layer.metadata;
  const expected = {
    name,
    backupId,
    volumeId,
    ...(delta === null
      ? {}
      : { blockSize: delta.blockSize, blocks: blockCount(delta.lengthBytes, delta.blockSize) }),
    ...(blocks === undefined ? {} : { blocks }),
  };
  const open = async () => {
    const { body } = await getDocument(store, layer.place, name, signal);
    return readSha256File(body, expected);
  };
  const file = await open();
  if (file.blockSize !== null) return { ...file, blockSize: file.blockSize };
  // The block size stands behind the list: whoever wrote this is not Python. Read it through once to find it.
  const { blockSize } = await drain(file);
  return { ...(await open()), blockSize };
}

async function drain(file: Sha256File): Promise<{ blockSize: number }> {
  let runs = 0;
  for await (const run of file.digests) runs += run.length > 0 ? 1 : 0;
  const blockSize = file.blockSizeAtEnd();
  if (blockSize === null) throw new BackupError('bug', `broken invariant: no block size after ${runs} runs`);
  return { blockSize };
}

/** A layer and what the store holds of it. At most 10 names are kept of each kind. */
export type LayerCheck = {
  readonly layer: LayerHead;
  readonly objectCount: number;
  /** Where the last byte of any of its objects ends in the volume. */
  readonly endBytes: number;
  readonly missingCount: number;
  readonly missing: readonly string[];
  /** Objects under the prefix that the metadata does not name: Python refuses to restore while there are any. */
  readonly extraCount: number;
  readonly extra: readonly string[];
};

const shownNames = 10;

/**
 * Reads a backup's `_metadata` and compares the objects under its prefix with it, as `_restore_v1` of cinder/backup/chunkeddriver.py
 * does before it reads: the data objects and the two closing ones, no more and no less. Holds a bit for each object. Throws as
 * `readLayer` does, and `limit-exceeded` for objects that are not listed in order.
 */
export async function checkLayer(
  store: ObjectStore,
  place: LayerPlace,
  signal: AbortSignal,
): Promise<LayerCheck> {
  const { prefix } = place;
  const document = await getDocument(store, place, metadataKey(prefix), signal);
  const { head, numbers, objectCount, endBytes } = await surveyMetadata(
    document.body,
    metadataKey(prefix),
    prefix,
  );
  const closing = closingKeys(prefix);
  const extra: string[] = [];
  let extraCount = 0;
  const onExtra = (key: string) => {
    extraCount += 1;
    if (extra.length < shownNames) extra.push(key);
  };
  await strikeListed(store, place, { numbers, closing }, onExtra, signal);
  const missing = [...closing];
  for (const number of numbers) {
    if (missing.length >= shownNames) break;
    missing.push(objectKey(prefix, number));
  }
  const missingCount = closing.size + numbers.size;
  const layer = { place, metadata: head };
  return { layer, objectCount, endBytes, missingCount, missing, extraCount, extra };
}

/** Data objects by number, and closing objects by key. */
export type LayerObjects = { readonly numbers: NumberSet; readonly closing: Set<string> };

/**
 * The objects of a layer that the store does not list, closing ones included: a bit for each object. A store that lists late
 * may have them all the same. Throws what the store throws.
 */
export async function unlistedObjects(
  store: ObjectStore,
  { place, metadata }: StoredLayer,
  signal: AbortSignal,
): Promise<LayerObjects> {
  const numbers = createNumberSet(greatestNumber);
  for (const { key } of metadata.objects) numbers.add(objectNumber(place.prefix, key) ?? 0);
  const expected = { numbers, closing: closingKeys(place.prefix) };
  await strikeListed(store, place, expected, () => undefined, signal);
  return expected;
}

function closingKeys(prefix: string): Set<string> {
  return new Set([sha256FileKey(prefix), metadataKey(prefix)]);
}

/** Takes what is listed under the layer's prefix out of `expected`; `onExtra` is told of keys that are not in it. */
async function strikeListed(
  store: ObjectStore,
  { container, prefix }: LayerPlace,
  { numbers, closing }: LayerObjects,
  onExtra: (key: string) => void,
  signal: AbortSignal,
): Promise<void> {
  for await (const page of store.list(container, prefix, signal)) {
    for (const { key } of page) {
      if (!closing.delete(key) && !numbers.delete(objectNumber(prefix, key) ?? 0)) onExtra(key);
    }
  }
}

/** Writes the `_metadata` of a backup, after everything else. When it returns, the backup is whole on stable storage. */
export async function writeMetadata(
  store: ObjectStore,
  place: LayerPlace,
  metadata: MetadataDocument,
  signal: AbortSignal,
): Promise<void> {
  for (const { key } of metadata.objects) {
    if (objectNumber(place.prefix, key) === undefined) {
      throw new BackupError('bug', `broken invariant: object ${key} is not of prefix ${place.prefix}`);
    }
  }
  const body = asyncPieces(encodeMetadata(metadata));
  await store.putStream(place.container, metadataKey(place.prefix), body, { signal });
}

async function* asyncPieces(pieces: Iterable<Buffer>): AsyncGenerator<Buffer> {
  yield* pieces;
}

async function getDocument(store: ObjectStore, place: LayerPlace, key: string, signal: AbortSignal) {
  try {
    return await store.get(place.container, key, { signal });
  } catch (error) {
    if (!isBackupError(error, 'object-missing')) throw error;
    throw new BackupError(
      'object-missing',
      `object ${key} is absent from container ${place.container}: the backup did not finish, or its objects were deleted; delete the backup, or put the object back`,
      { cause: error, details: { container: place.container, object: key } },
    );
  }
}
