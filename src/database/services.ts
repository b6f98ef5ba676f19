/** Statements on `services`: the row by which the other services know this one. */
import { randomUUID } from 'node:crypto';
import type { Sql } from './database.ts';

/** Makes or renews the row of the backup service on `host` (cinder/service.py, Service.start). */
export async function registerBackupService(
  sql: Sql,
  host: string,
  availabilityZone: string,
  now: Date,
): Promise<void> {
  const result = await sql
    .updateTable('services')
    .set((columns) => ({ updated_at: now, report_count: columns('report_count', '+', 1) }))
    .where('host', '=', host)
    .where('binary', '=', 'cinder-backup')
    .where('deleted', '=', false)
    .executeTakeFirst();
  if (result.numUpdatedRows > 0n) return;
  await sql
    .insertInto('services')
    .values({
      created_at: now,
      deleted: false,
      host,
      binary: 'cinder-backup',
      topic: 'cinder-backup',
      report_count: 0,
      disabled: false,
      availability_zone: availabilityZone,
      frozen: false,
      uuid: randomUUID(),
    })
    .execute();
}
