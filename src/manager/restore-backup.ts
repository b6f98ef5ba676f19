/**
 * Restores a backup: what BackupManager.restore_backup does (cinder/backup/manager.py). The row is `restoring` and
 * the volume `restoring-backup` when it starts; at the end the backup is `available` again, and the volume
 * `available`, or `error_restoring` if it failed, or `error` if it was cancelled or never begun.
 *
 * `volume_is_new` of RPC 2.4 makes no difference: what Python leaves out of a new volume, all-zero pieces, is wrong where an
 * older layer has data there.
 */
import { anySignal } from '../async/any-signal.ts';
import { findBackup, getBackup, listBackups, moveBackup } from '../database/backups.ts';
import type { Sql } from '../database/database.ts';
import { replaceGlanceMetadata } from '../database/volume-glance-metadata.ts';
import { listVolumeMetadata, replaceVolumeMetadata, setVolumeMetadata } from '../database/volume-metadata.ts';
import { getVolume, lockVolume, moveVolume } from '../database/volumes.ts';
import { chainLengthBytes } from '../layout/chain.ts';
import type { Backup } from '../model/backup.ts';
import { isOwnService } from '../model/driver-class.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import { nameOnStorage, type Volume, type VolumeStatus } from '../model/volume.ts';
import { runRestore } from '../pipeline/restore.ts';
import { loadChain, readLayers, requireObjects } from './chain.ts';
import type { ManagerEnvironment } from './environment.ts';
import { tellFailure } from './failure-message.ts';
import { livingRows } from './living-rows.ts';
import type { OperationRun } from './operations.ts';
import { refusal } from './refusal.ts';
import { restoreKey } from './restore-key.ts';
import { persist, persistAvailable } from './row-step.ts';
import { watchRow } from './row-watch.ts';
import { settleAll } from './settle-all.ts';
import { planRestoredMeta, type RestoredMeta } from './volume-meta.ts';

/** Runs the restore to its end. Throws what stopped it, after the statuses have been put right. */
export async function restoreBackup(
  environment: ManagerEnvironment,
  context: RequestContext,
  backupId: string,
  volumeId: string,
  run: OperationRun,
): Promise<void> {
  const { database, cloud, options, resources } = environment;
  const { sql } = database;
  const asked = { backupId, volumeId, projectId: context.projectId };
  try {
    const rows = anySignal([run.signal, AbortSignal.timeout(options.rowTimeoutMs)]);
    const backup = await persist(() => getBackup(sql, backupId), rows);
    asked.projectId = backup.projectId;
    const volume = await persist(() => getVolume(sql, volumeId), rows);
    cloud.notify(backup, 'restore.start');
    throwIfAborted(run.signal);
    requireTaken(volume);
    requireRestoring(backup, volumeId);
    requireOurs(backup, resources.store.service);
    await persist(() => requireNoRival(environment, backup, volumeId), rows);
    const meta = await transfer(environment, backup, volume, run);
    await restoreKey(environment, backup, volume, meta, run.signal);
    await finish(environment, backup, volume, meta, run.signal);
  } catch (error) {
    const failure = await undo(environment, context, asked, error);
    if (isBackupError(error, 'cancelled')) await tellEnd(environment, backupId);
    throw failure;
  }
  await tellEnd(environment, backupId);
}

/** What the volume's status is while it is ours to write. */
const targetStatuses = ['restoring-backup', 'creating'] as const satisfies readonly VolumeStatus[];

function requireTaken({ status }: Volume): void {
  if (targetStatuses.some((each) => each === status)) return;
  throw refusal(
    'InvalidVolume',
    `Restore backup aborted, expected volume status restoring-backup,creating but got ${status}.`,
    'volume state',
  );
}

/** Whoever asks for a restore writes into the row to which volume, before he sends the request (cinder/backup/api.py). */
function requireRestoring(backup: Backup, volumeId: string): void {
  if (backup.status !== 'restoring') {
    throw refusal(
      'InvalidBackup',
      `Restore backup aborted: expected backup status restoring but got ${backup.status}.`,
      'invalid state',
    );
  }
  if (backup.restoreVolumeId === volumeId) return;
  throw refusal(
    'InvalidBackup',
    `Restore backup aborted: backup ${backup.id} is being restored to volume ${backup.restoreVolumeId ?? 'None'}, not to ${volumeId}.`,
    'invalid state',
  );
}

