/**
 * Creates a backup: what BackupManager.create_backup, continue_backup and _finish_backup do (cinder/backup/manager.py).
 * The row is `creating` and the volume (or the Cinder snapshot) `backing-up` when it starts.
 *
 * Order: where the objects will be is written into the row before the first of them; the snapshot; objects,
 * sha256file, metadata (the pipeline); then, in one transaction, the row `available`, the parent's count and the
 * volume's status. Whatever fails removes the objects and the snapshot and gives the volume back.
 */
import { anySignal } from '../async/any-signal.ts';
import { both } from '../async/both.ts';
import { findBackupEver, getBackup, updateBackup } from '../database/backups.ts';
import { getSnapshot } from '../database/snapshots.ts';
import { getVolume } from '../database/volumes.ts';
import { backupContainer, backupPrefix } from '../layout/names.ts';
import type { BaseSnapshot } from '../layout/metadata-document.ts';
import type { Backup } from '../model/backup.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import { cinderSnapshotName } from '../model/names.ts';
import type { RequestContext } from '../model/request-context.ts';
import { nameOnStorage, toGiB, type Volume } from '../model/volume.ts';
import { runBackup } from '../pipeline/backup.ts';
import type { BackupOutcome } from '../pipeline/jobs.ts';
import type { SnapshotInfo } from '../protocol/calls.ts';
import { removeObjects, requirePlace } from './backup-objects.ts';
import { dropStaleSnapshots, takeBackupSnapshot } from './backup-snapshots.ts';
import { chooseWay, examineParent, nextWay, type Way } from './choose-way.ts';
import { endTemporaries, finishBackup, recordedSize, undoBackup } from './end-backup.ts';
import type { ManagerEnvironment, StorageBackend } from './environment.ts';
import { notifyProgress } from './notify-progress.ts';
import type { OperationRun } from './operations.ts';
import { refusal } from './refusal.ts';
import { persist } from './row-step.ts';
import { watchRow } from './row-watch.ts';
import { settleAll } from './settle-all.ts';
import { pythonTimeText, readVolumeMeta } from './volume-meta.ts';

/** Runs the backup to its end. Throws what stopped it, after everything has been put right. */
export async function createBackup(
  environment: ManagerEnvironment,
  context: RequestContext,
  backupId: string,
  run: OperationRun,
): Promise<void> {
  const { database, cloud, options } = environment;
  let requested: Backup | undefined;
  let began = false;
  try {
    const reading = anySignal([run.signal, AbortSignal.timeout(options.rowTimeoutMs)]);
    const asked = await persist(() => getBackup(database.sql, backupId), reading);
    requested = asked;
    cloud.notify(asked, 'create.start');
    requireCreating(asked);
    throwIfAborted(run.signal);
    began = true;
    const volume = await persist(() => requireSource(environment, asked), reading);
    const placed = await persist(() => settlePlace(environment, asked), reading);
    const backup = await keepKey(environment, placed, volume, run.signal);
    const { current, way, outcome } = await transfer(environment, backup, volume, run);
    const parentId = way.mode === 'full' ? null : backup.parentId;
    const sizeGiB = recordedSize(options, backup.sizeGiB, toGiB(current.size_bytes));
    const changes = { parentId, sizeGiB, objectCount: outcome.objectCount };
    const finished = await finishBackup(environment, backup, volume, changes, run.signal);
    cloud.notify(finished, 'create.end');
  } catch (error) {
    const asked = { id: backupId, row: requested, began };
    const failure = await undoBackup(environment, context, asked, deletedMeanwhile(error) ?? error);
    if (requested !== undefined) await endTemporaries(environment, context, requested);
    if (began) await tellAborted(environment, backupId);
    throw failure;
  }
  await endTemporaries(environment, context, requested);
  const { volumeId } = requested;
  run.leave((signal) => forgetOldSnapshots(environment, volumeId, signal));
}

