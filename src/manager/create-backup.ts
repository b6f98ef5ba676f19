/**
 * Creates a backup: what BackupManager.create_backup, continue_backup and _finish_backup do (cinder/backup/manager.py).
 * The row is `creating` and the volume (or the Cinder snapshot) `backing-up` when it starts.
 *
 * Order: where the objects will be is written into the row before the first of them; the snapshot; objects,
 * sha256file, metadata (the pipeline); then, in one transaction, the row `available`, the parent's count and the
 * volume's status. Whatever fails removes the objects and the snapshot and gives the volume back.
 */
import {
  countDependent,
  findBackup,
  getBackup,
  listBackups,
  moveBackup,
  updateBackup,
} from '../database/backups.ts';
import type { Sql } from '../database/database.ts';
import { insertFailureMessage } from '../database/messages.ts';
import { getSnapshot, moveSnapshot } from '../database/snapshots.ts';
import { findVolume, getVolume, moveVolume } from '../database/volumes.ts';
import { backupContainer, backupPrefix } from '../layout/names.ts';
import type { BaseSnapshot } from '../layout/metadata-document.ts';
import { failReasonOf, type Backup } from '../model/backup.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import { cinderSnapshotName, volumeName } from '../model/names.ts';
import type { RequestContext } from '../model/request-context.ts';
import { toGiB, type Volume } from '../model/volume.ts';
import { runBackup } from '../pipeline/backup.ts';
import type { BackupOutcome } from '../pipeline/jobs.ts';
import type { SnapshotInfo } from '../protocol/calls.ts';
import { removeObjects, requirePlace } from './backup-objects.ts';
import { dropSnapshotsOf, dropStaleSnapshots, takeBackupSnapshot } from './backup-snapshots.ts';
import { chooseWay, nextWay, type Way } from './choose-way.ts';
import type { ManagerEnvironment, StorageBackend } from './environment.ts';
import type { OperationRun } from './operations.ts';
import { persist } from './row-step.ts';
import { settleAll } from './settle-all.ts';
import { pythonTimeText, readVolumeMeta } from './volume-meta.ts';

/** Runs the backup to its end. Throws what stopped it, after everything has been put right. */
export async function createBackup(
  environment: ManagerEnvironment,
  context: RequestContext,
  backupId: string,
  run: OperationRun,
): Promise<void> {
  const { sql } = environment.database;
  let requested: Backup | undefined;
  try {
    requested = await getBackup(sql, backupId);
    requireCreating(requested);
    const volume = await getVolume(sql, requested.volumeId);
    throwIfAborted(run.signal);
    await requireSourceStatus(environment, requested, volume);
    const backend = environment.storage.forHost(volume.host);
    const backup = await settlePlace(environment, requested);
    const current = await takeSnapshot(backend, backup, run.signal);
    const { way, outcome } = await transfer(environment, backend, backup, current, run);
    await finish(environment, backup, volume, current, way, outcome);
  } catch (error) {
    const asked = { id: backupId, row: requested };
    throw await undo(environment, context, asked, deletedMeanwhile(error) ?? error);
  }
  await forgetOldSnapshots(environment, requested);
}

function requireCreating({ status }: Backup): void {
  if (status === 'deleting') throw new BackupError('cancelled', 'the backup is being deleted');
  requireStatus('backup', status, 'creating');
}

/** A backup that somebody began to delete was cancelled, whatever step noticed it first. */
function deletedMeanwhile(error: unknown): BackupError | undefined {
  const isLost = isBackupError(error, 'stale-update') && error.details['status'] === 'deleting';
  return isLost ? new BackupError('cancelled', 'the backup is being deleted', { cause: error }) : undefined;
}

function requireStatus(what: string, status: string, expected: string): void {
  if (status === expected) return;
  throw new BackupError(
    'state-invalid',
    `Create backup aborted, expected ${what} status ${expected} but got ${status}.`,
  );
}

async function requireSourceStatus(
  environment: ManagerEnvironment,
  { snapshotId }: Backup,
  volume: Volume,
): Promise<void> {
  if (snapshotId === null) return requireStatus('volume', volume.status, 'backing-up');
  const snapshot = await getSnapshot(environment.database.sql, snapshotId);
  requireStatus('snapshot', snapshot.status, 'backing-up');
}

/** Writes into the row where the objects are going to be, so that a cleaning up after a crash finds them. */
async function settlePlace(environment: ManagerEnvironment, backup: Backup): Promise<Backup> {
  const { clock, options, resources, database } = environment;
  const now = clock.now();
  const container = backupContainer(options.naming, backup.id, backup.container ?? options.container ?? null);
  const prefix = backupPrefix(options.naming, {
    volumeId: backup.volumeId,
    backupId: backup.id,
    at: now,
    availabilityZone: options.availabilityZone,
  });
  const changes = { container, prefix, service: resources.store.service, host: options.host };
  await updateBackup(database.sql, backup.id, 'creating', changes, now);
  return { ...backup, container, prefix };
}

async function takeSnapshot(
  backend: StorageBackend,
  backup: Backup,
  signal: AbortSignal,
): Promise<SnapshotInfo> {
  if (backup.snapshotId === null) return takeBackupSnapshot(backend, backup, signal);
  const name = cinderSnapshotName(backup.snapshotId);
  const { snapshots } = await backend.getVolume(volumeName(backup.volumeId), signal);
  const found = snapshots.find((snapshot) => snapshot.name === name);
  if (found !== undefined) return found;
  throw new BackupError(
    'not-found',
    `snapshot ${name} of ${volumeName(backup.volumeId)} is not on the storage`,
  );
}

