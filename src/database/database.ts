/**
 * The database room: Cinder's tables, one file of statements for each, over kysely.
 *
 * Entry: `openDatabase` (Cinder's own database, from [database]) and `openSqliteDatabase` (standalone). Statements take
 * `Sql`: the database itself or an open transaction.
 * - Differences between databases live in the folder of that database and nowhere else; all run the same statements.
 * - Every write of a status is conditional on the statuses it expects, and raises `stale-update` when the row
 *   has moved on, `not-found` when it is gone.
 * - Inside `transaction` only its own `sql` may be used: SQLite has one connection, and a statement on the
 *   database itself would wait for the transaction to end.
 * - A connection that is lost is made again and what it was used for is done again: see transaction.ts. The work of a
 *   transaction may therefore run more than once. It does nothing but statements; the ids and times that they write are made
 *   before it, so that they are the same each time; and what it reads to check, it reads after a step that knows its own work.
 * - Times are UTC; deleted rows are kept (`deleted` = 1), as Cinder keeps them.
 */
import type { Kysely } from 'kysely';
import type { Tables } from './tables.ts';

/** A database, or an open transaction, to build statements on. */
export type Sql = Kysely<Tables> & { readonly scope: Scope };

export type Scope = {
  readonly isTransaction: boolean;
  /** An earlier try of this transaction may have been committed although its answer never came: see `requireNotDone`. */
  readonly isRepeated: boolean;
  /** SELECT ... FOR UPDATE exists. */
  readonly hasRowLocks: boolean;
  /** As Database.transaction; inside a transaction its statements join it. */
  transaction(work: (sql: Sql) => Promise<void>): Promise<void>;
};

export type Database = {
  readonly sql: Sql;
  /**
   * Commits what `work` writes, or nothing of it. Done again from its start after a deadlock, or when the connection is lost.
   * What it finds is to be given back through variables of the caller's, or read afterwards.
   */
  transaction(work: (sql: Sql) => Promise<void>): Promise<void>;
  /** One statement, tried once: `database-unavailable` if there is no answer to it. */
  ping(): Promise<void>;
  /** Waiting and retried statements end with `database-unavailable`. */
  close(): Promise<void>;
};

/** Runs `work` in the transaction that `sql` is, or in one of its own. */
export async function inTransaction(sql: Sql, work: (sql: Sql) => Promise<void>): Promise<void> {
  if (sql.scope.isTransaction) await work(sql);
  else await sql.scope.transaction(work);
}
