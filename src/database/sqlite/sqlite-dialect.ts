/** kysely over node:sqlite: booleans as 0 and 1, times as UTC text with milliseconds, errors translated. */
import { DatabaseSync, type SQLInputValue, type SQLOutputValue } from 'node:sqlite';
import { SqliteDialect, type SqliteDatabase } from 'kysely';
import { BackupError, messageOf, type ErrorCode } from '../../model/errors.ts';
import { roomRemedy } from '../transaction.ts';

/** SQLITE_FULL. Whoever has a row in hand waits until there is room. */
const full = 13;

/** SQLite's primary result codes, https://sqlite.org/rescode.html. */
const codes: Readonly<Record<number, ErrorCode>> = {
  8: 'database-unavailable',
  11: 'corrupt',
  [full]: 'database-unavailable',
  14: 'database-unavailable',
  19: 'already-exists',
  26: 'corrupt',
  5: 'database-unavailable',
  6: 'database-unavailable',
  10: 'database-unavailable',
};

export function createSqliteDialect(connection: DatabaseSync): SqliteDialect {
  return new SqliteDialect({ database: adapt(connection) });
}

/** Turns an error of node:sqlite into ours; `what` names what was tried. */
export function sqliteError(what: string, error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  const number = error instanceof Error && 'errcode' in error ? Number(error.errcode) : Number.NaN;
  const code = codes[number & 0xff] ?? 'bug';
  const remedy = (number & 0xff) === full ? `; ${roomRemedy}` : '';
  return new BackupError(code, `the database could not ${what}: ${messageOf(error)}${remedy}`, {
    cause: error,
  });
}

function adapt(connection: DatabaseSync): SqliteDatabase {
  return {
    close: () => connection.close(),
    prepare: (text) => {
      const statement = translated(text, () => connection.prepare(text));
      const isRollback = text === 'rollback';
      return {
        reader: statement.columns().length > 0,
        all: (values) => translated(text, () => statement.all(...values.map(toSqlite))),
        run: (values) => {
          // A full disk has rolled back by itself, and the error of a second one would hide the first.
          if (isRollback && !connection.isTransaction) return { changes: 0, lastInsertRowid: 0 };
          return translated(text, () => statement.run(...values.map(toSqlite)));
        },
        iterate: (values): IterableIterator<Record<string, SQLOutputValue>> =>
          translated(text, () => statement.iterate(...values.map(toSqlite))),
      };
    },
  };
}

function translated<T>(text: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw sqliteError(`run "${text.slice(0, 60)}…"`, error);
  }
}

function toSqlite(value: unknown): SQLInputValue {
  if (value === null || value === undefined) return null;
  if (typeof value === 'boolean') return Number(value);
  if (value instanceof Date) return value.toISOString().replace('T', ' ').replace('Z', '');
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'bigint') return value;
  throw new BackupError('bug', `broken invariant: a ${typeof value} was given to the database`);
}
