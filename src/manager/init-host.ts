/**
 * Puts right what an earlier process left: what BackupManager.init_host does (_cleanup_incomplete_backup_operations,
 * cinder/backup/manager.py), and the objects and snapshots that Cinder leaves behind. Called once, before the
 * first request. One backup that cannot be put right does not keep the others from it, nor the service from starting.
 *
 *   creating   objects and snapshot removed, volume given back, backup `error`; left alone while its import is to come
 *   restoring  volume `error_restoring`, backup `available`
 *   deleting   goes on as an operation; of an encrypted volume: `error_deleting`, since only its user may remove the key; left alone
 *              while a request is to come without which it cannot go on
 *   error      temporary volumes that cinder-volume made for it are removed
 */
import { randomUUID } from 'node:crypto';
import { anySignal } from '../async/any-signal.ts';
import { createTaskGroup } from '../async/task-group.ts';
import { untilAborted } from '../async/until-aborted.ts';
import { moveBackup } from '../database/backups.ts';
import { importVolumeId, listIncompleteBackups, listTemporaryOwners } from '../database/host-backups.ts';
import type { Backup } from '../model/backup.ts';
import { isOwnService } from '../model/driver-class.ts';
import { isBackupError, throwIfAborted } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import { removeObjects } from './backup-objects.ts';
import { dropSnapshotsOf } from './backup-snapshots.ts';
import { dropOrphans } from './drop-orphans.ts';
import { endTemporaries, failBackup, releaseSource } from './end-backup.ts';
import type { ManagerEnvironment } from './environment.ts';
import { endRestore, giveBackRestored } from './restore-backup.ts';
import { persistAndTell } from './row-step.ts';

const interrupted = 'incomplete backup reset on manager restart';

export type Reconciled = {
  readonly reset: number;
  /** Backups whose deletion has to go on. */
  readonly deleting: readonly Backup[];
  /** Left to `dropOrphans` where there is a queue: a cloud has many volumes, and requests wait. */
  readonly droppedSnapshots: number;
};

/** Agents and stores that do not answer take their time: not one after the other. */
const sideBySide = 8;

/**
 * Reconciles rows, store and storage. `hasQueue`: requests that were sent while nothing ran here are still to come, and what they may
 * be about is left to lost-requests.ts. `needsCaller`: only the user whose objects they are can remove them. Throws only `cancelled`
 * and errors of the database.
 */
export async function reconcile(
  environment: ManagerEnvironment,
  { hasQueue, needsCaller = false }: { readonly hasQueue: boolean; readonly needsCaller?: boolean },
  signal: AbortSignal,
): Promise<Reconciled> {
  const { database, options, log } = environment;
  const deleting: Backup[] = [];
  let reset = 0;
  const group = createTaskGroup(sideBySide, signal);
  // For all together: a service that starts later than service_down_time is down. Standalone it serves nobody yet.
  const agents = AbortSignal.timeout(options.agentTimeoutMs);
  const patience: Patience = hasQueue ? { agents, store: agents } : { agents };
  const incomplete = await listIncompleteBackups(database.sql, options.host);
  // What takes room goes first: rows may be waiting for it, where the database is on the same file system.
  for (const backup of incomplete.toSorted((a, b) => isCreating(b) - isCreating(a))) {
    const { id, status } = backup;
    if (hasQueue && isToCome(backup, needsCaller)) continue;
    else if (status === 'deleting' && backup.encryptionKeyId === null) deleting.push(backup);
    else if (isBeingImported(backup)) continue;
    else if (status === 'creating' || status === 'restoring' || status === 'deleting') {
      log.info({ backup: id, status }, 'backup was interrupted: putting it right');
      reset += 1;
      await group.add((groupSignal) => endInterrupted(environment, backup, groupSignal, patience));
    }
  }
  await group.settle();
  for (const backup of await listTemporaryOwners(database.sql, options.host)) {
    throwIfAborted(signal);
    await endTemporaries(environment, serviceContext(backup), backup);
  }
  const droppedSnapshots = hasQueue ? 0 : await dropOrphans(environment, environment.storage.all(), signal);
  return { reset, deleting, droppedSnapshots };
}

