/** Errors of MySQL and MariaDB, and of the way to them, as ours (https://mariadb.com/kb/en/mariadb-error-codes/). */
import { BackupError, messageOf, type ErrorCode } from '../../model/errors.ts';
import { roomRemedy, type Outcome } from '../transaction.ts';

/** The server has no room. */
const full = new Set([
  1021, // disk full
  1114, // table full
]);

/** The server said no, and may say yes later; nothing of the statement, or of its transaction, was done. */
const refusals = new Set([
  1020, // a row was changed since it was read: with innodb_snapshot_isolation (on from MariaDB 11.6) a rollback, as of a deadlock
  1040, // too many connections
  1047, // WSREP has not yet prepared node for application use (Galera)
  1203, // too many connections of this user
  1205, // lock wait timeout
  1213, // deadlock, or a certification failure of Galera
  1290, // --read-only: a server that is not, or not yet, the primary
  1836, // read-only mode
  3032, // server is offline
]);

/** The server ended the connection, perhaps after it had committed. */
const farewells = new Set([
  1053, // server shutdown in progress
  1927, // connection was killed
]);

const codes: ReadonlyMap<number, ErrorCode> = new Map([
  [1022, 'already-exists'],
  [1062, 'already-exists'],
  [1264, 'message-invalid'], // out of range
  [1366, 'message-invalid'], // characters that the column cannot hold
  [1406, 'message-invalid'], // too long
  [1044, 'config-invalid'], // access to the database denied
  [1045, 'config-invalid'], // user or password
  [1049, 'config-invalid'], // unknown database
  [1130, 'config-invalid'], // host not allowed
  [1193, 'config-invalid'], // no such variable: wsrep_sync_wait without Galera
  [1698, 'config-invalid'],
  [1251, 'config-invalid'], // authentication method
  [3159, 'config-invalid'], // server wants TLS
  [1146, 'version-unsupported'], // no such table
  [1054, 'version-unsupported'], // no such column
]);

/** Turns an error of mysql2 into ours. `what` names what was tried, `lost` what became of it if the connection was lost. */
export function mysqlError(
  at: { readonly server: string; readonly what: string; readonly lost: Outcome },
  error: unknown,
): BackupError {
  if (error instanceof BackupError) return error;
  const sentence = `MySQL at ${at.server} could not ${at.what}: ${messageOf(error)}`;
  const number = error instanceof Error && 'errno' in error ? Number(error.errno) : Number.NaN;
  const known = codes.get(number);
  if (known !== undefined) return new BackupError(known, sentence, { cause: error });
  if (isTlsRefusal(error)) return new BackupError('config-invalid', sentence, { cause: error });
  const isAnswer = number >= 1000;
  const isRefusal = refusals.has(number) || full.has(number);
  if (isAnswer && !isRefusal && !farewells.has(number)) {
    return new BackupError('bug', sentence, { cause: error });
  }
  const outcome = isRefusal ? 'undone' : at.lost;
  const message = full.has(number) ? `${sentence}; ${roomRemedy}` : sentence;
  return new BackupError('database-unavailable', message, { cause: error, details: { outcome } });
}

/**
 * The certificate, or the server's lack of one, is wrong now and will be then. mysql2 gives HANDSHAKE_SSL_ERROR to whatever
 * ends the TLS handshake, also a connection that is lost in it.
 */
function isTlsRefusal(error: unknown): boolean {
  if (!(error instanceof Error) || !('code' in error)) return false;
  if (error.code === 'HANDSHAKE_NO_SSL_SUPPORT') return true;
  if (error.code !== 'HANDSHAKE_SSL_ERROR') return false;
  return !('syscall' in error) && !error.message.includes('disconnected');
}
