/** Statements on `services`: the row by which the other services know this one. */
import { randomUUID } from 'node:crypto';
import { serviceObjectVersion, serviceRpcVersion } from '../model/service-versions.ts';
import { invariant } from '../model/errors.ts';
import { inTransaction, type Sql } from './database.ts';
import { readTime } from './row-values.ts';

const binary = 'cinder-backup';

/** What a service says of itself when its row is made. */
export type NewService = {
  readonly host: string;
  readonly availabilityZone: string;
  /** enable_new_services: a row that is made is not disabled. */
  readonly enableNewServices: boolean;
};

/**
 * Makes or renews the row of the backup service on a host (cinder/service.py, Service.__init__; cinder/db/sqlalchemy/api.py,
 * service_create), and returns its id. Whether an older row is disabled, and everything else that an administrator sets, stays
 * as it is.
 */
export async function registerBackupService(sql: Sql, service: NewService, now: Date): Promise<number> {
  let id: number | undefined;
  await inTransaction(sql, async (inner) => {
    id = await findBackupService(inner, service.host);
    if (id === undefined) id = await insertBackupService(inner, service, now);
    else {
      await inner
        .updateTable('services')
        .set({ ...versions, updated_at: now })
        .where('id', '=', id)
        .execute();
    }
  });
  invariant(id !== undefined, 'a transaction that was committed has run its statements');
  return id;
}

const versions = { rpc_current_version: serviceRpcVersion, object_current_version: serviceObjectVersion };

async function insertBackupService(
  sql: Sql,
  { host, availabilityZone, enableNewServices }: NewService,
  now: Date,
): Promise<number> {
  const uuid = randomUUID();
  await sql
    .insertInto('services')
    .values({
      ...versions,
      created_at: now,
      updated_at: now,
      deleted: false,
      host,
      binary,
      topic: binary,
      report_count: 0,
      disabled: !enableNewServices,
      availability_zone: availabilityZone,
      replication_status: 'not-capable',
      frozen: false,
      uuid,
    })
    .execute();
  const made = await sql
    .selectFrom('services')
    .select('id')
    .where('uuid', '=', uuid)
    .executeTakeFirstOrThrow();
  return made.id;
}

/** True if the backup service on `host` gave a sign of life after `since` (cinder/objects/service.py, is_up). */
export async function isBackupServiceUp(sql: Sql, host: string, since: Date): Promise<boolean> {
  const id = await findBackupService(sql, host);
  if (id === undefined) return false;
  const row = await sql.selectFrom('services').select('updated_at').where('id', '=', id).executeTakeFirst();
  const seen = readTime(row?.updated_at ?? null);
  return seen !== null && seen >= since;
}

/** True if a backup service on another host than `host` gave a sign of life after `since`. */
export async function isOtherBackupServiceUp(sql: Sql, host: string, since: Date): Promise<boolean> {
  const other = await sql
    .selectFrom('services')
    .select('id')
    .where('binary', '=', binary)
    .where('deleted', '=', false)
    .where('host', '<>', host)
    .where('updated_at', '>=', since)
    .limit(1)
    .executeTakeFirst();
  return other !== undefined;
}

/**
 * The row of `host`, or of a host `<host>@...` or `<host>#...` as Cinder takes it too (cinder/db/sqlalchemy/api.py,
 * filter_by_host). Compared here, since databases differ in what they hold for equal.
 */
async function findBackupService(sql: Sql, host: string): Promise<number | undefined> {
  const rows = await sql
    .selectFrom('services')
    .select(['id', 'host'])
    .where('binary', '=', binary)
    .where('deleted', '=', false)
    .orderBy('id')
    .execute();
  const exact = rows.find((row) => row.host === host);
  const within = rows.find((row) => row.host?.startsWith(`${host}@`) || row.host?.startsWith(`${host}#`));
  return (exact ?? within)?.id;
}

/**
 * A sign of life (cinder/service.py, report_state): the service counts as up while `updated_at` is younger than
 * service_down_time. False if the row is gone.
 */
export async function reportBackupService(
  sql: Sql,
  id: number,
  availabilityZone: string,
  now: Date,
): Promise<boolean> {
  const result = await sql
    .updateTable('services')
    .set((columns) => ({
      updated_at: now,
      report_count: columns('report_count', '+', 1),
      availability_zone: availabilityZone,
    }))
    .where('id', '=', id)
    .where('deleted', '=', false)
    .executeTakeFirst();
  return result.numUpdatedRows > 0n;
}