/** Chooses the way and goes it; where it ends before its time, the next one. */
async function transfer(
  environment: ManagerEnvironment,
  backend: StorageBackend,
  backup: Backup,
  current: SnapshotInfo,
  run: OperationRun,
): Promise<{ way: Way; outcome: BackupOutcome }> {
  const { resources, options } = environment;
  const { signal, progress } = run;
  const onStorage = await backend.getVolume(volumeName(backup.volumeId), signal);
  const base: BaseSnapshot = {
    backend: backend.name,
    volumeName: onStorage.name,
    volumeIdentity: onStorage.identity,
    snapshotName: current.name,
    snapshotIdentity: current.identity,
  };
  const source = backend.openSource({
    volume: onStorage.name,
    snapshot: current.name,
    identity: current.identity,
    lengthBytes: current.size_bytes,
    blockSize: options.blockSize,
    mergeGapBytes: options.mergeGapBytes,
  });
  const volumeMeta = await readVolumeMeta(environment, backup.volumeId);
  const info = await backend.info(signal);
  const request = { backup, backend: backend.name, info, volume: onStorage, current };
  const place = requirePlace(backup);
  for (let way = await chooseWay(environment, request, signal); ;) {
    run.explain(way.mode, way.reason);
    const parentId = way.mode === 'full' ? null : backup.parentId;
    try {
      const outcome = await runBackup(resources, {
        place,
        head: {
          backupId: backup.id,
          volumeId: backup.volumeId,
          backupName: backup.name,
          backupDescription: backup.description,
          createdAt: pythonTimeText(backup.createdAt),
          parentId,
        },
        volumeMeta,
        source,
        codec: options.codec,
        objectBytes: options.objectBytes,
        mergeGapBytes: options.mergeGapBytes,
        way,
        base,
        progress,
        signal,
      });
      return { way, outcome };
    } catch (error) {
      throwIfAborted(signal);
      const next = nextWay(way, error);
      if (next === undefined) throw error;
      await removeObjects(resources.store, backup, signal);
      progress.plannedBytes = null;
      progress.doneBytes = 0;
      way = next;
    }
  }
}

/** The backup counts from here on. Its source may have been taken out of our hands: that is no reason to lose it. */
async function finish(
  environment: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  current: SnapshotInfo,
  way: Way,
  outcome: BackupOutcome,
): Promise<void> {
  const now = environment.clock.now();
  await environment.database.transaction(async (sql) => {
    const parentId = way.mode === 'full' ? null : backup.parentId;
    const sizeGiB = Math.max(toGiB(current.size_bytes), 1);
    const changes = { parentId, sizeGiB, objectCount: outcome.objectCount };
    await moveBackup(sql, backup.id, { from: ['creating'], to: 'available' }, changes, now);
    if (parentId !== null) await countDependent(sql, parentId, 1, now);
    try {
      await moveSource(sql, backup, volume, 'backing-up', now);
    } catch (error) {
      if (!isBackupError(error, 'stale-update', 'not-found')) throw error;
      environment.log.warn(
        { backup: backup.id, err: error },
        'source not given back: somebody else moved it',
      );
    }
  });
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
 * that is `available` all the same (its last commit went through, the answer did not) is left alone; so are the
 * objects of one whose row cannot be read, which may be such a one.
 */
async function undo(
  environment: ManagerEnvironment,
  context: RequestContext,
  asked: { readonly id: string; readonly row: Backup | undefined },
  error: unknown,
): Promise<unknown> {
  const { database, resources, options, clock } = environment;
  const signal = AbortSignal.timeout(options.cleanupTimeoutMs);
  const giveBack = (backup: Backup | undefined) => [
    async () => {
      if (backup !== undefined) await persist(() => releaseSource(environment, backup), signal);
    },
    () => persist(() => failBackup(environment, asked.id, failReasonOf(error)), signal),
  ];
  let backup: Backup | undefined;
  try {
    backup = await persist(() => findBackup(database.sql, asked.id), signal);
  } catch (unreadable) {
    return settleAll(error, [() => Promise.reject(unreadable), ...giveBack(asked.row)]);
  }
  if (backup?.status !== 'creating' && backup?.status !== 'deleting') return error;
  const found = backup;
  const about = {
    verb: 'create',
    backupId: found.id,
    projectId: found.projectId,
    requestId: context.requestId,
  } as const;
  return settleAll(error, [
    () => removeObjects(resources.store, found, signal),
    () => dropSnapshotsOf(environment, found, signal),
    ...giveBack(found),
    async () => {
      if (isBackupError(error, 'cancelled')) return;
      await insertFailureMessage(database.sql, about, clock.now());
    },
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
  try {
    await database.transaction(async (sql) => {
      await moveSource(sql, backup, volume, 'error_backing-up', clock.now());
      const making = await listBackups(sql, { volumeId: volume.id, status: 'creating' });
      const other = making.find(({ id, snapshotId }) => id !== backup.id && snapshotId === backup.snapshotId);
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

/** Removes the snapshots that the new backup makes needless. The backup stands without it: a failure is only told. */
async function forgetOldSnapshots(environment: ManagerEnvironment, { volumeId }: Backup): Promise<void> {
  const signal = AbortSignal.timeout(environment.options.cleanupTimeoutMs);
  try {
    const { host } = await getVolume(environment.database.sql, volumeId);
    await dropStaleSnapshots(environment, environment.storage.forHost(host), volumeId, signal);
  } catch (err) {
    environment.log.warn(
      { volume: volumeId, err },
      'old backup snapshots not removed: the next backup tries again',
    );
  }
}
