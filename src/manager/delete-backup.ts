/**
 * Deletes a backup: what BackupManager.delete_backup does (cinder/backup/manager.py). The row is `deleting` when it
 * starts. Objects go before the row; a deletion that fails ends in `error` and can be asked for again. What a backup that
 * was never finished still holds of its volume is given back first.
 */
import {
  countDependent,
  findBackup,
  isPlaceShared,
  listBackups,
  moveBackup,
  softDeleteBackup,
} from '../database/backups.ts';
import { giveBackQuota } from '../database/quotas.ts';
import { failReasonOf, type Backup, type BackupStatus } from '../model/backup.ts';
import { isOwnService } from '../model/driver-class.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import { isForeign, removeObjects } from './backup-objects.ts';
import { dropSnapshotsOf } from './backup-snapshots.ts';
import { endTemporaries, releaseSource } from './end-backup.ts';
import type { ManagerEnvironment } from './environment.ts';
import { tellFailure } from './failure-message.ts';
import type { OperationRun } from './operations.ts';
import { refusal } from './refusal.ts';
import { needsParent } from './request-delete.ts';
import { persist } from './row-step.ts';
import { settleAll } from './settle-all.ts';

/** Runs the deletion to its end. Throws what stopped it, after the row has got its reason. */
export async function deleteBackup(
  environment: ManagerEnvironment,
  context: RequestContext,
  backupId: string,
  run: OperationRun,
): Promise<void> {
  const { database, resources, options, cloud } = environment;
  const reading = AbortSignal.any([run.signal, AbortSignal.timeout(options.rowTimeoutMs)]);
  const backup = await persist(() => findBackup(database.sql, backupId), reading);
  if (backup === undefined) {
    environment.log.info({ backup: backupId }, 'the backup is gone already');
    return;
  }
  cloud.notify(backup, 'delete.start');
  if (backup.status !== 'deleting') {
    throw refusal(
      'InvalidBackup',
      `Delete_backup aborted, expected backup status deleting but got ${backup.status}.`,
      'invalid state',
    );
  }
  try {
    throwIfAborted(run.signal);
    await persist(() => requireNoDependents(environment, backup), reading);
    if (backup.objectCount === null) await persist(() => releaseSource(environment, backup), reading);
    requireWorking(environment, backup);
    requireOurs(backup, resources.store.service);
    if (await persist(() => isShared(environment, backup), reading)) {
      environment.log.warn(
        { backup: backupId },
        'its objects are left: they are those of another backup too',
      );
    } else await removeObjects(resources.store, backup, run.signal);
    await dropSnapshots(environment, backup, run.signal);
    if (backup.encryptionKeyId !== null) await cloud.keys.remove(backup.encryptionKeyId, run.signal);
    await endTemporaries(environment, context, backup);
    await removeRow(environment, backup);
  } catch (error) {
    throw await undo(environment, context, backup, error);
  }
  cloud.notify({ ...backup, status: 'deleted', deleted: true }, 'delete.end');
}

/** cinder-api has looked, but only among the backups of who asked: an imported parent has children elsewhere. */
async function requireNoDependents({ database }: ManagerEnvironment, { id }: Backup): Promise<void> {
  const children = await listBackups(database.sql, { parentId: id });
  const dependents = children.filter((child) => child.status !== 'deleting' && needsParent(child));
  if (dependents.length === 0) return;
  const names = dependents.slice(0, 3).map((each) => each.id);
  const reason = `Incremental backups exist for this backup: ${names.join(', ')}. Delete them first.`;
  throw new BackupError('state-invalid', reason, { details: { message: null, dependents: names } });
}

/** True if the objects are also those of another row, which they name: the last of the two takes them with it. */
async function isShared({ database }: ManagerEnvironment, backup: Backup): Promise<boolean> {
  return isForeign(backup) && (await isPlaceShared(database.sql, backup));
}

function requireWorking({ cloud }: ManagerEnvironment, { service }: Backup): void {
  if (service === null || cloud.isWorking()) return;
  throw refusal('InvalidBackup', 'Delete backup is aborted due to backup service is down.', 'service down');
}

function requireOurs({ service: made }: Backup, service: string): void {
  if (isOwnService(service, made)) return;
  throw refusal(
    'InvalidBackup',
    `Delete backup aborted, the backup service currently configured [${service}] is not the backup service that was used to create this backup [${made}].`,
    null,
  );
}

/** The backup's storage snapshot: removed if the agent can be reached; what is left then, a restart removes. */
async function dropSnapshots(
  environment: ManagerEnvironment,
  backup: Backup,
  signal: AbortSignal,
): Promise<void> {
  try {
    await dropSnapshotsOf(environment, backup, signal);
  } catch (err) {
    if (!isBackupError(err, 'agent-unavailable')) throw err;
    environment.log.warn(
      { backup: backup.id, err },
      'backup snapshot not removed: the next start tries again',
    );
  }
}

/** The row, its parent's count and its project's quota in one: Cinder loses what comes after a parent that is gone. */
async function removeRow({ database, clock, options }: ManagerEnvironment, backup: Backup): Promise<void> {
  const now = clock.now();
  const { quota } = options;
  const remove = () =>
    database.transaction(async (sql) => {
      if (quota !== null) await giveBackQuota(sql, backup, now, quota);
      await softDeleteBackup(sql, backup.id, now);
      const counted = backup.parentId !== null && backup.objectCount !== null;
      if (counted) await countDependent(sql, backup.parentId, -1, now);
    });
  await persist(remove, AbortSignal.timeout(options.rowTimeoutMs));
}

/** A drain leaves the row in `deleting`: the next start goes on. */
async function undo(
  environment: ManagerEnvironment,
  context: RequestContext,
  backup: Backup,
  error: unknown,
): Promise<unknown> {
  if (isBackupError(error, 'cancelled')) return error;
  const { database, clock, options } = environment;
  const signal = AbortSignal.timeout(options.rowTimeoutMs);
  const step = { from: ['deleting'], to: statusAfter(environment, backup, error) } as const;
  return settleAll(error, [
    async () => {
      const failReason = failReasonOf(error);
      await persist(() => moveBackup(database.sql, backup.id, step, { failReason }, clock.now()), signal);
    },
    () => tellFailure(environment, context, { verb: 'delete', backup }, error),
  ]);
}

/** As delete_backup leaves it: `error_deleting` while the service is down, else `error`; as it was if nothing was begun. */
function statusAfter({ cloud }: ManagerEnvironment, { objectCount }: Backup, error: unknown): BackupStatus {
  if (!isBackupError(error)) return 'error';
  if ('dependents' in error.details && objectCount !== null) return 'available';
  return error.details['message'] === 'service down' && !cloud.isWorking() ? 'error_deleting' : 'error';
}
