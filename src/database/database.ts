/**
 * The database room: Cinder's tables, one file of statements for each, over kysely.
 *
 * Entry: `openSqliteDatabase` (standalone). Statements take `Sql`: the database itself or an open transaction.
 * - Differences between databases live in the folder of that database and nowhere else.
 * - Every write of a status is conditional on the statuses it expects, and raises `stale-update` when the row
 *   has moved on, `not-found` when it is gone.
 * - Inside `transaction` only its own `sql` may be used: SQLite has one connection, and a statement on the
 *   database itself would wait for the transaction to end.
 * - Times are UTC; deleted rows are kept (`deleted` = 1), as Cinder keeps them.
 */
import { sql as raw, type Kysely } from 'kysely';
import type { Tables } from './tables.ts';

export type Sql = Kysely<Tables>;

export type Database = {
  readonly sql: Sql;
  transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T>;
  close(): Promise<void>;
};

/** `release` lets go of what the driver was given, once no statement runs. */
export function createDatabase(sql: Sql, release: () => void): Database {
  return {
    sql,
    transaction: (work) => sql.transaction().execute(work),
    async close() {
      await sql.destroy();
      release();
    },
  };
}

/** Resolves when the database answers a statement: what a health check asks. */
export async function pingDatabase(sql: Sql): Promise<void> {
  await raw`select 1`.execute(sql);
}
