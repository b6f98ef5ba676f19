/**
 * Puts right what an earlier process left: what BackupManager.init_host does (_cleanup_incomplete_backup_operations,
 * cinder/backup/manager.py), and the objects and snapshots that Cinder leaves behind. Called once, before the
 * first request. One backup that cannot be put right does not keep the others from it, nor the service from starting.
 *
 *   creating   objects and snapshot removed, volume given back, backup `error`
 *   restoring  volume `error_restoring`, backup `available`
 *   deleting   goes on as an operation
 */
import { listBackups } from '../database/backups.ts';
import { registerBackupService } from '../database/services.ts';
import type { Backup } from '../model/backup.ts';
import { isBackupError, throwIfAborted } from '../model/errors.ts';
import { volumeNamePattern } from '../model/names.ts';
import { removeObjects } from './backup-objects.ts';
import { dropSnapshotsOf, dropStaleSnapshots } from './backup-snapshots.ts';
import { failBackup, releaseSource } from './create-backup.ts';
import type { ManagerEnvironment, StorageBackend } from './environment.ts';
import { failRestoreTarget, giveBackRestored } from './restore-backup.ts';

const interrupted = 'incomplete backup reset on manager restart';

export type Reconciled = {
  readonly reset: number;
  /** Backups whose deletion has to go on. */
  readonly deleting: readonly Backup[];
  readonly droppedSnapshots: number;
};

/** Reconciles rows, store and storage. Throws only `cancelled` and errors of the database. */
export async function reconcile(environment: ManagerEnvironment, signal: AbortSignal): Promise<Reconciled> {
  const { database, options, log, clock } = environment;
  const { host } = options;
  await registerBackupService(database.sql, host, options.availabilityZone, clock.now());
  let reset = 0;
  const deleting: Backup[] = [];
  for (const status of ['creating', 'restoring', 'deleting'] as const) {
    for (const backup of await listBackups(database.sql, { host, status })) {
      throwIfAborted(signal);
      log.info({ backup: backup.id, status }, 'backup was interrupted: putting it right');
      if (status === 'deleting') deleting.push(backup);
      else if (status === 'creating') await endCreating(environment, backup, signal);
      else await endRestoring(environment, backup);
      if (status !== 'deleting') reset += 1;
    }
  }
  const droppedSnapshots = await dropOrphans(environment, signal);
  return { reset, deleting, droppedSnapshots };
}

async function endCreating(
  environment: ManagerEnvironment,
  backup: Backup,
  signal: AbortSignal,
): Promise<void> {
  const { resources, log } = environment;
  const attempt = async (what: string, work: () => Promise<void>) => {
    try {
      await work();
    } catch (err) {
      throwIfAborted(signal);
      log.error({ backup: backup.id, err }, `${what} of an interrupted backup not removed`);
    }
  };
  await attempt('objects', () => removeObjects(resources.store, backup, signal));
  await attempt('snapshot', () => dropSnapshotsOf(environment, backup, signal));
  await releaseSource(environment, backup);
  await failBackup(environment, backup.id, interrupted);
}

async function endRestoring(environment: ManagerEnvironment, backup: Backup): Promise<void> {
  if (backup.restoreVolumeId !== null) {
    await failRestoreTarget(environment, backup.restoreVolumeId, 'error_restoring');
  }
  await giveBackRestored(environment, backup.id);
}

/**
 * Removes the snapshots of backups that this database knows and no longer needs, also of volumes that are gone; unknown
 * ones belong to somebody else. What is wrong with one volume does not keep the others from it.
 */
async function dropOrphans(environment: ManagerEnvironment, signal: AbortSignal): Promise<number> {
  const { storage, log } = environment;
  let count = 0;
  for (const backend of storage.all()) {
    for (const volumeId of await listForOrphans(environment, backend, signal)) {
      try {
        const dropped = await dropStaleSnapshots(environment, backend, volumeId, signal);
        if (dropped.length > 0)
          log.info({ volume: volumeId, snapshots: dropped }, 'needless backup snapshots removed');
        count += dropped.length;
      } catch (err) {
        throwIfAborted(signal);
        log.error({ volume: volumeId, err }, 'backup snapshots of this volume not looked through');
        if (isBackupError(err, 'agent-unavailable')) break;
      }
    }
  }
  return count;
}

async function listForOrphans(
  { log }: ManagerEnvironment,
  backend: StorageBackend,
  signal: AbortSignal,
): Promise<readonly string[]> {
  try {
    const { volumes, gone } = await backend.listVolumes(signal);
    const names = [...volumes.map(({ name }) => name), ...gone];
    return names.flatMap((name) => volumeNamePattern.exec(name)?.[1] ?? []);
  } catch (err) {
    throwIfAborted(signal);
    log.error({ backend: backend.name, err }, 'backup snapshots of this backend not looked through');
    return [];
  }
}
