/** Errors of the file system, translated at this room's border. */
import { BackupError, type ErrorCode } from '../model/errors.ts';

type Meaning = { readonly code: ErrorCode; readonly remedy: string };

const full: Meaning = {
  code: 'store-full',
  remedy:
    'free space or raise the quota of the file system of backup_posix_path, then start the backup again',
};
const denied: Meaning = {
  code: 'store-denied',
  remedy:
    'give the user of this service the rights to read and write below backup_posix_path, and mount it writable',
};
const absent: Meaning = {
  code: 'object-missing',
  remedy: 'check that the file system of backup_posix_path is mounted',
};
const wrongKind: Meaning = {
  code: 'message-invalid',
  remedy: 'something that this service did not make stands there: move it out of the way',
};
const unreachable: Meaning = {
  code: 'store-unavailable',
  remedy: 'check the disk or the file server behind backup_posix_path',
};

const meanings: Readonly<Record<string, Meaning>> = {
  ENOSPC: full,
  EDQUOT: full,
  EFBIG: full,
  EACCES: denied,
  EPERM: denied,
  EROFS: denied,
  ENOENT: absent,
  ENOTDIR: wrongKind,
  EISDIR: wrongKind,
  EEXIST: wrongKind,
  ELOOP: wrongKind,
  ENAMETOOLONG: wrongKind,
};

/** Cinder's mode for objects: rw for user and group (get_object_writer of cinder/backup/drivers/posix.py). */
export const fileMode = 0o660;

/** `code` of a Node system error, or an empty string. */
export function systemCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}

/** The BackupError of a failed call; `action` is what was tried, in words, with the path. */
export function posixError(action: string, error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  const code = systemCode(error);
  const meaning = meanings[code] ?? unreachable;
  const reason = code === '' ? String(error) : code;
  return new BackupError(meaning.code, `cannot ${action}: ${reason}; ${meaning.remedy}`, { cause: error });
}

/** Waits for a call of the file system and translates its error. */
export async function attempt<T>(action: string, call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    throw posixError(action, error);
  }
}
