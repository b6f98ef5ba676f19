/**
 * The storage snapshots that backups keep. Only names of the form `backup.<id>.snap.<time>` are touched, and of
 * those only the ones whose backup this database knows and our driver made: an agent may serve several clouds, and
 * Cinder's Ceph driver keeps snapshots of its own under such names.
 */
import { findBackupEver, newestBackups } from '../database/backups.ts';
import { findVolumeEver } from '../database/volumes.ts';
import type { Backup } from '../model/backup.ts';
import { isOwnService, ownServices } from '../model/driver-class.ts';
import { backupIdOfSnapshot, backupSnapshotName } from '../model/names.ts';
import { nameOnStorage, type Volume } from '../model/volume.ts';
import type { SnapshotInfo } from '../protocol/calls.ts';
import type { ManagerEnvironment, StorageBackend } from './environment.ts';

/** The name of a backup's snapshot: its row is enough to find it again, whatever the agent lists. */
function snapshotNameOf({ id, createdAt }: Pick<Backup, 'id' | 'createdAt'>): string {
  return backupSnapshotName(id, createdAt.getTime() / 1000);
}

/** Takes the snapshot that a backup of the volume itself is read from. */
export async function takeBackupSnapshot(
  backend: StorageBackend,
  backup: Backup,
  volume: Volume,
  signal: AbortSignal,
): Promise<SnapshotInfo> {
  return await backend.createSnapshot(nameOnStorage(volume), snapshotNameOf(backup), signal);
}

/**
 * Removes every snapshot of one backup: that of its name, listed or not, and whatever else is listed for it. The volume may
 * be gone, from the storage and from the rows; one that never had a row is nowhere.
 */
export async function dropSnapshotsOf(
  environment: ManagerEnvironment,
  backup: Backup,
  signal: AbortSignal,
): Promise<void> {
  const row = await findVolumeEver(environment.database.sql, backup.volumeId);
  if (row === undefined) return;
  const backend = environment.storage.forHost(row.host);
  const volume = nameOnStorage(row);
  await backend.deleteSnapshot(volume, snapshotNameOf(backup), signal);
  for (const { name } of await backend.listSnapshots(volume, signal)) {
    if (backupIdOfSnapshot(name) === backup.id) await backend.deleteSnapshot(volume, name, signal);
  }
}

/**
 * Removes the snapshots of a volume that no backup of ours needs: all but those of its newest backups, as many as are to be kept
 * (keep_snapshots), and of backups that are being made. The volume may be gone from the storage. Returns the names.
 */
export async function dropStaleSnapshots(
  environment: ManagerEnvironment,
  backend: StorageBackend,
  of: Pick<Volume, 'id' | 'nameId'>,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { sql } = environment.database;
  const volume = nameOnStorage(of);
  const volumeId = of.id;
  const { resources, options } = environment;
  const { service } = resources.store;
  const made: { readonly name: string; readonly backupId: string }[] = [];
  for (const { name } of await backend.listSnapshots(volume, signal)) {
    const backupId = backupIdOfSnapshot(name);
    if (backupId === undefined) continue;
    const backup = await findBackupEver(sql, backupId);
    if (backup === undefined || backup.volumeId !== volumeId || backup.status === 'creating') continue;
    if (isOwnService(service, backup.service)) made.push({ name, backupId });
  }
  // Asked for last: a backup that ends meanwhile is the newest then, or none of those that were looked at.
  const services = ownServices(service);
  const statuses = ['available', 'restoring'] as const;
  const newest = await newestBackups(sql, { volumeId, services, statuses }, options.keepSnapshots);
  const kept = new Set(newest.map(({ id }) => id));
  const stale = made.filter(({ backupId }) => !kept.has(backupId)).map(({ name }) => name);
  for (const name of stale) await backend.deleteSnapshot(volume, name, signal);
  return stale;
}