/**
 * True if the request for it may wait in the queue: nobody has begun to make it; or to delete it with its key, or with objects that are
 * the user's, which only the request can, for it brings the rights of the user.
 */
function isToCome({ status, service, encryptionKeyId }: Backup, needsCaller: boolean): boolean {
  if (status === 'creating') return service === null;
  return status === 'deleting' && (needsCaller || encryptionKeyId !== null);
}

/**
 * True until import_record comes for a row that cinder-api has made, or brought back from the deleted ones: that row
 * still names the objects that are to be imported.
 */
export function isBeingImported({ status, volumeId }: Backup): boolean {
  return status === 'creating' && volumeId === importVolumeId;
}

function isCreating({ status }: Backup): number {
  return Number(status === 'creating');
}

/** How long is waited for others; no `store`: as long as it takes. */
export type Patience = { readonly agents: AbortSignal; readonly store?: AbortSignal };

/**
 * Ends a `creating`, a `restoring`, or a `deleting` that nobody else can go on with. What takes longer than `patience` keeps no row
 * waiting: snapshots that are left go with `dropOrphans` or the next backup of the volume, objects with the backup.
 */
export async function endInterrupted(
  environment: ManagerEnvironment,
  backup: Backup,
  signal: AbortSignal,
  patience: Patience = { agents: AbortSignal.timeout(environment.options.agentTimeoutMs) },
): Promise<void> {
  const fail = () => failBackup(environment, backup.id, interrupted);
  if (isBeingImported(backup)) await persistAndTell(environment.log, fail, signal);
  else if (backup.status === 'creating') await endCreating(environment, backup, signal, patience);
  else if (backup.status === 'restoring') {
    await persistAndTell(environment.log, () => endRestoring(environment, backup), signal);
  } else await persistAndTell(environment.log, () => endDeletingEncrypted(environment, backup), signal);
}

/** Objects of a backup that has a count are whole: they go when somebody deletes the backup. What another driver made is its own. */
async function endCreating(
  environment: ManagerEnvironment,
  backup: Backup,
  signal: AbortSignal,
  { agents, store }: Patience,
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
  if (isOwnService(resources.store.service, backup.service)) {
    const removing = store === undefined ? signal : anySignal([signal, store]);
    if (backup.objectCount === null)
      // A directory over a network holds its calls, whatever the signal says.
      await attempt('objects', () =>
        untilAborted(removeObjects(resources.store, backup, removing), removing),
      );
    await attempt('snapshot', () => dropSnapshotsOf(environment, backup, anySignal([signal, agents])));
  }
  await persistAndTell(environment.log, () => releaseSource(environment, backup), signal);
  await persistAndTell(environment.log, () => failBackup(environment, backup.id, interrupted), signal);
}

async function endRestoring(environment: ManagerEnvironment, backup: Backup): Promise<void> {
  const { id: backupId, restoreVolumeId: volumeId } = backup;
  if (volumeId === null) await giveBackRestored(environment, backupId);
  else {
    const steps = { from: ['restoring'], to: 'error_restoring' } as const;
    await endRestore(environment, { backupId, volumeId }, steps);
  }
}

async function endDeletingEncrypted({ database, clock }: ManagerEnvironment, { id }: Backup): Promise<void> {
  const failReason =
    'The deletion was interrupted, and only a user may remove the encryption key: delete again.';
  const step = { from: ['deleting'], to: 'error_deleting' } as const;
  try {
    await moveBackup(database.sql, id, step, { failReason }, clock.now());
  } catch (stale) {
    if (!isBackupError(stale, 'stale-update', 'not-found')) throw stale;
  }
}

/** Who goes on with what an earlier process began. */
export function serviceContext({ projectId, userId }: Backup): RequestContext {
  return { projectId, userId: userId ?? '', requestId: `req-${randomUUID()}` };
}
