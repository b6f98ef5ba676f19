/** A backup's chain: its rows by `parent_id`, and what the store says about each of them. */
import { findBackup } from '../database/backups.ts';
import type { Sql } from '../database/database.ts';
import { requireChainOrder } from '../layout/chain.ts';
import { checkObjects, openSha256File, readLayer } from '../layout/read-layer.ts';
import type { Backup } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import type { Layer } from '../pipeline/jobs.ts';
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

/**
 * Reads the metadata of every layer of a whole chain. `chain-broken` if a layer belongs to another store or the layers do
 * not belong together, `object-missing` or `corrupt` if its metadata cannot be trusted, `store-unavailable` if nobody can tell.
 */
export async function readLayers(
  store: ObjectStore,
  chain: readonly Backup[],
  signal: AbortSignal,
): Promise<readonly Layer[]> {
  const layers: Layer[] = [];
  for (const backup of chain) {
    if (backup.service !== null && !store.service.startsWith(backup.service)) {
      throw new BackupError(
        'chain-broken',
        `backup ${backup.id} was made with ${backup.service}, the store here is ${store.service}: configure that store to use it`,
      );
    }
    const layer = await readLayer(store, requirePlace(backup), signal);
    const { metadata } = layer;
    if (metadata.backupId !== backup.id) {
      throw new BackupError(
        'corrupt',
        `the metadata of backup ${backup.id} says that it is that of ${metadata.backupId}`,
      );
    }
    layers.push(layer);
  }
  requireChainOrder(layers.map(({ metadata }) => metadata));
  return layers;
}

/**
 * Compares what is under every layer's prefix with its metadata, as Python does before a restore: exactly its objects
 * and the two closing ones. `chain-broken` with names that are missing or too many.
 */
export async function checkLayers(
  store: ObjectStore,
  layers: readonly Layer[],
  signal: AbortSignal,
): Promise<void> {
  for (const layer of layers) {
    const { missingCount, missing, extraCount, extra } = await checkObjects(store, layer, signal);
    const faults = [
      ...(missingCount === 0 ? [] : [`${missingCount} missing, such as ${missing[0]}`]),
      ...(extraCount === 0 ? [] : [`${extraCount} too many, such as ${extra[0]}`]),
    ];
    if (faults.length === 0) continue;
    throw new BackupError(
      'chain-broken',
      `the objects of backup ${layer.metadata.backupId} are not those of its metadata: ${faults.join('; ')}`,
    );
  }
}

/** The block size of a layer's sha256file, in bytes. Errors as openSha256File. */
export async function readBlockSize(store: ObjectStore, layer: Layer, signal: AbortSignal): Promise<number> {
  const file = await openSha256File(store, layer, signal);
  await file.close();
  return file.blockSize;
}
