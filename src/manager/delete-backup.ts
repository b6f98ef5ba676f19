/**
 * Deletes a backup: what BackupManager.delete_backup does (cinder/backup/manager.py). The row is `deleting` when it
 * starts. Objects go before the row; a deletion that fails ends in `error` and can be asked for again. What a backup that
 * was never finished still holds of its volume is given back first.
 */
import { countDependent, getBackup, moveBackup, softDeleteBackup } from '../database/backups.ts';
import { insertFailureMessage } from '../database/messages.ts';
import { failReasonOf, type Backup } from '../model/backup.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import { removeObjects } from './backup-objects.ts';
import { dropSnapshotsOf } from './backup-snapshots.ts';
import { releaseSource } from './create-backup.ts';
import type { ManagerEnvironment } from './environment.ts';
import type { OperationRun } from './operations.ts';
import { persist } from './row-step.ts';
import { settleAll } from './settle-all.ts';

/** Runs the deletion to its end. Throws what stopped it, after the row has got its reason. */
export async function deleteBackup(
  environment: ManagerEnvironment,
  context: RequestContext,
  backupId: string,
  run: OperationRun,
): Promise<void> {
  const { database, resources, clock, options } = environment;
  const reading = AbortSignal.any([run.signal, AbortSignal.timeout(options.cleanupTimeoutMs)]);
  const backup = await persist(() => getBackup(database.sql, backupId), reading);
  if (backup.status !== 'deleting') {
    throw new BackupError(
      'state-invalid',
      `Delete_backup aborted, expected backup status deleting but got ${backup.status}.`,
    );
  }
  try {
    throwIfAborted(run.signal);
    if (backup.objectCount === null) await releaseSource(environment, backup);
    requireOurs(backup, resources.store.service);
    await removeObjects(resources.store, backup, run.signal);
    await dropSnapshots(environment, backup, run.signal);
    await database.transaction(async (sql) => {
      const now = clock.now();
      await softDeleteBackup(sql, backup.id, now);
      const counted = backup.parentId !== null && backup.objectCount !== null;
      if (counted) await countDependent(sql, backup.parentId, -1, now);
    });
  } catch (error) {
    throw await undo(environment, context, backup, error);
  }
}

function requireOurs(backup: Backup, service: string): void {
  if (backup.service === null || service.startsWith(backup.service)) return;
  throw new BackupError(
    'state-invalid',
    `Delete backup aborted, the backup service currently configured [${service}] is not the backup service that was used to create this backup [${backup.service}].`,
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

/** A drain leaves the row in `deleting`: the next start goes on. */
async function undo(
  environment: ManagerEnvironment,
  context: RequestContext,
  backup: Backup,
  error: unknown,
): Promise<unknown> {
  if (isBackupError(error, 'cancelled')) return error;
  const { database, clock, options } = environment;
  const now = clock.now();
  const signal = AbortSignal.timeout(options.cleanupTimeoutMs);
  const about = {
    verb: 'delete',
    backupId: backup.id,
    projectId: backup.projectId,
    requestId: context.requestId,
  } as const;
  return settleAll(error, [
    async () => {
      const failReason = failReasonOf(error);
      const step = { from: ['deleting'], to: 'error' } as const;
      await persist(() => moveBackup(database.sql, backup.id, step, { failReason }, now), signal);
    },
    () => insertFailureMessage(database.sql, about, now),
  ]);
}
