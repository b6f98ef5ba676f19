/** Statements on `messages`: what a user is told about a failure (cinder/message/message_field.py). */
import { randomUUID } from 'node:crypto';
import type { Sql } from './database.ts';

const actions = { create: '013', delete: '014', restore: '015' } as const;
const driverErrors = { create: '020', delete: '025', restore: '026' } as const;

const timeToLiveMs = 2_592_000_000;

/** Tells the project's users that a verb on a backup failed in the driver. */
export async function insertFailureMessage(
  sql: Sql,
  about: {
    readonly verb: keyof typeof actions;
    readonly backupId: string;
    readonly projectId: string;
    readonly requestId: string;
  },
  now: Date,
): Promise<void> {
  const action = actions[about.verb];
  const detail = driverErrors[about.verb];
  await sql
    .insertInto('messages')
    .values({
      id: randomUUID(),
      created_at: now,
      deleted: false,
      project_id: about.projectId,
      request_id: about.requestId,
      resource_type: 'VOLUME_BACKUP',
      resource_uuid: about.backupId,
      event_id: `VOLUME_VOLUME_BACKUP_${action}_${detail}`,
      message_level: 'ERROR',
      action_id: action,
      detail_id: detail,
      expires_at: new Date(now.getTime() + timeToLiveMs),
    })
    .execute();
}