/** cinder-api lets two restores to one volume pass that are asked for at once: the lower id has it. */
async function requireNoRival(
  environment: ManagerEnvironment,
  { id }: Backup,
  volumeId: string,
): Promise<void> {
  const { sql } = environment.database;
  const restores = await listBackups(sql, { status: 'restoring', restoreVolumeId: volumeId });
  const earlier = restores.filter((each) => each.id < id);
  const [rival] = await livingRows(environment, sql, earlier, environment.clock.now());
  if (rival === undefined) return;
  throw refusal(
    'InvalidVolume',
    `Restore backup aborted: backup ${rival.id} is being restored to volume ${volumeId} too. Wait for its end, or reset its status.`,
    'volume state',
  );
}

function requireOurs(backup: Backup, service: string): void {
  if (isOwnService(service, backup.service)) return;
  throw refusal(
    'InvalidBackup',
    `Restore backup aborted, the backup service currently configured [${service}] is not the backup service that was used to create this backup [${backup.service}].`,
    null,
  );
}

/** Returns what the layers give back to the volume's rows: known before the first byte is written. */
async function transfer(
  environment: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  run: OperationRun,
): Promise<RestoredMeta> {
  const { resources, database, storage, options } = environment;
  const { sql } = database;
  const watched = { id: volume.id, statuses: targetStatuses };
  using watch = watchRow(environment, backup.id, 'restoring', run.signal, watched);
  const { signal } = watch;
  const rows = anySignal([signal, AbortSignal.timeout(options.rowTimeoutMs)]);
  const chain = await persist(() => loadChain(sql, backup), rows);
  using held = await readLayers(resources, chain, signal);
  const { layers } = held;
  const backend = storage.forHost(volume.host);
  const { size_bytes: targetBytes } = await backend.getVolume(nameOnStorage(volume), signal);
  const neededBytes = chainLengthBytes(layers.map(({ metadata }) => metadata));
  if (targetBytes < neededBytes) {
    throw new BackupError(
      'state-invalid',
      `volume ${volume.id} has ${targetBytes} bytes, backup ${backup.id} needs ${neededBytes}: extend the volume, or restore into a new one`,
    );
  }
  await requireObjects(resources.store, layers, signal);
  const kept = layers.map(({ metadata: { backupId, volumeMeta } }) => ({ backupId, volumeMeta }));
  const meta = await persist(() => planRestoredMeta(sql, kept, volume), rows);
  const isStillOurs = async () => {
    requireTaken(await getVolume(sql, volume.id));
    await requireNoRival(environment, backup, volume.id);
  };
  const openTarget = async () => {
    // What is above, and the wait for memory, may have taken minutes.
    await persist(isStillOurs, anySignal([signal, AbortSignal.timeout(options.rowTimeoutMs)]));
    return await backend.openTarget(nameOnStorage(volume), targetBytes, signal);
  };
  await runRestore(resources, { chain: layers, openTarget, progress: run.progress, signal });
  return meta;
}

async function finish(
  environment: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  meta: RestoredMeta,
  cancelled: AbortSignal,
): Promise<void> {
  const { database, clock, options } = environment;
  const signal = anySignal([cancelled, AbortSignal.timeout(options.rowTimeoutMs)]);
  const now = clock.now();
  const commit = () =>
    database.transaction((sql) => writeFinish(environment, sql, backup, volume, meta, now));
  await persistAvailable(commit, signal);
}

async function writeFinish(
  { log }: ManagerEnvironment,
  sql: Sql,
  backup: Backup,
  volume: Volume,
  meta: RestoredMeta,
  now: Date,
): Promise<void> {
  if (meta.user !== undefined) await replaceVolumeMetadata(sql, volume.id, meta.user, now);
  if (meta.glance !== undefined) await replaceGlanceMetadata(sql, volume.id, meta.glance, now);
  // As in restore_backup: what the backup gives back counts, not what the volume had before.
  const keys = meta.user ?? (await listVolumeMetadata(sql, [volume.id])).get(volume.id);
  const source = keys?.['src_backup_id'] ?? '';
  if (backup.volumeId !== volume.id || (source !== '' && source !== backup.id)) {
    await setVolumeMetadata(sql, volume.id, { src_backup_id: backup.id }, now);
  }
  const changes = { ...meta.base, ...(volume.status === 'creating' ? { launchedAt: now } : {}) };
  await moveBackup(sql, backup.id, { from: ['restoring'], to: 'available' }, {}, now);
  try {
    const step = { from: targetStatuses, to: 'available' } as const;
    await moveVolume(sql, volume.id, step, changes, now);
  } catch (err) {
    if (!isBackupError(err, 'stale-update', 'not-found')) throw err;
    log.warn({ volume: volume.id, err }, 'restored volume left as somebody else moved it');
  }
}

