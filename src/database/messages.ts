/** Statements on `messages`: what a user is told about a failure (cinder/message/message_field.py). */
import { randomUUID } from 'node:crypto';
import { inTransaction, type Sql } from './database.ts';
import { requireNotInserted } from './transaction.ts';

const actions = { create: '013', delete: '014', restore: '015' } as const;
const driverErrors = { create: '020', delete: '025', restore: '026' } as const;

/** What failed. `driver`: the work itself; the others: before or after it. */
const otherErrors = {
  'invalid state': '017',
  'service down': '018',
  attach: '021',
  cleanup: '023',
  'volume state': '027',
} as const;

export type FailureDetail = 'driver' | keyof typeof otherErrors;

export function isFailureDetail(value: unknown): value is FailureDetail {
  return value === 'driver' || (typeof value === 'string' && Object.hasOwn(otherErrors, value));
}

/** Tells the project's users that a verb on a backup failed, and in what; cinder-scheduler removes it after its time. */
export async function insertFailureMessage(
  sql: Sql,
  about: {
    readonly verb: keyof typeof actions;
    readonly detail: FailureDetail;
    /** Id of the backup; Cinder gives that of the volume for `volume state`. */
    readonly resourceId: string;
    readonly projectId: string;
    readonly requestId: string;
  },
  { now, timeToLiveMs }: { readonly now: Date; readonly timeToLiveMs: number },
): Promise<void> {
  const action = actions[about.verb];
  const detail = about.detail === 'driver' ? driverErrors[about.verb] : otherErrors[about.detail];
  const id = randomUUID();
  await inTransaction(sql, async (inner) => {
    await requireNotInserted(inner, 'messages', id);
    await inner
      .insertInto('messages')
      .values({
        id,
        created_at: now,
        deleted: false,
        project_id: about.projectId,
        request_id: about.requestId,
        resource_type: 'VOLUME_BACKUP',
        resource_uuid: about.resourceId,
        event_id: `VOLUME_VOLUME_BACKUP_${action}_${detail}`,
        message_level: 'ERROR',
        action_id: action,
        detail_id: detail,
        expires_at: new Date(now.getTime() + timeToLiveMs),
      })
      .execute();
  });
}
