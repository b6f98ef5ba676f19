/**
 * reset_status (cinder/backup/manager.py): an administrator sets a backup's status by hand. On a backup that is restored it
 * cancels the restore, as Cinder's driver does when it sees the status change: the volume ends in `error`, the backup is
 * `available`. What nobody works on any more, but a row still holds, is given back with it. cinder-api sends the request to any
 * host that is up: the backup may be worked on by another one.
 *
 * Unlike Cinder's: what may have lost objects, or was never finished, becomes `available` only if the store has all of it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { findBackupEver, getBackup, moveBackup, readBackupState } from '../database/backups.ts';
import { isOtherBackupServiceUp } from '../database/services.ts';
import { failReasonOf, type Backup, type BackupStatus } from '../model/backup.ts';
import { BackupError, isBackupError } from '../model/errors.ts';
import { endTemporaries, releaseSource } from './end-backup.ts';
import type { ManagerEnvironment, RequestScope } from './environment.ts';
import type { Operations } from './operations.ts';
import { failRestoreTarget } from './restore-backup.ts';
import {
  checkedOutcome,
  requireOwn,
  requireResettable,
  writeReset,
  type ResetOutcome,
} from './reset-status.ts';
import { persist } from './row-step.ts';

/** Sets the status, and tells Ceilometer. `not-found`, `message-invalid`, `state-invalid` for a backup of another store. */
export async function takeReset(
  scope: RequestScope,
  operations: Operations,
  backupId: string,
  status: string,
): Promise<void> {
  const { environment, context } = scope;
  const { database, options, log, cloud } = environment;
  const to = statusOf(status);
  const rows = AbortSignal.timeout(options.rowTimeoutMs);
  const backup = await persist(() => getBackup(database.sql, backupId), rows);
  requireOwn(environment, backup);
  if (backup.service === null && !operations.isBusy(backupId)) {
    log.warn({ backup: backupId }, 'a backup that no service ever worked on keeps its status, as in Cinder');
    return;
  }
  if (!(await isSettledByOperation(scope, operations, backup, to))) {
    const reached = await persist(() => writeStatus(scope, backupId, to), rows);
    if (reached === 'error') await endTemporaries(environment, context, backup);
  }
  const reset = await persist(() => findBackupEver(database.sql, backupId), rows);
  cloud.notify(reset ?? backup, 'reset_status.end');
}

/**
 * True if an operation on the backup decides what it becomes: one that goes on, or one that the reset has cancelled. One whose
 * row has gone on already is only waited for.
 */
async function isSettledByOperation(
  { environment }: RequestScope,
  operations: Operations,
  { id, status }: Backup,
  to: ResetStatus,
): Promise<boolean> {
  const { log } = environment;
  const open = (['create', 'restore', 'delete'] as const).flatMap((verb) => operations.find(verb, id) ?? []);
  if (status === 'deleting' && operations.find('delete', id) !== undefined) {
    log.warn({ backup: id, to }, 'the backup is being deleted: the deletion goes on');
    return true;
  }
  if (status === 'creating' && to === 'available' && operations.find('create', id) !== undefined) {
    log.warn({ backup: id, to }, 'the backup is being made: it becomes available when it is whole');
    return true;
  }
  if (status === 'creating' && to === 'available' && (await isMadeElsewhere(environment, id))) {
    log.warn({ backup: id, to }, 'another host makes the backup: it becomes available when it is whole');
    return true;
  }
  await operations.cancelBackup(id, 'the status of the backup was reset');
  await Promise.all(open.map(({ done }) => done));
  return open.some((operation) => operations.get(operation.id)?.state === 'cancelled');
}

/** Who works on a backup has looked at its row by then. */
const watchesToWait = 3;

/** True if another host takes back the row that cinder-api has given to this one (row-watch.ts). */
async function isMadeElsewhere(
  { database, options, clock }: ManagerEnvironment,
  id: string,
): Promise<boolean> {
  const { host, serviceDownMs, watchIntervalMs } = options;
  const since = new Date(clock.now().getTime() - serviceDownMs);
  if (!(await isOtherBackupServiceUp(database.sql, host, since))) return false;
  await sleep(watchesToWait * watchIntervalMs);
  const found = await readBackupState(database.sql, id);
  return found.status === 'creating' && found.host !== host;
}

/** A deletion may have ended half-way in these. */
const doubtful: ReadonlySet<BackupStatus> = new Set(['deleting', 'error', 'error_deleting']);

/** Returns what it has become: `error`, with the reason, if it was to be `available` and is not whole. */
async function writeStatus(
  { environment }: RequestScope,
  id: string,
  wanted: ResetStatus,
): Promise<ResetStatus> {
  const { database, log, clock } = environment;
  const backup = await getBackup(database.sql, id);
  const from = requireResettable(backup);
  const isDoubtful = wanted === 'available' && (backup.objectCount === null || doubtful.has(from));
  const outcome = isDoubtful ? await outcomeOf(environment, backup) : {};
  if (backup.status === 'creating') await releaseSource(environment, backup);
  if (backup.status === 'restoring' && backup.restoreVolumeId !== null) {
    await failRestoreTarget(environment, backup.restoreVolumeId, 'error', id);
  }
  const to = outcome instanceof BackupError ? 'error' : wanted;
  if (outcome instanceof BackupError) {
    const failReason = failReasonOf(outcome);
    await moveBackup(database.sql, id, { from: [from], to: 'error' }, { failReason }, clock.now());
  } else await writeReset(environment, id, { from, to }, outcome);
  log.info({ backup: id, from, to }, 'status set by hand');
  return to;
}

/** What the store says of the backup, or why it cannot be available. Throws errors of the database. */
async function outcomeOf(
  environment: ManagerEnvironment,
  backup: Backup,
): Promise<ResetOutcome | BackupError> {
  const { log, options } = environment;
  try {
    return await checkedOutcome(environment, backup, AbortSignal.timeout(options.cleanupTimeoutMs));
  } catch (err) {
    if (!isBackupError(err) || err.code === 'database-unavailable') throw err;
    log.warn({ backup: backup.id, err }, 'a backup that is not whole cannot be set to available');
    return err;
  }
}

type ResetStatus = Extract<BackupStatus, 'available' | 'error'>;

function statusOf(status: string): ResetStatus {
  if (status === 'available' || status === 'error') return status;
  throw new BackupError(
    'message-invalid',
    `a backup cannot be reset to ${JSON.stringify(status.slice(0, 40))}: it must be available or error`,
  );
}
