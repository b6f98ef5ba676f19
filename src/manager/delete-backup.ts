/**
 * Deletes a backup: what BackupManager.delete_backup does (cinder/backup/manager.py). The row is `deleting` when it
 * starts. Objects go before the row; a deletion that fails ends in `error` and can be asked for again. What a backup that
 * was never finished still holds of its volume is given back first.
 *
 * Invariant: a backup of which something may be gone never stays `available`, whoever set it so meanwhile.
 */
import { anySignal } from '../async/any-signal.ts';
import {
  countDependent,
  findBackup,
  isPlaceShared,
  listBackups,
  moveBackup,
  softDeleteBackup,
  updateBackup,
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
import { checkedOutcome } from './reset-status.ts';
import { persist } from './row-step.ts';
import { watchRow } from './row-watch.ts';
import { settleAll } from './settle-all.ts';

/** Runs the deletion to its end. Throws what stopped it, after the row has got its reason. */
export async function deleteBackup(
  environment: ManagerEnvironment,
  context: RequestContext,
  backupId: string,
  run: OperationRun,
): Promise<void> {
  const { database, resources, options, cloud } = environment;
  const reading = anySignal([run.signal, AbortSignal.timeout(options.rowTimeoutMs)]);
  const backup = await persist(() => findBackup(database.sql, backupId), reading);
  if (backup === undefined) {
    environment.log.info({ backup: backupId }, 'the backup is gone already');
    return;
  }
  cloud.notify(backup, 'delete.start');
  if (backup.status !== 'deleting') {
    const refused = refusal(
      'InvalidBackup',
      `Delete_backup aborted, expected backup status deleting but got ${backup.status}.`,
      'invalid state',
    );
    await tellFailure(environment, context, { verb: 'delete', backup }, refused);
    throw refused;
  }
  using watch = watchRow(environment, backupId, 'deleting', run.signal);
  const { signal } = watch;
  let hasBegun = false;
  try {
    throwIfAborted(signal);
    await persist(() => requireNoDependents(environment, backup), reading);
    if (backup.objectCount === null) await persist(() => releaseSource(environment, backup), reading);
    requireWorking(environment, backup);
    requireOurs(backup, resources.store.service);
    if (await persist(() => isShared(environment, backup), reading)) {
      environment.log.warn(
        { backup: backupId },
        'its objects are left: they are those of another backup too',
      );
    } else {
      throwIfAborted(signal);
      hasBegun = true;
      await removeObjects(resources.store, backup, signal);
    }
    await dropSnapshots(environment, backup, signal);
    if (backup.encryptionKeyId !== null) {
      hasBegun = true;
      await cloud.keys.remove(backup.encryptionKeyId, signal);
      await persist(() => forgetKey(environment, backupId), AbortSignal.timeout(options.rowTimeoutMs));
    }
    await endTemporaries(environment, context, backup);
    await removeRow(environment, backup);
  } catch (error) {
    throw await undo(environment, context, { backup, hasBegun }, error);
  }
  cloud.notify({ ...backup, status: 'deleted', deleted: true }, 'delete.end');
}

async function forgetKey({ database, clock }: ManagerEnvironment, backupId: string): Promise<void> {
  await updateBackup(database.sql, backupId, 'deleting', { encryptionKeyId: null }, clock.now());
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
  if (service === null || cloud.hasWorked()) return;
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

/** The backup's storage snapshot: what cannot be removed does not keep a backup whose objects are gone; a restart tries again. */
async function dropSnapshots(
  environment: ManagerEnvironment,
  backup: Backup,
  signal: AbortSignal,
): Promise<void> {
  try {
    await dropSnapshotsOf(environment, backup, signal);
  } catch (err) {
    if (isBackupError(err, 'cancelled')) throw err;
    throwIfAborted(signal);
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

/**
 * A drain leaves the row in `deleting`: the next start goes on. So does who took the row, unless it was to keep a backup of which
 * something may be gone.
 */
async function undo(
  environment: ManagerEnvironment,
  context: RequestContext,
  { backup, hasBegun }: { readonly backup: Backup; readonly hasBegun: boolean },
  error: unknown,
): Promise<unknown> {
  const isCancelled = isBackupError(error, 'cancelled');
  if (isCancelled && !hasBegun) return error;
  const { database, clock, options } = environment;
  const signal = AbortSignal.timeout(options.rowTimeoutMs);
  const kept: readonly BackupStatus[] = hasBegun ? ['available', 'error'] : [];
  const from: readonly BackupStatus[] = isCancelled ? kept : ['deleting', ...kept];
  const isTaken = isCancelled || isBackupError(error, 'stale-update');
  const failReason = isTaken
    ? 'Its deletion had begun when its status was set: delete it again.'
    : failReasonOf(error);
  return settleAll(error, [
    async () => {
      const to = await statusAfter(environment, backup, error);
      const move = () => moveBackup(database.sql, backup.id, { from, to }, { failReason }, clock.now());
      await persist(move, signal).catch((stale: unknown) => {
        if (!isTaken || !isBackupError(stale, 'stale-update', 'not-found')) throw stale;
      });
    },
    () => tellFailure(environment, context, { verb: 'delete', backup }, error),
  ]);
}

/**
 * As delete_backup leaves it: `error_deleting` if the store has not worked yet, else `error`. One that was refused because others
 * stand on it is `available` if it is whole: an earlier deletion may have ended half-way.
 */
async function statusAfter(
  environment: ManagerEnvironment,
  backup: Backup,
  error: unknown,
): Promise<'available' | 'error' | 'error_deleting'> {
  const { cloud, options, log } = environment;
  if (!isBackupError(error)) return 'error';
  if ('dependents' in error.details && backup.objectCount !== null) {
    try {
      await checkedOutcome(environment, backup, AbortSignal.timeout(options.cleanupTimeoutMs));
      return 'available';
    } catch (err) {
      log.warn({ backup: backup.id, err }, 'a backup that others stand on is not known to be whole');
      return 'error';
    }
  }
  return error.details['message'] === 'service down' && !cloud.hasWorked() ? 'error_deleting' : 'error';
}
