/**
 * How the making of a backup ends: in one transaction, or undone. What it took is given back in either case: the volume or the
 * Cinder snapshot, objects and storage snapshot, temporary volumes.
 */
import { anySignal } from '../async/any-signal.ts';
import { countDependent, findBackupEver, getBackup, listBackups, moveBackup } from '../database/backups.ts';
import type { Sql } from '../database/database.ts';
import { moveSnapshot } from '../database/snapshots.ts';
import { findVolume, moveVolume } from '../database/volumes.ts';
import { failReasonOf, type Backup } from '../model/backup.ts';
import { BackupError, isBackupError } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { Volume } from '../model/volume.ts';
import { removeObjects } from './backup-objects.ts';
import { dropSnapshotsOf } from './backup-snapshots.ts';
import type { ManagerEnvironment, ManagerOptions } from './environment.ts';
import { tellFailure } from './failure-message.ts';
import { livingRows } from './living-rows.ts';
import { persist, persistAvailable } from './row-step.ts';
import { settleAll } from './settle-all.ts';
import { removeTemporaries } from './temporary-volumes.ts';

/**
 * The backup counts from here on. A database that is away is waited for: everything is stored. Its source may have been
 * taken out of our hands: that is no reason to lose it. Returns the row.
 */
export async function finishBackup(
  environment: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  changes: { readonly parentId: string | null; readonly sizeGiB: number; readonly objectCount: number },
  cancelled: AbortSignal,
): Promise<Backup> {
  const { database, clock, options } = environment;
  const signal = anySignal([cancelled, AbortSignal.timeout(options.rowTimeoutMs)]);
  const now = clock.now();
  const commit = () =>
    database.transaction((sql) => writeFinish(environment, sql, backup, volume, changes, now));
  await persistAvailable(commit, signal);
  return await persist(() => getBackup(database.sql, backup.id), signal);
}

async function writeFinish(
  { log }: ManagerEnvironment,
  sql: Sql,
  backup: Backup,
  volume: Volume,
  changes: { readonly parentId: string | null; readonly sizeGiB: number; readonly objectCount: number },
  now: Date,
): Promise<void> {
  await moveBackup(sql, backup.id, { from: ['creating'], to: 'available' }, changes, now);
  if (changes.parentId !== null) await countAtParent(sql, backup.id, changes.parentId, now);
  try {
    await moveSource(sql, backup, volume, 'backing-up', now);
  } catch (err) {
    if (!isBackupError(err, 'stale-update', 'not-found')) throw err;
    log.warn({ backup: backup.id, err }, 'source not given back: somebody else moved it');
  }
}

/** An increment is nothing without its parent, which somebody may have begun to delete while it was made. */
async function countAtParent(sql: Sql, id: string, parentId: string, now: Date): Promise<void> {
  if (await countDependent(sql, parentId, 1, now, ['available', 'restoring'])) return;
  throw new BackupError(
    'chain-broken',
    `backup ${parentId}, the parent of ${id}, was deleted or reset meanwhile: make a full backup`,
  );
}

/**
 * What `size` says of a backup that is found to need `neededGiB`. Where there is a quota, what was taken from it when the row was
 * made, which is the volume's size, as in Cinder (_finish_backup): just so much is given back when the row goes.
 */
export function recordedSize(
  { quota }: Pick<ManagerOptions, 'quota'>,
  reservedGiB: number,
  neededGiB: number,
): number {
  return quota === null ? Math.max(reservedGiB, neededGiB, 1) : reservedGiB;
}

async function moveSource(
  sql: Sql,
  { snapshotId }: Backup,
  volume: Pick<Volume, 'id' | 'previousStatus'>,
  previousStatus: string,
  now: Date,
): Promise<void> {
  if (snapshotId !== null) {
    await moveSnapshot(sql, snapshotId, { from: ['backing-up'], to: 'available' }, now);
  } else {
    const to = volume.previousStatus ?? 'available';
    await moveVolume(sql, volume.id, { from: ['backing-up'], to }, { previousStatus }, now);
  }
}

/**
 * Puts everything right after `error` and returns what is to be thrown: the error, followed by those of the
 * cleaning up. The rows come last, so that a crash in here leaves a row that a restart cleans up after. A backup
 * that is `available` all the same (its last commit went through, the answer did not, or a host of Python has set it so) is left
 * alone; so are the objects of one whose row cannot be read, which may be such a one, and of one that was not begun here.
 */
