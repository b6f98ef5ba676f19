/**
 * continue_backup: cinder-volume has made ready what a backup of Python's is to be read from (cinder/backup/manager.py,
 * _start_backup). This service asks for nothing of the kind, so that such a request was meant for a cinder-backup that it took
 * over from: the backup is made here from its beginning, in our way, and what was made for it goes when that has ended.
 */
import { findBackup } from '../database/backups.ts';
import { endTemporaries } from './end-backup.ts';
import type { RequestScope } from './environment.ts';
import type { Operations } from './operations.ts';
import { persist } from './row-step.ts';

/**
 * Has `create` called if the backup still waits to be made; else removes what was made for it. While it is made here or deleted there
 * is nothing to do: the end of either removes that too.
 */
export async function takeContinue(
  { environment, context }: RequestScope,
  operations: Pick<Operations, 'find'>,
  backupId: string,
  create: () => void,
): Promise<void> {
  const { database, options, log } = environment;
  if (
    operations.find('create', backupId) !== undefined ||
    operations.find('delete', backupId) !== undefined
  ) {
    log.info({ backup: backupId }, 'a backup that cinder-backup began is worked on here already');
    return;
  }
  const signal = AbortSignal.timeout(options.rowTimeoutMs);
  const backup = await persist(() => findBackup(database.sql, backupId), signal);
  if (backup?.status === 'creating') {
    log.info({ backup: backupId }, 'a backup that cinder-backup began is made here from its beginning');
    return create();
  }
  log.warn(
    { backup: backupId, status: backup?.status ?? 'deleted' },
    'a backup that cinder-backup began is not to be made any more',
  );
  const { projectId } = backup ?? context;
  await endTemporaries(environment, context, { id: backupId, projectId });
}
