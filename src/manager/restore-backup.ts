/**
 * Restores a backup: what BackupManager.restore_backup does (cinder/backup/manager.py). The row is `restoring` and
 * the volume `restoring-backup` when it starts; at the end the backup is `available` again, and the volume
 * `available`, or `error_restoring` if it failed, or `error` if it was cancelled.
 */
import { getBackup, moveBackup } from '../database/backups.ts';
import { insertFailureMessage } from '../database/messages.ts';
import { replaceGlanceMetadata } from '../database/volume-glance-metadata.ts';
import { listVolumeMetadata, replaceVolumeMetadata, setVolumeMetadata } from '../database/volume-metadata.ts';
import { getVolume, moveVolume } from '../database/volumes.ts';
import { chainLengthBytes } from '../layout/chain.ts';
import type { Backup } from '../model/backup.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import { volumeName } from '../model/names.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { Volume, VolumeStatus } from '../model/volume.ts';
import { runRestore } from '../pipeline/restore.ts';
import { loadChain, readLayers } from './chain.ts';
import type { ManagerEnvironment } from './environment.ts';
import type { OperationRun } from './operations.ts';
import { persist } from './row-step.ts';
import { settleAll } from './settle-all.ts';
import { restoredMeta } from './volume-meta.ts';

/** Runs the restore to its end. Throws what stopped it, after the statuses have been put right. */
export async function restoreBackup(
  environment: ManagerEnvironment,
  context: RequestContext,
  backupId: string,
  volumeId: string,
  run: OperationRun,
): Promise<void> {
  const { sql } = environment.database;
  try {
    const backup = await getBackup(sql, backupId);
    const volume = await getVolume(sql, volumeId);
    throwIfAborted(run.signal);
    requireStatuses(backup, volume);
    const volumeMeta = await transfer(environment, backup, volume, run);
    await finish(environment, backup, volume, volumeMeta);
  } catch (error) {
    throw await undo(environment, context, { backupId, volumeId }, error);
  }
}

function requireStatuses(backup: Backup, volume: Volume): void {
  if (volume.status !== 'restoring-backup' && volume.status !== 'creating') {
    throw new BackupError(
      'state-invalid',
      `Restore backup aborted, expected volume status restoring-backup,creating but got ${volume.status}.`,
    );
  }
  if (backup.status !== 'restoring') {
    throw new BackupError(
      'state-invalid',
      `Restore backup aborted: expected backup status restoring but got ${backup.status}.`,
    );
  }
}

/** Returns the newest layer's `volume_meta`. */
async function transfer(
  environment: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  { signal, progress }: OperationRun,
): Promise<string | null> {
  const { resources, database, storage } = environment;
  using held = await readLayers(resources, await loadChain(database.sql, backup), signal);
  const { layers } = held;
  const backend = storage.forHost(volume.host);
  const { size_bytes: targetBytes } = await backend.getVolume(volumeName(volume.id), signal);
  const neededBytes = chainLengthBytes(layers.map(({ metadata }) => metadata));
  if (targetBytes < neededBytes) {
    throw new BackupError(
      'state-invalid',
      `volume ${volume.id} has ${targetBytes} bytes, backup ${backup.id} needs ${neededBytes}: extend the volume, or restore into a new one`,
    );
  }
  const target = await backend.openTarget(volumeName(volume.id), targetBytes, signal);
  await runRestore(resources, { chain: layers, target, progress, signal });
  return layers.at(-1)?.metadata.volumeMeta ?? null;
}

async function finish(
  environment: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  volumeMeta: string | null,
): Promise<void> {
  const now = environment.clock.now();
  const meta = restoredMeta(volumeMeta, volume);
  await environment.database.transaction(async (sql) => {
    const before = (await listVolumeMetadata(sql, [volume.id])).get(volume.id)?.['src_backup_id'];
    if (meta.user !== undefined) await replaceVolumeMetadata(sql, volume.id, meta.user, now);
    if (meta.glance !== undefined) await replaceGlanceMetadata(sql, volume.id, meta.glance, now);
    if (backup.volumeId !== volume.id || (before !== undefined && before !== backup.id)) {
      await setVolumeMetadata(sql, volume.id, { src_backup_id: backup.id }, now);
    }
    const changes = { ...meta.base, ...(volume.status === 'creating' ? { launchedAt: now } : {}) };
    try {
      const step = { from: ['restoring-backup', 'creating'], to: 'available' } as const;
      await moveVolume(sql, volume.id, step, changes, now);
    } catch (error) {
      if (!isBackupError(error, 'stale-update', 'not-found')) throw error;
      environment.log.warn(
        { volume: volume.id, err: error },
        'restored volume left as somebody else moved it',
      );
    }
    await moveBackup(sql, backup.id, { from: ['restoring'], to: 'available' }, {}, now);
  });
}

async function undo(
  environment: ManagerEnvironment,
  context: RequestContext,
  { backupId, volumeId }: { readonly backupId: string; readonly volumeId: string },
  error: unknown,
): Promise<unknown> {
  const { database, clock, options } = environment;
  const signal = AbortSignal.timeout(options.cleanupTimeoutMs);
  const cancelled = isBackupError(error, 'cancelled');
  const { projectId, requestId } = context;
  const about = { verb: 'restore', backupId, projectId, requestId } as const;
  const to = cancelled ? 'error' : 'error_restoring';
  return settleAll(error, [
    () => persist(() => failRestoreTarget(environment, volumeId, to), signal),
    () => persist(() => giveBackRestored(environment, backupId), signal),
    async () => {
      if (!cancelled) await insertFailureMessage(database.sql, about, clock.now());
    },
  ]);
}

/** The volume of a restore that did not end well; it may have been taken out of our hands. */
export async function failRestoreTarget(
  { database, clock }: ManagerEnvironment,
  volumeId: string,
  to: VolumeStatus,
): Promise<void> {
  try {
    await moveVolume(database.sql, volumeId, { from: ['restoring-backup', 'creating'], to }, {}, clock.now());
  } catch (stale) {
    if (!isBackupError(stale, 'stale-update', 'not-found')) throw stale;
  }
}

/** The backup of a restore that has ended, unless somebody deletes it by now. */
export async function giveBackRestored(
  { database, clock }: ManagerEnvironment,
  backupId: string,
): Promise<void> {
  try {
    await moveBackup(database.sql, backupId, { from: ['restoring'], to: 'available' }, {}, clock.now());
  } catch (stale) {
    if (!isBackupError(stale, 'stale-update', 'not-found')) throw stale;
  }
}
