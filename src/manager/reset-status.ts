/** Resets a backup's status by hand: BackupManager.reset_status (cinder/backup/manager.py), with a look at the store first. */
import { getBackup, moveBackup } from '../database/backups.ts';
import type { BackupStatus } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import { checkChain, loadChain } from './chain.ts';
import type { ManagerEnvironment } from './environment.ts';

const resettable: readonly BackupStatus[] = [
  'creating',
  'available',
  'restoring',
  'deleting',
  'error',
  'error_deleting',
];

/**
 * Sets the status of a backup that nothing works on. To `available` only if the backup and its ancestors are
 * complete in the store: errors as checkChain.
 */
export async function resetStatus(
  environment: ManagerEnvironment,
  backupId: string,
  to: 'available' | 'error',
  signal: AbortSignal,
): Promise<void> {
  const { database, resources, clock } = environment;
  const backup = await getBackup(database.sql, backupId);
  const { service } = resources.store;
  if (backup.service !== null && !service.startsWith(backup.service)) {
    throw new BackupError(
      'state-invalid',
      `Reset backup status aborted, the backup service currently configured [${service}] is not the backup service that was used to create this backup [${backup.service}].`,
    );
  }
  if (to === 'available') {
    await checkChain(resources.store, await loadChain(database.sql, backup), signal);
  }
  const from = resettable.filter((status) => status === backup.status);
  if (from.length === 0) {
    throw new BackupError('state-invalid', `backup ${backupId} is ${backup.status}: that cannot be reset`);
  }
  await moveBackup(database.sql, backupId, { from, to }, {}, clock.now());
}
