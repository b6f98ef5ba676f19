/** Asking for a restore: what cinder-api does before the manager gets to work (cinder/backup/api.py, restore). */
import { getBackup, moveBackup } from '../database/backups.ts';
import { getVolume, moveVolume } from '../database/volumes.ts';
import type { Backup } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { Volume } from '../model/volume.ts';
import type { ManagerEnvironment } from './environment.ts';

/** Makes the volume to restore to where none was named: in status `available`. */
export type MakeVolume = (
  context: RequestContext,
  wanted: { readonly sizeGiB: number; readonly name: string; readonly description: string },
) => Promise<Volume>;

/**
 * Checks the request and takes backup (`restoring`) and volume (`restoring-backup`) at once. Without a volume a new one
 * is made first. `not-found`, `state-invalid`.
 */
export async function requestRestore(
  environment: ManagerEnvironment,
  context: RequestContext,
  request: { readonly backupId: string; readonly volumeId: string | null; readonly name: string | null },
  makeVolume: MakeVolume,
): Promise<{ readonly backup: Backup; readonly volume: Volume }> {
  const { database, clock, options } = environment;
  const backup = await getBackup(database.sql, request.backupId, context.projectId);
  requireAvailable(backup);
  const volume =
    request.volumeId === null
      ? await makeVolume(context, {
          sizeGiB: backup.sizeGiB,
          name: request.name ?? `restore_backup_${backup.id}`,
          description: 'auto-created_from_restore_from_backup',
        })
      : await getVolume(database.sql, request.volumeId, context.projectId);
  if (volume.status !== 'available') {
    throw new BackupError('state-invalid', 'Invalid volume: Volume to be restored to must be available');
  }
  if (backup.sizeGiB > volume.sizeGiB) {
    throw new BackupError(
      'state-invalid',
      `Invalid volume: volume size ${volume.sizeGiB} is too small to restore backup of size ${backup.sizeGiB}.`,
    );
  }
  await database.transaction(async (sql) => {
    const now = clock.now();
    const changes = { restoreVolumeId: volume.id, host: options.host };
    await moveBackup(sql, backup.id, { from: ['available'], to: 'restoring' }, changes, now);
    await moveVolume(sql, volume.id, { from: ['available'], to: 'restoring-backup' }, {}, now);
  });
  return { backup, volume };
}

function requireAvailable(backup: Backup): void {
  if (backup.status === 'available') return;
  throw new BackupError(
    'state-invalid',
    `Invalid backup: Backup status must be available and not ${backup.status}.`,
  );
}
