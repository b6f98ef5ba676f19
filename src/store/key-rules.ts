/** Which containers and keys a store accepts: those of the layout, and nothing that could lead elsewhere. */
import { BackupError } from '../model/errors.ts';

const maxNameBytes = 1024;

/** Returns `key`, or throws `message-invalid`: relative, no empty, `.` or `..` segment, no control character, at most 1024 bytes. */
export function requireKey(key: string): string {
  return requireSegments('object name', key);
}

/** Returns `container`, or throws `message-invalid`: the same rules as for keys. */
export function requireContainer(container: string): string {
  return requireSegments('container', container);
}

function requireSegments(what: string, value: string): string {
  const safe =
    value.length > 0 &&
    Buffer.byteLength(value) <= maxNameBytes &&
    value.isWellFormed() &&
    !/[\p{Cc}\\]/u.test(value) &&
    value.split('/').every((segment) => segment !== '' && segment !== '.' && segment !== '..');
  if (safe) return value;
  const shown = JSON.stringify(value.length > 120 ? `${value.slice(0, 120)}…` : value);
  throw new BackupError(
    'message-invalid',
    `${what} ${shown} is not one that the layout makes: it must be relative, without empty, "." or ".." parts and control characters, of at most ${maxNameBytes} bytes; check the backup's row`,
  );
}
