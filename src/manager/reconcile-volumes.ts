/** What a process that died left half done on volumes and Cinder snapshots, and how each kind of work on them ends. */
import { listBackups } from '../database/backups.ts';
import { listSnapshots, moveSnapshot } from '../database/snapshots.ts';
import { getVolume, listVolumes, moveVolume } from '../database/volumes.ts';
import { isBackupError, throwIfAborted } from '../model/errors.ts';
import { cinderSnapshotName, volumeName } from '../model/names.ts';
import { toGiB, type Snapshot, type VolumeStatus } from '../model/volume.ts';
import type { ManagerEnvironment, StorageBackend } from './environment.ts';
import { settleAll } from './settle-all.ts';

/** Ends what an earlier process left half done. Once, before the first request. */
export async function reconcileVolumes(
  environment: ManagerEnvironment,
  backend: StorageBackend,
  signal: AbortSignal,
): Promise<void> {
  const { database, clock, log } = environment;
  const { sql } = database;
  for (const volume of await listVolumes(sql, { status: 'creating' })) {
    await moveVolume(sql, volume.id, { from: ['creating'], to: 'error' }, {}, clock.now());
  }
  for (const { id, previousStatus } of await listVolumes(sql, { status: 'extending' })) {
    const before = previousStatus === 'in-use' ? 'in-use' : 'available';
    try {
      await endExtending(environment, backend, id, before, signal);
    } catch (err) {
      throwIfAborted(signal);
      log.error({ volume: id, err }, 'nobody can tell whether this volume was extended');
    }
  }
  for (const snapshot of await listSnapshots(sql, { status: 'creating' })) {
    await moveSnapshot(sql, snapshot.id, { from: ['creating'], to: 'error' }, clock.now());
  }
  for (const snapshot of await listSnapshots(sql, { status: 'deleting' })) {
    try {
      await endDeletion(environment, backend, snapshot, signal);
    } catch (err) {
      throwIfAborted(signal);
      log.error({ snapshot: snapshot.id, err }, 'snapshot not removed: delete it again');
    }
  }
  await releaseForgotten(environment);
}

/**
 * Ends an extension by what the storage has: a volume that grew is as it was before, with its new size; one that did not
 * becomes `unchanged`. `error_extending`, and the agent's error, if that cannot be asked.
 */
export async function endExtending(
  { database, clock }: ManagerEnvironment,
  backend: StorageBackend,
  volumeId: string,
  unchanged: VolumeStatus,
  signal: AbortSignal,
): Promise<void> {
  const { sql } = database;
  const from = ['extending'] as const;
  try {
    const row = await getVolume(sql, volumeId);
    const { size_bytes: sizeBytes } = await backend.getVolume(volumeName(volumeId), signal);
    const sizeGiB = toGiB(sizeBytes);
    if (sizeGiB > row.sizeGiB) {
      const to = row.previousStatus === 'in-use' ? 'in-use' : 'available';
      await moveVolume(sql, volumeId, { from, to }, { sizeGiB }, clock.now());
    } else await moveVolume(sql, volumeId, { from, to: unchanged }, {}, clock.now());
  } catch (error) {
    throw await settleAll(error, [
      () => moveVolume(sql, volumeId, { from, to: 'error_extending' }, {}, clock.now()),
    ]);
  }
}

/** Removes a Cinder snapshot in status `deleting` from the storage, and its row with it. */
export async function endDeletion(
  { database, clock }: ManagerEnvironment,
  backend: StorageBackend,
  snapshot: Snapshot,
  signal: AbortSignal,
): Promise<void> {
  try {
    await backend.deleteSnapshot(volumeName(snapshot.volumeId), cinderSnapshotName(snapshot.id), signal);
  } catch (error) {
    if (!isBackupError(error, 'not-found')) {
      throw await settleAll(error, [
        () => moveSnapshot(database.sql, snapshot.id, { from: ['deleting'], to: 'error' }, clock.now()),
      ]);
    }
  }
  await moveSnapshot(database.sql, snapshot.id, { from: ['deleting'], to: 'deleted' }, clock.now());
}

/**
 * Volumes and snapshots that are `backing-up` or `restoring-backup` for no backup: a process that died between two
 * commits of another version, or a hand in the rows. They become usable, or say that they were being restored.
 */
async function releaseForgotten({ database, clock }: ManagerEnvironment): Promise<void> {
  const { sql } = database;
  const now = clock.now();
  for (const volume of await listVolumes(sql, { status: 'backing-up' })) {
    const making = await listBackups(sql, { volumeId: volume.id, status: 'creating' });
    if (making.some(({ snapshotId }) => snapshotId === null)) continue;
    const to = volume.previousStatus === 'in-use' ? 'in-use' : 'available';
    await moveVolume(
      sql,
      volume.id,
      { from: ['backing-up'], to },
      { previousStatus: 'error_backing-up' },
      now,
    );
  }
  const restoring = await listBackups(sql, { status: 'restoring' });
  for (const volume of await listVolumes(sql, { status: 'restoring-backup' })) {
    if (restoring.some(({ restoreVolumeId }) => restoreVolumeId === volume.id)) continue;
    await moveVolume(sql, volume.id, { from: ['restoring-backup'], to: 'error_restoring' }, {}, now);
  }
  for (const snapshot of await listSnapshots(sql, { status: 'backing-up' })) {
    const making = await listBackups(sql, { volumeId: snapshot.volumeId, status: 'creating' });
    if (making.some(({ snapshotId }) => snapshotId === snapshot.id)) continue;
    await moveSnapshot(sql, snapshot.id, { from: ['backing-up'], to: 'available' }, now);
  }
}
