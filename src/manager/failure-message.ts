/** What users are told when a verb fails: a row in `messages`. */
import { insertFailureMessage, isFailureDetail, type FailureDetail } from '../database/messages.ts';
import type { Backup } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { ManagerEnvironment } from './environment.ts';

/** Tells of `error`, unless there is nothing to tell. The work has failed already: that it cannot be told is only logged. */
export async function tellFailure(
  { database, clock, log, options }: ManagerEnvironment,
  context: RequestContext,
  about: {
    readonly verb: 'create' | 'restore' | 'delete';
    readonly backup: Pick<Backup, 'id' | 'projectId'>;
    /** Of a restore: the target. */
    readonly volumeId?: string;
  },
  error: unknown,
): Promise<void> {
  const detail = detailOf(error);
  if (detail === null) return;
  const { verb, backup, volumeId } = about;
  const told = {
    verb,
    detail,
    resourceId: detail === 'volume state' && volumeId !== undefined ? volumeId : backup.id,
    projectId: context.projectId === '' ? backup.projectId : context.projectId,
    requestId: context.requestId,
  };
  try {
    const times = { now: clock.now(), timeToLiveMs: options.messageTtlMs };
    await insertFailureMessage(database.sql, told, times);
  } catch (err) {
    log.error({ backup: backup.id, err }, 'the user could not be told of the failure');
  }
}

/**
 * Nothing of a cancellation; of a refusal what it says; else where the work failed: what cannot be reached or is not on the
 * storage could not be attached.
 */
function detailOf(error: unknown): FailureDetail | null {
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  if (!(first instanceof BackupError)) return 'driver';
  const { code, details } = first;
  if (code === 'cancelled') return null;
  if (Object.hasOwn(details, 'message'))
    return isFailureDetail(details['message']) ? details['message'] : null;
  return code === 'agent-unavailable' || code === 'not-found' ? 'attach' : 'driver';
}
