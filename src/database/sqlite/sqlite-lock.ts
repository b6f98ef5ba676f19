/**
 * One process per state directory. The lock is SQLite's own lock on a file of its own: the kernel gives it back
 * when the process ends, however it ends, and the database itself stays open to an operator's sqlite3.
 */
import { DatabaseSync } from 'node:sqlite';
import { BackupError } from '../../model/errors.ts';
import { sqliteError } from './sqlite-dialect.ts';

/** Takes the lock at `path`; `state-invalid` if another process has it. The result gives it back. */
export function lockStateDirectory(path: string, directory: string): { release(): void } {
  let connection: DatabaseSync | undefined;
  try {
    connection = new DatabaseSync(path, { timeout: 0 });
    connection.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    connection?.close();
    const translated = sqliteError(`lock ${path}`, error);
    if (!isLocked(error)) throw translated;
    throw new BackupError(
      'state-invalid',
      `the state directory ${directory} is in use by another cinder-delta service: stop that, or give another --state-dir`,
      { cause: error },
    );
  }
  const held = connection;
  return { release: () => held.close() };
}

function isLocked(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && (Number(error.errcode) & 0xff) === 5;
}
