/**
 * The storage snapshots that backups keep. Only names of the form `backup.<id>.snap.<time>` are touched, and of
 * those only the ones whose backup this database knows: an agent may serve several clouds.
 */
import { findBackupEver, newestBackup } from '../database/backups.ts';
import { backupIdOfSnapshot, backupSnapshotName, volumeName } from '../model/names.ts';
import type { Backup } from '../model/backup.ts';
import { isBackupError } from '../model/errors.ts';
import type { SnapshotInfo, VolumeDetail } from '../protocol/calls.ts';
import type { ManagerEnvironment, StorageBackend } from './environment.ts';

/** Takes the snapshot that a backup of the volume itself is read from. */
export async function takeBackupSnapshot(
  environment: ManagerEnvironment,
  backend: StorageBackend,
  backup: Backup,
  signal: AbortSignal,
): Promise<SnapshotInfo> {
  const name = backupSnapshotName(backup.id, environment.clock.now().getTime() / 1000);
  return await backend.createSnapshot(volumeName(backup.volumeId), name, signal);
}

/** Removes every snapshot of one backup; a volume that is gone has none. */
export async function dropSnapshotsOf(
  backend: StorageBackend,
  backup: Pick<Backup, 'id' | 'volumeId'>,
  signal: AbortSignal,
): Promise<void> {
  const volume = await findOnStorage(backend, backup.volumeId, signal);
  for (const { name } of volume?.snapshots ?? []) {
    if (backupIdOfSnapshot(name) === backup.id)
      await backend.deleteSnapshot(volumeName(backup.volumeId), name, signal);
  }
}

/**
 * Removes the snapshots of a volume that no backup needs: all but that of its newest backup and of backups that
 * are being made. Returns the names.
 */
export async function dropStaleSnapshots(
  environment: ManagerEnvironment,
  backend: StorageBackend,
  volume: VolumeDetail,
  volumeId: string,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { sql } = environment.database;
  const dropped: string[] = [];
  const newest = await newestBackup(sql, { volumeId });
  for (const { name } of volume.snapshots) {
    const backupId = backupIdOfSnapshot(name);
    if (backupId === undefined || backupId === newest?.id) continue;
    const backup = await findBackupEver(sql, backupId);
    if (backup === undefined || backup.volumeId !== volumeId || backup.status === 'creating') continue;
    await backend.deleteSnapshot(volume.name, name, signal);
    dropped.push(name);
  }
  return dropped;
}

/** The volume as the agent has it, or undefined if it is gone. */
export async function findOnStorage(
  backend: StorageBackend,
  volumeId: string,
  signal: AbortSignal,
): Promise<VolumeDetail | undefined> {
  try {
    return await backend.getVolume(volumeName(volumeId), signal);
  } catch (error) {
    if (isBackupError(error, 'not-found')) return undefined;
    throw error;
  }
}