/** A failed restore has no end, a cancelled one has (restore_backup). */
async function tellEnd(
  { database, cloud, log, options }: ManagerEnvironment,
  backupId: string,
): Promise<void> {
  const signal = AbortSignal.timeout(options.cleanupTimeoutMs);
  try {
    cloud.notify(await persist(() => getBackup(database.sql, backupId), signal), 'restore.end');
  } catch (err) {
    log.warn({ backup: backupId, err }, 'the end of a restore was not notified');
  }
}

async function undo(
  environment: ManagerEnvironment,
  context: RequestContext,
  { backupId, volumeId, projectId }: { backupId: string; volumeId: string; projectId: string },
  error: unknown,
): Promise<unknown> {
  const signal = AbortSignal.timeout(environment.options.rowTimeoutMs);
  const isRefused = isBackupError(error) && Object.hasOwn(error.details, 'message');
  const isCancelled = isBackupError(error, 'cancelled');
  const to = isRefused || isCancelled ? 'error' : 'error_restoring';
  // Whoever set the status to cancel a restore finds the backup available (restore_backup).
  const from = isCancelled ? (['restoring', 'error'] as const) : (['restoring'] as const);
  const about = { verb: 'restore', backup: { id: backupId, projectId }, volumeId } as const;
  return settleAll(error, [
    () => persist(() => endRestore(environment, { backupId, volumeId }, { from, to }), signal),
    () => tellFailure(environment, context, about, error),
  ]);
}

/**
 * Both rows of a restore that did not end well, in one transaction: of two restores to one volume the last gives it back. The
 * backup is left alone if it is being restored to another volume by now.
 */
export async function endRestore(
  environment: ManagerEnvironment,
  { backupId, volumeId }: { readonly backupId: string; readonly volumeId: string },
  { from, to }: { readonly from: readonly ('restoring' | 'error')[]; readonly to: VolumeStatus },
): Promise<void> {
  const { database, clock } = environment;
  const now = clock.now();
  await database.transaction(async (sql) => {
    await failTarget(environment, sql, { volumeId, backupId }, to, now);
    const target = (await findBackup(sql, backupId))?.restoreVolumeId ?? volumeId;
    if (target === volumeId)
      await moveUnlessTaken(() => moveBackup(sql, backupId, { from, to: 'available' }, {}, now));
  });
}

/** The volume of a restore of `backupId` that did not end well; it may have been taken out of our hands. */
export async function failRestoreTarget(
  environment: ManagerEnvironment,
  volumeId: string,
  to: VolumeStatus,
  backupId: string,
): Promise<void> {
  const { database, clock } = environment;
  const now = clock.now();
  await database.transaction((sql) => failTarget(environment, sql, { volumeId, backupId }, to, now));
}

/** Looks under the volume's lock whether another backup is being restored to it: then it is that one's to end. */
async function failTarget(
  environment: ManagerEnvironment,
  sql: Sql,
  { volumeId, backupId }: { readonly volumeId: string; readonly backupId: string },
  to: VolumeStatus,
  now: Date,
): Promise<void> {
  await lockVolume(sql, volumeId);
  const restores = await listBackups(sql, { status: 'restoring', restoreVolumeId: volumeId });
  const others = restores.filter(({ id }) => id !== backupId);
  if ((await livingRows(environment, sql, others, now)).length > 0) return;
  await moveUnlessTaken(() => moveVolume(sql, volumeId, { from: targetStatuses, to }, {}, now));
}

/** The backup of a restore that has ended, unless somebody deletes it by now. */
export async function giveBackRestored(
  { database, clock }: ManagerEnvironment,
  backupId: string,
): Promise<void> {
  const step = { from: ['restoring'], to: 'available' } as const;
  await moveUnlessTaken(() => moveBackup(database.sql, backupId, step, {}, clock.now()));
}

async function moveUnlessTaken(move: () => Promise<void>): Promise<void> {
  try {
    await move();
  } catch (stale) {
    if (!isBackupError(stale, 'stale-update', 'not-found')) throw stale;
  }
}
