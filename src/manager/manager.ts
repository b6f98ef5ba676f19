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
 *   delete    | -        refused   with force: is that one                 refused
 *   verify    | -        beside    cancels, waits, deletes                 is that one
 *
 * A deletion cancels when it is asked for, not when its turn comes: what it waits for may hold the last place.
 */
import { createBudget, withLimit } from '../async/limit.ts';
import type { Backup } from '../model/backup.ts';
import { getBackup } from '../database/backups.ts';
import { BackupError } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { Volume } from '../model/volume.ts';
import { registerBackupService } from '../database/services.ts';
import type { ManagerEnvironment, RequestScope } from './environment.ts';
import { reconcile, serviceContext } from './init-host.ts';
import type { Operations, StartedOperation } from './operations.ts';
import { requestBackup, type BackupRequest } from './request-backup.ts';
import { requestDelete } from './request-delete.ts';
import { requestRestore, type MakeVolume } from './request-restore.ts';
import { resetStatus } from './reset-status.ts';
import { persistAndTell } from './row-step.ts';
import { createStartVerbs, type StartVerbs } from './start-verbs.ts';

export type Started<T> = T & { readonly operation: StartedOperation };

export type Manager = {
  /** Puts right what an earlier process left, and goes on with its deletions. Once, before anything else. */
  initHost(signal: AbortSignal): Promise<void>;
  /** Checks, makes the rows and starts the backup. Errors as requestBackup, and `busy`. */
  backup(context: RequestContext, request: BackupRequest): Promise<Started<{ readonly backup: Backup }>>;
  /** Checks, takes the rows and starts the restore. Errors as requestRestore, and `busy`. */
  restore(
    context: RequestContext,
    request: { readonly backupId: string; readonly volumeId: string | null; readonly name: string | null },
  ): Promise<Started<{ readonly backup: Backup; readonly volume: Volume }>>;
  /** Checks, takes the row, cancels what runs on the backup and starts the deletion. Errors as requestDelete. */
  remove(
    context: RequestContext,
    request: { readonly backupId: string; readonly force: boolean },
  ): Promise<Started<{ readonly backup: Backup }>>;
  /** Starts a verify of the backup, or returns the one that runs. `not-found`, `busy`. */
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

  const verbs = createStartVerbs(operations);
  const scopeOf = (context: RequestContext): RequestScope => ({ environment, context });

  /** One at a time, so that a second deletion of a backup sees the first, or the end of it. */
  const askingToDelete = createBudget(1);

  return {
    async initHost(signal) {
      const { host, availabilityZone } = environment.options;
      const { reset, deleting, droppedSnapshots } = await reconcile(environment, { hasQueue: false }, signal);
      const register = async () => {
        const service = { host, availabilityZone, enableNewServices: true };
        await registerBackupService(sql, service, environment.clock.now());
      };
      await persistAndTell(environment.log, register, signal);
      environment.log.info({ reset, deleting: deleting.length, droppedSnapshots }, 'earlier work put right');
      for (const backup of deleting) verbs.remove(scopeOf(serviceContext(backup)), backup);
    },

    async backup(context, request) {
      operations.requireRoom();
      const backup = await requestBackup(environment, context, request);
      const operation = verbs.create(scopeOf(context), backup);
      return { backup, operation };
    },

    async restore(context, request) {
      operations.requireRoom();
      const { backup, volume } = await requestRestore(environment, context, request, makeVolume);
      const operation = verbs.restore(scopeOf(context), backup, volume.id);
      return { backup, volume, operation };
    },

    async remove(context, request) {
      const { backupId, force } = request;
      return await withLimit(askingToDelete, async () => {
        const running = operations.find('delete', backupId);
        if (running === undefined) {
          const backup = await requestDelete(environment, context, request);
          return { backup, operation: verbs.remove(scopeOf(context), backup) };
        }
        const backup = await getBackup(sql, backupId, context.projectId);
        if (force) return { backup, operation: running };
        throw new BackupError('state-invalid', `Invalid backup: backup ${backupId} is being deleted.`);
      });
    },

    verify: createVerify(environment, operations, verbs),

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

/** Starts a verify of a backup, or finds the one that runs. */
export function createVerify(
  environment: ManagerEnvironment,
  operations: Operations,
  verbs: StartVerbs,
): Manager['verify'] {
  return async (context, backupId) => {
    const backup = await getBackup(environment.database.sql, backupId, context.projectId);
    const running = operations.find('verify', backup.id);
    if (running !== undefined) return { backup, operation: running };
    operations.requireRoom();
    return { backup, operation: verbs.verify({ environment, context }, backup) };
  };
}
