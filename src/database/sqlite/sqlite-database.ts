/** Opens the SQLite file of a standalone service: WAL, every commit on stable storage, the schema brought up to date. */
import { DatabaseSync } from 'node:sqlite';
import { Kysely, sql as raw } from 'kysely';
import { BackupError } from '../../model/errors.ts';
import type { Database } from '../database.ts';
import type { Tables } from '../tables.ts';
import { createDatabase } from '../transaction.ts';
import { createSqliteDialect, sqliteError } from './sqlite-dialect.ts';
import { schemaSteps } from './sqlite-schema.ts';

/**
 * Opens or creates the database at `path` (`:memory:` for tests). `version-unsupported` if a newer version of
 * this program wrote it, `database-unavailable` or `corrupt` if it cannot be opened.
 */
export function openSqliteDatabase(path: string): Database {
  const connection = openConnection(path);
  try {
    connection.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON');
    upgrade(connection, path);
  } catch (error) {
    connection.close();
    throw sqliteError(`open ${path}`, error);
  }
  const kysely = new Kysely<Tables>({ dialect: createSqliteDialect(connection) });
  return createDatabase(kysely, {
    hasRowLocks: false,
    retry: (work) => work(),
    async ping() {
      await raw`select 1`.execute(kysely);
    },
    release() {
      if (connection.isOpen) connection.close();
    },
  });
}

function openConnection(path: string): DatabaseSync {
  try {
    return new DatabaseSync(path, { timeout: 5000 });
  } catch (error) {
    throw sqliteError(`open ${path}`, error);
  }
}

function upgrade(connection: DatabaseSync, path: string): void {
  const found = Number(connection.prepare('PRAGMA user_version').get()?.['user_version']);
  if (found > schemaSteps.length) {
    throw new BackupError(
      'version-unsupported',
      `${path} has schema version ${found}, this program knows ${schemaSteps.length}: use the newer program that wrote it`,
    );
  }
  for (const [index, step] of schemaSteps.entries()) {
    if (index < found) continue;
    connection.exec(`BEGIN IMMEDIATE; ${step} PRAGMA user_version = ${index + 1}; COMMIT`);
  }
}
