/**
 * Starts the verbs on rows that have been taken for them, by cinder-api or by request-*.ts. Each runs as an operation, whose log
 * lines carry the id of the request. The rules of manager.ts hold: one backup has at most one operation that writes it.
 */
import type { Backup } from '../model/backup.ts';
import { withLogFields } from '../log.ts';
import type { RequestContext } from '../model/request-context.ts';
import { createBackup } from './create-backup.ts';
import { deleteBackup } from './delete-backup.ts';
import type { RequestScope } from './environment.ts';
import type { OperationRun, Operations, OperationVerb, StartedOperation } from './operations.ts';
import { restoreBackup } from './restore-backup.ts';
import { verifyBackup } from './verify-backup.ts';

type Subject = Pick<Backup, 'id' | 'projectId' | 'volumeId'>;

export type StartVerbs = {
  /** The row is `creating`. */
  create(scope: RequestScope, backup: Subject): StartedOperation;
  /** The row is `restoring`, that of the volume `restoring-backup`. */
  restore(scope: RequestScope, backup: Subject, volumeId: string): StartedOperation;
  /** The row is `deleting`. Cancels at once what runs on the backup, and waits for its end before it begins. */
  remove(scope: RequestScope, backup: Subject): StartedOperation;
  verify(scope: RequestScope, backup: Subject): StartedOperation;
};

export function createStartVerbs(operations: Operations): StartVerbs {
  const start = (
    verb: OperationVerb,
    { context, environment }: RequestScope,
    { id: backupId, projectId, volumeId }: Subject,
    work: (run: OperationRun) => Promise<void>,
  ): StartedOperation =>
    withLogFields(logFieldsOf(context), () =>
      operations.start({ verb, projectId, backupId, volumeId }, async (run) => {
        try {
          await work(run);
        } finally {
          await environment.cloud.end();
        }
      }),
    );

  return {
    create: (scope, backup) =>
      start('create', scope, backup, (run) => createBackup(scope.environment, scope.context, backup.id, run)),
    restore: (scope, backup, volumeId) =>
      start('restore', scope, { ...backup, volumeId }, (run) =>
        restoreBackup(scope.environment, scope.context, backup.id, volumeId, run),
      ),
    remove(scope, backup) {
      void operations.cancelBackup(backup.id, 'the backup is being deleted');
      return start('delete', scope, backup, (run) =>
        deleteBackup(scope.environment, scope.context, backup.id, run),
      );
    },
    verify: (scope, backup) =>
      start('verify', scope, backup, (run) => verifyBackup(scope.environment, backup.id, run)),
  };
}

/** What every log line of a request carries. */
export function logFieldsOf({ requestId, projectId }: RequestContext): Record<string, string> {
  return { request_id: requestId, ...(projectId === '' ? {} : { project_id: projectId }) };
}
