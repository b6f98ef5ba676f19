/** Errors of PostgreSQL, and of the way to it, as ours (https://www.postgresql.org/docs/current/errcodes-appendix.html). */
import { BackupError, messageOf, type ErrorCode } from '../../model/errors.ts';
import { roomRemedy, type Outcome } from '../transaction.ts';

/** disk_full */
const full = '53100';

/** SQLSTATE by its beginning: the server said no, and may say yes later; nothing of the transaction was done. */
const refusals = [
  '25006', // read-only: a standby, or a primary that is about to be one
  '40', // deadlock, serialization
  full,
  '53300', // too many connections
  '53400',
  '55P03', // lock not available
  '57P03', // cannot connect now: starting up, shutting down, recovering
  '57014', // canceled
];

/** The server ended the connection, perhaps after it had committed. */
const farewells = [
  '08', // connection
  '57P01', // administrator
  '57P02', // crash
  '57P05', // idle
];

const codes: readonly (readonly [string, ErrorCode])[] = [
  ['23505', 'already-exists'],
  ['22', 'message-invalid'],
  ['28', 'config-invalid'],
  ['3D', 'config-invalid'],
  ['42501', 'config-invalid'],
  ['42P01', 'version-unsupported'],
  ['42703', 'version-unsupported'],
];

/** Turns an error of pg into ours. `what` names what was tried, `lost` what became of it if the connection was lost. */
export function postgresError(
  at: { readonly server: string; readonly what: string; readonly lost: Outcome },
  error: unknown,
): BackupError {
  if (error instanceof BackupError) return error;
  const sentence = `PostgreSQL at ${at.server} could not ${at.what}: ${messageOf(error)}`;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const isAnswer = error instanceof Error && 'severity' in error;
  const begins = (start: string) => code.startsWith(start);
  if (isAnswer) {
    const known = codes.find(([start]) => begins(start))?.[1];
    if (known !== undefined) return new BackupError(known, sentence, { cause: error });
    if (!refusals.some(begins) && !farewells.some(begins))
      return new BackupError('bug', sentence, { cause: error });
  } else if (isTlsRefusal(code, messageOf(error))) {
    return new BackupError('config-invalid', sentence, { cause: error });
  }
  const outcome = isAnswer && refusals.some(begins) ? 'undone' : at.lost;
  const message = isAnswer && code === full ? `${sentence}; ${roomRemedy}` : sentence;
  return new BackupError('database-unavailable', message, { cause: error, details: { outcome } });
}

/**
 * Whether a connection may be taken without TLS that was refused with it: the server has none, or none that fits, or lets us
 * in without it only (pg_hba.conf, hostnossl).
 */
export function isTlsDeclined(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return code === '28000' || /^(?:EPROTO$|ERR_SSL_)/u.test(code) || isTlsRefusal(code, messageOf(error));
}

/** The certificate, or the server's lack of one, is wrong now and will be then. */
function isTlsRefusal(code: string, message: string): boolean {
  return (
    message.includes('does not support SSL') ||
    /^(?:ERR_TLS_|ERR_OSSL_|CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_)/u.test(code)
  );
}