export async function undoBackup(
  environment: ManagerEnvironment,
  context: RequestContext,
  asked: { readonly id: string; readonly row: Backup | undefined; readonly began: boolean },
  error: unknown,
): Promise<unknown> {
  const { database, resources, options } = environment;
  const signal = AbortSignal.timeout(options.cleanupTimeoutMs);
  const rows = AbortSignal.timeout(options.rowTimeoutMs);
  const release = async (backup: Backup | undefined) => {
    if (backup !== undefined) await persist(() => releaseSource(environment, backup), rows);
  };
  const giveBack = (backup: Backup | undefined) => [
    () => release(backup),
    () => persist(() => failBackup(environment, asked.id, failReasonOf(error)), rows),
  ];
  let backup: Backup | undefined;
  try {
    backup = await persist(() => findBackupEver(database.sql, asked.id), rows);
  } catch (unreadable) {
    return settleAll(error, [() => Promise.reject(unreadable), ...giveBack(asked.row)]);
  }
  if (backup === undefined) return error;
  const found = backup;
  // What Python does by force it does without giving back what the backup was made of (cinder/backup/manager.py, reset_status).
  if (found.status === 'available' || found.status === 'restoring') {
    return settleAll(error, [() => release(found)]);
  }
  const isUnfinished = found.status === 'creating' || found.status === 'deleting';
  const isOurs = isUnfinished || (asked.began && found.objectCount === null);
  // Deleted by another host: what was stored after it had looked is nobody's.
  const isDeleted = found.deleted && asked.began;
  const removals =
    isOurs || isDeleted
      ? [
          () => removeObjects(resources.store, found, signal),
          () => dropSnapshotsOf(environment, found, signal),
        ]
      : [];
  if (found.deleted) return settleAll(error, [...removals, () => release(found)]);
  return settleAll(error, [
    ...removals,
    ...giveBack(found),
    () => tellFailure(environment, context, { verb: 'create', backup: found }, error),
  ]);
}

/** The row becomes `error`, unless somebody took it out of our hands to delete it. */
export async function failBackup(
  { database, clock }: ManagerEnvironment,
  backupId: string,
  failReason: string,
): Promise<void> {
  try {
    await moveBackup(
      database.sql,
      backupId,
      { from: ['creating'], to: 'error' },
      { failReason },
      clock.now(),
    );
  } catch (stale) {
    if (!isBackupError(stale, 'stale-update', 'not-found')) throw stale;
  }
}

/**
 * Gives back the volume, or the Cinder snapshot, that a backup was made of. It may have been taken out of our hands, or
 * be taken for another backup: then it stays as it is. Looked at after the step, under the lock that the step takes.
 */
export async function releaseSource(environment: ManagerEnvironment, backup: Backup): Promise<void> {
  const { database, clock } = environment;
  const volume = await findVolume(database.sql, backup.volumeId);
  if (volume === undefined) return;
  const now = clock.now();
  try {
    await database.transaction(async (sql) => {
      await moveSource(sql, backup, volume, 'error_backing-up', now);
      const making = await listBackups(sql, { volumeId: volume.id, status: 'creating' });
      const others = making.filter((each) => each.id !== backup.id && each.snapshotId === backup.snapshotId);
      const [other] = await livingRows(environment, sql, others, now);
      if (other === undefined) return;
      throw new BackupError(
        'stale-update',
        `backup ${other.id} is being made of what ${backup.id} was made of`,
      );
    });
  } catch (stale) {
    if (!isBackupError(stale, 'stale-update', 'not-found')) throw stale;
  }
}

/** The temporary volumes of a backup that has ended, whichever way. What cannot be removed is told to the user, and logged. */
export async function endTemporaries(
  environment: ManagerEnvironment,
  context: RequestContext,
  backup: Pick<Backup, 'id' | 'projectId'>,
): Promise<void> {
  const signal = AbortSignal.timeout(environment.options.cleanupTimeoutMs);
  try {
    await removeTemporaries(environment, backup.id, signal);
  } catch (err) {
    environment.log.error(
      { backup: backup.id, err },
      'temporary volumes not removed: the next start tries again',
    );
    const told = new BackupError('state-invalid', 'temporary volumes are left', {
      details: { message: 'cleanup' },
    });
    await tellFailure(environment, context, { verb: 'create', backup }, told);
  }
}
