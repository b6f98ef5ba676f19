/**
 * Transactions that are done again when the database could not answer.
 *
 * An error of the database room that may be retried says in `details.outcome` what became of the statement:
 * - `undone`: nothing of it stays. The connection could not be made, the server refused or rolled back (deadlock,
 *   Galera without a quorum), or the connection was lost before COMMIT was sent.
 * - `unknown`: the connection was lost after COMMIT, or a statement outside of a transaction, had been sent.
 *
 * After `unknown` the whole transaction runs again with `scope.isRepeated`. Its statements then either write the same once
 * more (metadata), or recognise their own work by its id or by the status and the time that they were to write, and leave
 * through `requireNotDone`: all of the transaction had been committed, and it is over.
 */
import { sql as raw, type Kysely } from 'kysely';
import { BackupError, isBackupError } from '../model/errors.ts';
import type { Database, Scope, Sql } from './database.ts';
import type { Tables } from './tables.ts';

export type Outcome = 'undone' | 'unknown';

/** What helps a database whose file system is full. */
export const roomRemedy = 'make room where the database is: what waits for it goes on then';

/** What became of the statement that `error` ended. */
export function outcomeOf(error: unknown): Outcome {
  return isBackupError(error) && error.details['outcome'] === 'unknown' ? 'unknown' : 'undone';
}

/** The same error, about something that is not there any more or does no harm when it is done again. */
export function asUndone(error: unknown): unknown {
  if (!isBackupError(error) || outcomeOf(error) === 'undone') return error;
  const { code, message, retryable, details, cause } = error;
  return new BackupError(code, message, { cause, retryable, details: { ...details, outcome: 'undone' } });
}

/** Does `work` again while its error may be retried and is `undone`; decides how often and how long. */
export type Retry = <T>(work: () => Promise<T>) => Promise<T>;

/** Thrown through the work of a repeated transaction that had been committed the first time. */
class AlreadyCommitted extends Error {}

/**
 * What a statement asks that finds a row as it was about to make it: in a repeated transaction it ends the transaction as
 * committed. `isOurs` tells whether the row is as this very statement would have left it.
 */
export function requireNotDone(sql: Sql, isOurs: boolean): void {
  if (sql.scope.isRepeated && isOurs) throw new AlreadyCommitted('this transaction had been committed');
}

/** Ends a repeated transaction that had inserted the row `id` of `table`: to be called before it is inserted again. */
export async function requireNotInserted(
  sql: Sql,
  table: 'backups' | 'volumes' | 'snapshots' | 'messages',
  id: string,
): Promise<void> {
  if (!sql.scope.isRepeated) return;
  const { rows } = await raw`select id from ${raw.table(table)} where id = ${id}`.execute(sql);
  requireNotDone(sql, rows.length > 0);
}

/** The same moment, as far as a DATETIME without fraction can tell. */
export function isSameSecond(stored: Date | null, written: Date): boolean {
  return stored !== null && Math.floor(stored.getTime() / 1000) === Math.floor(written.getTime() / 1000);
}

/** `release` lets go of what the driver was given, once no statement runs. */
export function createDatabase(
  kysely: Kysely<Tables>,
  options: {
    readonly hasRowLocks: boolean;
    readonly retry: Retry;
    readonly ping: () => Promise<void>;
    readonly release: () => Promise<void> | void;
  },
): Database {
  const { hasRowLocks, retry } = options;

  const transaction = async (work: (sql: Sql) => Promise<void>): Promise<void> => {
    let isRepeated = false;
    await retry(async () => {
      try {
        await kysely.transaction().execute(async (opened) => {
          const scope: Scope = {
            isTransaction: true,
            isRepeated,
            hasRowLocks,
            transaction: (inner) => inner(sql),
          };
          const sql: Sql = Object.assign(opened, { scope });
          await work(sql);
        });
      } catch (error) {
        if (error instanceof AlreadyCommitted) return;
        if (outcomeOf(error) === 'unknown') isRepeated = true;
        throw asUndone(error);
      }
    });
  };

  const scope: Scope = { isTransaction: false, isRepeated: false, hasRowLocks, transaction };
  return {
    sql: Object.assign(kysely, { scope }),
    transaction,
    ping: options.ping,
    async close() {
      await kysely.destroy();
      await options.release();
    },
  };
}
