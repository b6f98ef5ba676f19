/** A backup's chain: its rows by `parent_id`, and what the store says about each of them. */
import { findBackup } from '../database/backups.ts';
import type { Sql } from '../database/database.ts';
import { chainLengthBytes, planRestore, requireChainOrder } from '../layout/chain.ts';
import type { MetadataHead } from '../layout/metadata-document.ts';
import { metadataKey, objectNumber, sha256FileKey } from '../layout/names.ts';
import {
  checkLayer,
  openSha256File,
  readLayer,
  unlistedObjects,
  type LayerHead,
  type LayerObjects,
} from '../layout/read-layer.ts';
import type { Backup } from '../model/backup.ts';
import { isOwnService } from '../model/driver-class.ts';
import { BackupError, invariant, isBackupError } from '../model/errors.ts';
import type { Extent } from '../model/extent.ts';
import type { Layer, PipelineResources, UnreadableLayer } from '../pipeline/jobs.ts';
import { reserveObjects } from '../pipeline/object-room.ts';
import { objectFaultCodes } from '../pipeline/verify.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { requirePlace } from './backup-objects.ts';

/** A chain longer than this is taken for a loop in the rows. */
const maxChainLength = 10_000;

/** The rows of the chain, full backup first. `chain-broken` if an ancestor is gone or the rows go round. */
export async function loadChain(sql: Sql, newest: Backup): Promise<readonly Backup[]> {
  const chain = [newest];
  const seen = new Set([newest.id]);
  for (let { id, parentId } = newest; parentId !== null;) {
    const parent = await findBackup(sql, parentId);
    if (parent === undefined) {
      throw new BackupError('chain-broken', `backup ${parentId}, the parent of ${id}, is gone`);
    }
    if (seen.has(parent.id) || chain.length >= maxChainLength) {
      throw new BackupError('chain-broken', `the parents of backup ${newest.id} lead back to ${parent.id}`);
    }
    seen.add(parent.id);
    chain.push(parent);
    ({ id, parentId } = parent);
  }
  return chain.toReversed();
}

/** The layers of a chain, and the memory that their objects hold. */
export type HeldLayers = Disposable & { readonly layers: readonly Layer[] };

/** The same where some could not be read. */
export type ReadableLayers = HeldLayers & { readonly unreadable: readonly UnreadableLayer[] };

/**
 * Reads the metadata of every layer of a whole chain, in memory that counts until it is disposed of. `chain-broken` if a layer
 * belongs to another store or the layers do not belong together, `object-missing` or `corrupt` if its metadata cannot be
 * trusted, `limit-exceeded` for more objects than fit, `store-unavailable` if nobody can tell.
 */
export async function readLayers(
  resources: Pick<PipelineResources, 'store' | 'objectLists'>,
  chain: readonly Backup[],
  signal: AbortSignal,
): Promise<HeldLayers> {
  const held = await collectLayers(resources, chain, signal, (error) => {
    throw error;
  });
  try {
    requireChainOrder(held.layers.map(({ metadata }) => metadata));
    return held;
  } catch (error) {
    held[Symbol.dispose]();
    throw error;
  }
}

/**
 * The same for a chain of which some layers cannot be read, for want of their metadata or because it is damaged: those are
 * told. Throws the first such error if that is all there is, and others as readLayers does.
 */
export async function readReadableLayers(
  resources: Pick<PipelineResources, 'store' | 'objectLists'>,
  chain: readonly Backup[],
  signal: AbortSignal,
): Promise<ReadableLayers> {
  const unreadable: UnreadableLayer[] = [];
  let first: unknown;
  const held = await collectLayers(resources, chain, signal, (error, backup) => {
    if (!isBackupError(error, 'version-unsupported', ...objectFaultCodes)) throw error;
    first ??= error;
    const object = metadataKey(requirePlace(backup).prefix);
    unreadable.push({ backupId: backup.id, object, reason: error.message });
  });
  try {
    if (held.layers.length === 0) throw first;
    if (unreadable.length === 0) requireChainOrder(held.layers.map(({ metadata }) => metadata));
    return { ...held, unreadable };
  } catch (error) {
    held[Symbol.dispose]();
    throw error;
  }
}

/** `onFault` is told why a layer cannot be read, and throws unless the others are to be read. */
async function collectLayers(
  { store, objectLists }: Pick<PipelineResources, 'store' | 'objectLists'>,
  chain: readonly Backup[],
  signal: AbortSignal,
  onFault: (error: unknown, backup: Backup) => void,
): Promise<HeldLayers> {
  const expected = chain.reduce((sum, { objectCount }) => sum + (objectCount ?? 0), 0);
  const room = await reserveObjects(objectLists, expected, signal);
  try {
    const layers: Layer[] = [];
    for (const backup of chain) {
      requireService(store, backup);
      const place = requirePlace(backup);
      try {
        const layer = await readLayer(store, place, signal, () => room.take());
        requireOwn(layer.metadata, backup);
        layers.push(layer);
      } catch (error) {
        onFault(error, backup);
      }
    }
    return { layers, [Symbol.dispose]: () => room.release() };
  } catch (error) {
    room.release();
    throw error;
  }
}

