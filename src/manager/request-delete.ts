/** Asking for a deletion: what cinder-api does before the manager gets to work (cinder/backup/api.py, delete). */
import { getBackup, listBackups, moveBackup } from '../database/backups.ts';
import type { Backup, BackupStatus } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { ManagerEnvironment } from './environment.ts';

const deletable: readonly BackupStatus[] = ['available', 'error', 'error_deleting'];
const forciblyDeletable: readonly BackupStatus[] = [...deletable, 'creating', 'restoring', 'deleting'];

/**
 * Checks the request and takes the backup (`deleting`). `force` takes it in any status. `not-found`, and
 * `state-invalid` with the names of the backups that stand on it.
 */
export async function requestDelete(
  environment: ManagerEnvironment,
  context: RequestContext,
  request: { readonly backupId: string; readonly force: boolean },
): Promise<Backup> {
  const { database, clock, options } = environment;
  const now = clock.now();
  const backup = await getBackup(database.sql, request.backupId, context.projectId);
  await database.transaction(async (sql) => {
    const from = request.force ? forciblyDeletable : deletable;
    if (!from.some((status) => status === backup.status)) {
      throw new BackupError(
        'state-invalid',
        `Invalid backup: Backup status must be available or error, it is ${backup.status}.`,
      );
    }
    const dependents = (await listBackups(sql, { parentId: backup.id })).filter(needsParent);
    if (dependents.length > 0) {
      const names = dependents.map(({ id }) => id);
      throw new BackupError(
        'state-invalid',
        `Invalid backup: Incremental backups exist for this backup: ${shortList(names)}. Delete them first.`,
        { details: { dependents: names } },
      );
    }
    await moveBackup(sql, backup.id, { from, to: 'deleting' }, { host: options.host }, now);
  });
  return backup;
}

/** A child that was never finished, and is not being made either, has nothing that the parent's objects would be needed for. */
export function needsParent({ status, objectCount }: Backup): boolean {
  return objectCount !== null || status === 'creating' || status === 'available' || status === 'restoring';
}

function shortList(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(', ');
  return names.length <= 5 ? shown : `${shown} and ${names.length - 5} more`;
}
