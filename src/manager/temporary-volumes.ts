/** Volumes and snapshots that cinder-volume made for a backup of Python's: they go when it has ended (cinder/backup/manager.py, _delete_temp_volume). */
import { clearTemporary, findTemporaries } from '../database/backups.ts';
import type { ManagerEnvironment } from './environment.ts';

/** Asks cinder-volume to remove what the row names. Errors of the database and the bus, `state-invalid` for what is no temporary one. */
export async function removeTemporaries(
  { database, clock, cloud, log }: ManagerEnvironment,
  backupId: string,
  signal: AbortSignal,
): Promise<void> {
  const { volumeId, snapshotId, sourceId } = await findTemporaries(database.sql, backupId);
  if (volumeId !== null) {
    await cloud.removeVolume({ id: volumeId, sourceId }, signal);
    await clearTemporary(database.sql, backupId, 'volume', clock.now());
    log.info({ backup: backupId, volume: volumeId }, 'temporary volume given to cinder-volume to remove');
  }
  if (snapshotId !== null) {
    await cloud.removeSnapshot({ id: snapshotId, sourceId }, signal);
    await clearTemporary(database.sql, backupId, 'snapshot', clock.now());
    log.info(
      { backup: backupId, snapshot: snapshotId },
      'temporary snapshot given to cinder-volume to remove',
    );
  }
}