/**
 * Looks in the store's listings, one for each layer, for every object that a restore of the chain reads. Objects too many do
 * not hinder it, nor does an absent one that newer layers hide. Throws `object-missing` naming the first that is absent,
 * `chain-broken` and `corrupt` as planRestore, and what the store throws.
 */
export async function requireObjects(
  store: ObjectStore,
  layers: readonly Layer[],
  signal: AbortSignal,
): Promise<void> {
  const unlisted: LayerObjects[] = [];
  for (const layer of layers) unlisted.push(await unlistedObjects(store, layer, signal));
  const newest = layers.at(-1);
  const hashList = newest === undefined ? '' : sha256FileKey(newest.place.prefix);
  if (newest !== undefined && unlisted.at(-1)?.closing.has(hashList) === true) {
    await requireObject(store, newest, hashList, signal);
  }
  if (unlisted.every(({ numbers }) => numbers.size === 0)) return;
  const documents = layers.map(({ metadata }) => metadata);
  for (const { layer, entry } of planRestore(documents, chainLengthBytes(documents), 1)) {
    const owner = layers[layer];
    invariant(owner !== undefined, `the plan names layer ${layer} of ${layers.length}`);
    const number = objectNumber(owner.place.prefix, entry.key) ?? 0;
    if (unlisted[layer]?.numbers.has(number) === true) await requireObject(store, owner, entry.key, signal);
  }
}

/** Asks for an object that was not listed: the listings of some stores come late (Swift). */
async function requireObject(
  store: ObjectStore,
  { place: { container }, metadata: { backupId } }: Layer,
  key: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    const { body } = await store.get(container, key, { signal });
    const pieces = body[Symbol.asyncIterator]();
    await pieces.next();
    await pieces.return?.();
  } catch (cause) {
    if (!isBackupError(cause, 'object-missing')) throw cause;
    throw new BackupError(
      'object-missing',
      `object ${key} of backup ${backupId} is absent from container ${container}: nothing was written to the volume; put the object back, verify the backup to see all that is damaged, or restore another one`,
      { cause, details: { object: key, backupId, container } },
    );
  }
}

/** What is left of a chain that was read and found whole. */
export type CheckedChain = {
  readonly newest: LayerHead;
  /** Objects of the newest layer, and of all. */
  readonly newestCount: number;
  readonly objectCount: number;
  readonly lengthBytes: number;
};

/**
 * Reads a whole chain layer by layer and compares what is under every prefix with its metadata, as Python does before a
 * restore: exactly its objects and the two closing ones. Holds a bit for each object of one layer. Errors as readLayers, and
 * `chain-broken` with names that are missing or too many.
 */
export async function checkChain(
  store: ObjectStore,
  chain: readonly Backup[],
  signal: AbortSignal,
): Promise<CheckedChain> {
  const outlines: Outline[] = [];
  let newest: LayerHead | undefined;
  let newestCount = 0;
  let objectCount = 0;
  for (const backup of chain) {
    requireService(store, backup);
    const check = await checkLayer(store, requirePlace(backup), signal);
    requireOwn(check.layer.metadata, backup);
    const { missingCount, missing, extraCount, extra } = check;
    const faults = [
      ...(missingCount === 0 ? [] : [`${missingCount} missing, such as ${missing[0]}`]),
      ...(extraCount === 0 ? [] : [`${extraCount} too many, such as ${extra[0]}`]),
    ];
    if (faults.length > 0) {
      throw new BackupError(
        'chain-broken',
        `the objects of backup ${backup.id} are not those of its metadata: ${faults.join('; ')}`,
      );
    }
    newest = check.layer;
    newestCount = check.objectCount;
    objectCount += newestCount;
    outlines.push(outlineOf(newest.metadata, check.endBytes));
  }
  requireChainOrder(outlines);
  invariant(newest !== undefined, 'a chain that is whole has a newest layer');
  return { newest, newestCount, objectCount, lengthBytes: chainLengthBytes(outlines) };
}

type Outline = Pick<MetadataHead, 'backupId' | 'parentId' | 'volumeId' | 'delta'> & {
  readonly objects: readonly [Extent];
};

/** A layer as one extent: all that its order and its length are told by. */
function outlineOf({ backupId, parentId, volumeId, delta }: MetadataHead, endBytes: number): Outline {
  return { backupId, parentId, volumeId, delta, objects: [{ offset: 0, length: endBytes }] };
}

function requireService(store: ObjectStore, backup: Backup): void {
  if (isOwnService(store.service, backup.service)) return;
  throw new BackupError(
    'chain-broken',
    `backup ${backup.id} was made with ${backup.service}, the store here is ${store.service}: configure that store to use it`,
  );
}

function requireOwn(metadata: MetadataHead, backup: Backup): void {
  if (metadata.backupId === backup.id) return;
  throw new BackupError(
    'corrupt',
    `the metadata of backup ${backup.id} says that it is that of ${metadata.backupId}`,
  );
}

/** The block size of a layer's sha256file, in bytes. Errors as openSha256File. */
export async function readBlockSize(
  store: ObjectStore,
  layer: LayerHead,
  signal: AbortSignal,
): Promise<number> {
  const file = await openSha256File(store, layer, signal);
  await file.close();
  return file.blockSize;
}