/** One that was deleted while it was made has an end, one that failed has none (_finish_backup). */
async function tellAborted(
  { database, cloud, log, options }: ManagerEnvironment,
  backupId: string,
): Promise<void> {
  const signal = AbortSignal.timeout(options.rowTimeoutMs);
  try {
    const row = await persist(() => findBackupEver(database.sql, backupId), signal);
    if (row?.status === 'deleting' || row?.status === 'deleted') cloud.notify(row, 'create.end');
  } catch (err) {
    log.warn({ backup: backupId, err }, 'the end of a backup that is deleted was not notified');
  }
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

function requireStatus(what: 'backup' | 'volume' | 'snapshot', status: string, expected: string): void {
  if (status === expected) return;
  const classes = { backup: 'InvalidBackup', volume: 'InvalidVolume', snapshot: 'InvalidSnapshot' } as const;
  throw refusal(
    classes[what],
    `Create backup aborted, expected ${what} status ${expected} but got ${status}.`,
    what === 'backup' ? 'invalid state' : null,
  );
}

/** The checks of create_backup on what is backed up. */
async function requireSource(
  { database, cloud }: ManagerEnvironment,
  { volumeId, snapshotId }: Backup,
): Promise<Volume> {
  const volume = await getVolume(database.sql, volumeId);
  if (snapshotId === null) requireStatus('volume', volume.status, 'backing-up');
  else requireStatus('snapshot', (await getSnapshot(database.sql, snapshotId)).status, 'backing-up');
  if (cloud.isWorking()) return volume;
  const reason = 'Create backup aborted due to backup service is down.';
  throw refusal('InvalidBackup', reason, 'service down');
}

/** An encrypted volume's backup has a key of its own, so that it outlives the volume's (_start_backup). */
async function keepKey(
  { cloud, database, clock, options }: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  signal: AbortSignal,
): Promise<Backup> {
  if (volume.encryptionKeyId === null || backup.encryptionKeyId !== null) return backup;
  const encryptionKeyId = await cloud.keys.clone(volume.encryptionKeyId, signal);
  const write = () => updateBackup(database.sql, backup.id, 'creating', { encryptionKeyId }, clock.now());
  try {
    await persist(write, anySignal([signal, AbortSignal.timeout(options.rowTimeoutMs)]));
  } catch (error) {
    const cleanup = AbortSignal.timeout(options.cleanupTimeoutMs);
    throw await settleAll(error, [() => cloud.keys.remove(encryptionKeyId, cleanup)]);
  }
  return { ...backup, encryptionKeyId };
}

/**
 * Writes into the row where the objects are going to be, so that a cleaning up after a crash finds them, and the zone that the request
 * left out (create_backup since 2024.1).
 */
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
  const availabilityZone = backup.availabilityZone ?? options.availabilityZone;
  const { service } = resources.store;
  const changes = { container, prefix, service, host: options.host, availabilityZone };
  await updateBackup(database.sql, backup.id, 'creating', changes, now);
  return { ...backup, container, prefix, availabilityZone };
}

async function takeSnapshot(
  backend: StorageBackend,
  backup: Backup,
  volume: Volume,
  signal: AbortSignal,
): Promise<SnapshotInfo> {
  if (backup.snapshotId === null) return takeBackupSnapshot(backend, backup, volume, signal);
  const name = cinderSnapshotName(backup.snapshotId);
  const { snapshots } = await backend.getVolume(nameOnStorage(volume), signal);
  const found = snapshots.find((snapshot) => snapshot.name === name);
  if (found !== undefined) return found;
  throw new BackupError('not-found', `snapshot ${name} of ${nameOnStorage(volume)} is not on the storage`);
}

type Transferred = { readonly current: SnapshotInfo; readonly way: Way; readonly outcome: BackupOutcome };

/** Takes the snapshot, chooses the way and goes it; where it ends before its time, the next one. */
async function transfer(
  environment: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  run: OperationRun,
): Promise<Transferred> {
  const { resources, options, storage } = environment;
  const { progress } = run;
  using watch = watchRow(environment, backup.id, 'creating', run.signal);
  const { signal } = watch;
  const backend = storage.forHost(volume.host);
  const [{ current, onStorage, info }, parent] = await both(
    signal,
    async (step) => {
      const [taken, told] = await both(
        step,
        (inner) => takeSnapshot(backend, backup, volume, inner),
        (inner) => backend.info(inner),
      );
      const found = await backend.getVolume(nameOnStorage(volume), step);
      return { current: taken, info: told, onStorage: found };
    },
    (step) => examineParent(environment, backup, step),
  );
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
  const rows = anySignal([signal, AbortSignal.timeout(options.rowTimeoutMs)]);
  const volumeMeta = await persist(() => readVolumeMeta(environment, backup.volumeId), rows);
  const { keepSnapshots } = options;
  const request = { backend: backend.name, info, volume: onStorage, current, keepSnapshots };
  const place = requirePlace(backup);
  using told = notifyProgress(environment, backup, progress);
  for (let way = chooseWay(request, parent); ;) {
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
      told.finished();
      return { current, way, outcome };
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

/** Removes the snapshots that the new backup makes needless. The backup stands without it: a failure is only told. */
async function forgetOldSnapshots(
  environment: ManagerEnvironment,
  volumeId: string,
  ending: AbortSignal,
): Promise<void> {
  const signal = anySignal([ending, AbortSignal.timeout(environment.options.cleanupTimeoutMs)]);
  try {
    const volume = await getVolume(environment.database.sql, volumeId);
    await dropStaleSnapshots(environment, environment.storage.forHost(volume.host), volume, signal);
  } catch (err) {
    environment.log.warn(
      { volume: volumeId, err },
      'old backup snapshots not removed: the next backup tries again',
    );
  }
}
