/**
 * The manager room: what cinder-backup does, one file per verb (create-backup.ts, restore-backup.ts, ...), and what
 * cinder-api does before it (request-*.ts). The only writer of a backup's state.
 *
 * Entry: createManager. Each verb that takes time runs as an operation; its promise never fails, the operation and
 * the rows tell what became of it. Whatever stops a verb, the rows of backup and volume end in a status that Cinder
 * would leave. One backup has at most one operation that writes it:
 *
 *   running   | create   restore   delete                                  verify
 *   create    | refused  refused   with force: cancels, waits, deletes     refused
 *   restore   | -        refused   with force: cancels, waits, deletes     beside it
 *   verify    | -        beside    cancels, waits, deletes                 beside it
 */
import type { Backup } from '../model/backup.ts';
import { getBackup } from '../database/backups.ts';
import { BackupError } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { Volume } from '../model/volume.ts';
import { createBackup } from './create-backup.ts';
import { deleteBackup } from './delete-backup.ts';
import type { ManagerEnvironment } from './environment.ts';
import { reconcile } from './init-host.ts';
import type { OperationRun, Operations, OperationVerb, StartedOperation } from './operations.ts';
import { requestBackup, type BackupRequest } from './request-backup.ts';
import { requestDelete } from './request-delete.ts';
import { requestRestore, type MakeVolume } from './request-restore.ts';
import { resetStatus } from './reset-status.ts';
import { restoreBackup } from './restore-backup.ts';
import { verifyBackup } from './verify-backup.ts';

export type Started<T> = T & { readonly operation: StartedOperation };

export type Manager = {
  /** Puts right what an earlier process left, and goes on with its deletions. Once, before anything else. */
  initHost(signal: AbortSignal): Promise<void>;
  /** Checks, makes the rows and starts the backup. Errors as requestBackup. */
  backup(context: RequestContext, request: BackupRequest): Promise<Started<{ readonly backup: Backup }>>;
  /** Checks, takes the rows and starts the restore. Errors as requestRestore. */
  restore(
    context: RequestContext,
    request: { readonly backupId: string; readonly volumeId: string | null; readonly name: string | null },
  ): Promise<Started<{ readonly backup: Backup; readonly volume: Volume }>>;
  /** Checks, takes the row and starts the deletion. Errors as requestDelete. */
  remove(
    context: RequestContext,
    request: { readonly backupId: string; readonly force: boolean },
  ): Promise<Started<{ readonly backup: Backup }>>;
  verify(context: RequestContext, backupId: string): Promise<Started<{ readonly backup: Backup }>>;
  /** Refused with `state-invalid` while something runs on the backup; else as resetStatus. */
  reset(
    context: RequestContext,
    backupId: string,
    to: 'available' | 'error',
    signal: AbortSignal,
  ): Promise<void>;
};

export function createManager(
  environment: ManagerEnvironment,
  deps: { readonly operations: Operations; readonly makeVolume: MakeVolume },
): Manager {
  const { operations, makeVolume } = deps;
  const { sql } = environment.database;

  const start = (
    verb: OperationVerb,
    backup: Backup,
    volumeId: string,
    work: (run: OperationRun) => Promise<void>,
  ): StartedOperation =>
    operations.start({ verb, projectId: backup.projectId, backupId: backup.id, volumeId }, work);

  const startDelete = (context: RequestContext, backup: Backup): StartedOperation =>
    start('delete', backup, backup.volumeId, async (run) => {
      await operations.cancelBackup(backup.id, 'the backup is being deleted', run.id);
      await deleteBackup(environment, context, backup.id, run);
    });

  return {
    async initHost(signal) {
      const { reset, deleting, droppedSnapshots } = await reconcile(environment, signal);
      environment.log.info({ reset, deleting: deleting.length, droppedSnapshots }, 'earlier work put right');
      for (const backup of deleting) startDelete(serviceContext(backup), backup);
    },

    async backup(context, request) {
      const backup = await requestBackup(environment, context, request);
      const operation = start('create', backup, backup.volumeId, (run) =>
        createBackup(environment, context, backup.id, run),
      );
      return { backup, operation };
    },

    async restore(context, request) {
      const { backup, volume } = await requestRestore(environment, context, request, makeVolume);
      const operation = start('restore', backup, volume.id, (run) =>
        restoreBackup(environment, context, backup.id, volume.id, run),
      );
      return { backup, volume, operation };
    },

    async remove(context, request) {
      const backup = await requestDelete(environment, context, request);
      return { backup, operation: startDelete(context, backup) };
    },

    async verify(context, backupId) {
      const backup = await getBackup(sql, backupId, context.projectId);
      const operation = start('verify', backup, backup.volumeId, (run) =>
        verifyBackup(environment, backup.id, run),
      );
      return { backup, operation };
    },

    async reset(context, backupId, to, signal) {
      await getBackup(sql, backupId, context.projectId);
      if (operations.isBusy(backupId)) {
        throw new BackupError(
          'state-invalid',
          `Invalid backup: an operation is running on backup ${backupId}; wait for it, or delete the backup with os-force_delete.`,
        );
      }
      await resetStatus(environment, backupId, to, signal);
    },
  };
}

/** Who goes on with a deletion after a restart. */
function serviceContext(backup: Backup): RequestContext {
  return {
    projectId: backup.projectId,
    userId: backup.userId ?? '',
    requestId: `req-${crypto.randomUUID()}`,
  };
}
