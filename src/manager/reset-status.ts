/** Resets a backup's status by hand: BackupManager.reset_status (cinder/backup/manager.py), with a look at the store first. */
import type { BackupChanges } from '../database/backup-columns.ts';
import { countDependent, getBackup, moveBackup } from '../database/backups.ts';
import { checkLayer } from '../layout/read-layer.ts';
import type { Backup, BackupStatus } from '../model/backup.ts';
import { isOwnService } from '../model/driver-class.ts';
import { BackupError } from '../model/errors.ts';
import { toGiB } from '../model/volume.ts';
import { requirePlace } from './backup-objects.ts';
import { checkChain, loadChain } from './chain.ts';
import { recordedSize } from './end-backup.ts';
import type { ManagerEnvironment } from './environment.ts';
import { refusal } from './refusal.ts';

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
 * complete in the store; the row of one that was never finished then says what its metadata does. Errors as checkChain.
 */
export async function resetStatus(
  environment: ManagerEnvironment,
  backupId: string,
  to: 'available' | 'error',
  signal: AbortSignal,
): Promise<void> {
  const { database } = environment;
  const backup = await getBackup(database.sql, backupId);
  requireOwn(environment, backup);
  const from = requireResettable(backup);
  const outcome = to === 'available' ? await checkedOutcome(environment, backup, signal) : {};
  await writeReset(environment, backupId, { from, to }, outcome);
}

/** `state-invalid` for a backup of another store. */
export function requireOwn({ resources }: ManagerEnvironment, { service: made }: Backup): void {
  const { service } = resources.store;
  if (isOwnService(service, made)) return;
  throw refusal(
    'InvalidBackup',
    `Reset backup status aborted, the backup service currently configured [${service}] is not the backup service that was used to create this backup [${made}].`,
    null,
  );
}

/** What a backup that was never finished turned out to be. */
export type ResetOutcome = Pick<BackupChanges, 'parentId' | 'objectCount' | 'sizeGiB'>;

/** The status of a backup that may be reset; `state-invalid` for one that may not. */
export function requireResettable({ id, status }: Backup): BackupStatus {
  const found = resettable.find((each) => each === status);
  if (found !== undefined) return found;
  throw new BackupError('state-invalid', `backup ${id} is ${status}: that cannot be reset`);
}

/** Sets the status, and counts a backup that was never finished at its parent. */
export async function writeReset(
  { database, clock }: ManagerEnvironment,
  backupId: string,
  { from, to }: { readonly from: BackupStatus; readonly to: 'available' | 'error' },
  outcome: ResetOutcome,
): Promise<void> {
  const now = clock.now();
  await database.transaction(async (sql) => {
    await moveBackup(sql, backupId, { from: [from], to }, outcome, now);
    const { parentId } = outcome;
    if (parentId !== undefined && parentId !== null) await countDependent(sql, parentId, 1, now);
  });
}

/** Checks the backup and its ancestors. Of one whose last commit was lost: what that would have written, by its metadata. */
export async function checkedOutcome(
  { database, options, resources: { store } }: ManagerEnvironment,
  backup: Backup,
  signal: AbortSignal,
): Promise<ResetOutcome> {
  if (backup.objectCount !== null) {
    await checkChain(store, await loadChain(database.sql, backup), signal);
    return {};
  }
  const { layer } = await checkLayer(store, requirePlace(backup), signal);
  const { parentId } = layer.metadata;
  const chain = await checkChain(store, await loadChain(database.sql, { ...backup, parentId }), signal);
  const sizeGiB = recordedSize(options, backup.sizeGiB, toGiB(chain.lengthBytes));
  return { parentId, objectCount: chain.newestCount, sizeGiB };
}
