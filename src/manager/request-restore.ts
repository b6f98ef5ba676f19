/** Asking for a restore: what cinder-api does before the manager gets to work (cinder/backup/api.py, restore). */
import { getBackup, moveBackup } from '../database/backups.ts';
import { getVolume, moveVolume } from '../database/volumes.ts';
import type { Backup } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { Volume, VolumeStatus } from '../model/volume.ts';
import type { ManagerEnvironment } from './environment.ts';
import { settleAll } from './settle-all.ts';

/** Makes the volume to restore to where none was named: in status `creating`, so that nobody else can take it. */
export type MakeVolume = (
  context: RequestContext,
  wanted: { readonly sizeGiB: number; readonly name: string; readonly description: string },
) => Promise<Volume>;

/** A restore overwrites the volume: also one that an earlier restore has left half done. */
const restorable: readonly VolumeStatus[] = ['available', 'error_restoring'];

/**
 * Checks the request and takes backup (`restoring`) and volume (`restoring-backup`) at once. Without a volume a new one
 * is made first; it ends in `error` if it cannot be taken. `not-found`, `state-invalid`.
 */
export async function requestRestore(
  environment: ManagerEnvironment,
  context: RequestContext,
  request: { readonly backupId: string; readonly volumeId: string | null; readonly name: string | null },
  makeVolume: MakeVolume,
): Promise<{ readonly backup: Backup; readonly volume: Volume }> {
  const { database, clock } = environment;
  const backup = await getBackup(database.sql, request.backupId, context.projectId);
  requireAvailable(backup);
  if (request.volumeId !== null) {
    const volume = await getVolume(database.sql, request.volumeId, context.projectId);
    await claim(environment, backup, volume, restorable);
    return { backup, volume };
  }
  const made = await makeVolume(context, {
    sizeGiB: backup.sizeGiB,
    name: request.name ?? `restore_backup_${backup.id}`,
    description: 'auto-created_from_restore_from_backup',
  });
  try {
    await claim(environment, backup, made, ['creating']);
  } catch (error) {
    throw await settleAll(error, [
      () => moveVolume(database.sql, made.id, { from: ['creating'], to: 'error' }, {}, clock.now()),
    ]);
  }
  return { backup, volume: made };
}

async function claim(
  { database, clock, options }: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  from: readonly VolumeStatus[],
): Promise<void> {
  if (!from.some((status) => status === volume.status)) {
    throw new BackupError('state-invalid', 'Invalid volume: Volume to be restored to must be available');
  }
  if (backup.sizeGiB > volume.sizeGiB) {
    throw new BackupError(
      'state-invalid',
      `Invalid volume: volume size ${volume.sizeGiB} is too small to restore backup of size ${backup.sizeGiB}.`,
    );
  }
  const now = clock.now();
  await database.transaction(async (sql) => {
    const changes = { restoreVolumeId: volume.id, host: options.host };
    await moveBackup(sql, backup.id, { from: ['available'], to: 'restoring' }, changes, now);
    const launched = volume.status === 'creating' ? { launchedAt: now } : {};
    await moveVolume(sql, volume.id, { from, to: 'restoring-backup' }, launched, now);
  });
}

function requireAvailable(backup: Backup): void {
  if (backup.status === 'available') return;
  throw new BackupError(
    'state-invalid',
    `Invalid backup: Backup status must be available and not ${backup.status}.`,
  );
}
