/**
 * How a backup finds its bytes: delta, compare or full, and why. A parent is proven before it is trusted: every
 * ancestor's metadata can be read and lists exactly what is stored, a restore has memory for all their objects, the block
 * size is ours, the volume did not shrink. Whatever is wrong with it makes a full backup with the reason in words; only a store or an agent that
 * cannot be asked is an error.
 */
import { findBackup } from '../database/backups.ts';
import { sha256FileKey } from '../layout/names.ts';
import type { LayerHead } from '../layout/read-layer.ts';
import type { Backup } from '../model/backup.ts';
import { isBackupError } from '../model/errors.ts';
import type { BackupJob } from '../pipeline/jobs.ts';
import { mostObjects } from '../pipeline/object-room.ts';
import type { BackendInfo, SnapshotInfo, VolumeDetail } from '../protocol/calls.ts';
import { checkChain, loadChain, readBlockSize } from './chain.ts';
import type { ManagerEnvironment } from './environment.ts';

export type Way = BackupJob['way'];

/** What the way is chosen for. */
export type WayRequest = {
  /** `host@backend`. */
  readonly backend: string;
  readonly info: BackendInfo;
  readonly volume: VolumeDetail;
  readonly current: SnapshotInfo;
  /** Backup snapshots that stay on the storage. */
  readonly keepSnapshots: number;
};

/** What makes a parent unusable; every other error means that nobody can tell. */
const unusable = [
  'chain-broken',
  'object-missing',
  'corrupt',
  'version-unsupported',
  'limit-exceeded',
] as const;

/** A parent that can be built upon, or why there is none. */
export type Parent =
  { readonly layer: LayerHead; readonly lengthBytes: number } | { readonly reason: string };

/** Examines the parent that a backup asks for: needs the store alone. Errors: `store-unavailable`, `store-denied`, `cancelled`. */
export async function examineParent(
  environment: ManagerEnvironment,
  backup: Backup,
  signal: AbortSignal,
): Promise<Parent> {
  if (backup.parentId === null) return { reason: 'no parent was asked for' };
  try {
    return await examineChain(environment, backup, backup.parentId, signal);
  } catch (error) {
    if (!isBackupError(error, ...unusable)) throw error;
    return { reason: `the parent cannot be used: ${error.message}` };
  }
}

async function examineChain(
  environment: ManagerEnvironment,
  backup: Backup,
  parentId: string,
  signal: AbortSignal,
): Promise<Parent> {
  const { store, objectLists } = environment.resources;
  const { blockSize } = environment.options;
  const { sql } = environment.database;
  const row = await findBackup(sql, parentId);
  if (row === undefined) return { reason: `the parent ${parentId} is gone` };
  if (row.status !== 'available' && row.status !== 'restoring') {
    return { reason: `the parent ${parentId} is ${row.status}` };
  }
  if (row.volumeId !== backup.volumeId) {
    return { reason: `the parent ${parentId} is a backup of another volume, ${row.volumeId}` };
  }
  const chain = await checkChain(store, await loadChain(sql, row), signal);
  const { newest: layer, objectCount, lengthBytes } = chain;
  const most = Math.floor(mostObjects(objectLists) / 2);
  if (objectCount > most) {
    return {
      reason: `the chain of the parent ${parentId} has ${objectCount} objects, more than ${most}: half of what a restore has memory for`,
    };
  }
  const parentBlockSize = await readBlockSize(store, layer, signal);
  if (parentBlockSize === blockSize) return { layer, lengthBytes };
  return {
    reason: `the parent ${parentId} has blocks of ${parentBlockSize} bytes, this service makes ${blockSize}`,
  };
}

/** Chooses the way. */
export function chooseWay(request: WayRequest, parent: Parent): Way {
  if ('reason' in parent) return { mode: 'full', reason: parent.reason };
  const { layer, lengthBytes } = parent;
  const { backupId } = layer.metadata;
  if (lengthBytes > request.current.size_bytes) {
    return {
      mode: 'full',
      reason: `the volume shrank from ${lengthBytes} to ${request.current.size_bytes} bytes since the parent ${backupId}`,
    };
  }
  const previous = findBase(request, layer);
  if (typeof previous === 'string') return { mode: 'compare', reason: previous, parent: layer };
  return {
    mode: 'delta',
    reason: `snapshot ${previous.name} of the parent ${backupId} is still on the storage`,
    parent: layer,
    previous,
  };
}

/** The parent's snapshot if it is proven to be of this volume, else the sentence that says why not. */
function findBase(request: WayRequest, parent: LayerHead): { name: string; identity: string } | string {
  const { backend, info, volume, keepSnapshots } = request;
  const { backupId: id, delta } = parent.metadata;
  if (delta === null) return `the parent ${id} was made by cinder-backup, which keeps no snapshot`;
  const { base } = delta;
  if (base === null) return `the parent ${id} kept no snapshot`;
  if (info.delta === 'none') return `backend ${info.name} cannot list changes between snapshots`;
  if (base.backend !== backend)
    return `the volume moved from ${base.backend} to ${backend} since the parent ${id}`;
  if (base.volumeName !== volume.name || base.volumeIdentity !== volume.identity) {
    return `the volume on the storage is not the one that the parent ${id} was made of`;
  }
  const found = volume.snapshots.find(({ name }) => name === base.snapshotName);
  if (found === undefined) {
    const why = keepSnapshots === 0 ? ': none is kept ([delta] keep_snapshots = 0)' : '';
    return `snapshot ${base.snapshotName} of the parent ${id} is gone${why}`;
  }
  if (found.identity !== base.snapshotIdentity) {
    return `snapshot ${base.snapshotName} was made anew since the parent ${id}`;
  }
  return { name: found.name, identity: found.identity };
}

/**
 * The way to try after `error`, or undefined if there is none: a base that the agent refuses leads to a compare, a
 * parent that turns out to be unusable to a full backup. What the agent sends and is corrupt is never asked for again.
 */
export function nextWay(way: Way, error: unknown): Way | undefined {
  if (way.mode === 'full') return undefined;
  if (way.mode === 'delta' && isBackupError(error, 'delta-unavailable')) {
    return { mode: 'compare', reason: `the agent has no delta: ${error.message}`, parent: way.parent };
  }
  const inParent =
    isBackupError(error, 'corrupt', 'object-missing') &&
    error.details['object'] === sha256FileKey(way.parent.place.prefix);
  if (isBackupError(error) && (inParent || error.code === 'chain-broken')) {
    return { mode: 'full', reason: `the parent cannot be used: ${error.message}` };
  }
  return undefined;
}
