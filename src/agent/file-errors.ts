/** The one place where system call errors of the agent become ours. */
import { BackupError, isBackupError, messageOf, type ErrorCode } from '../model/errors.ts';

const meanings: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  ENOENT: ['not-found', 'does not exist'],
  EEXIST: ['already-exists', 'exists already'],
  ENOSPC: ['store-full', 'does not fit: the file system is full; free space and try again'],
  EDQUOT: ['store-full', 'does not fit: the disk quota is used up; raise it and try again'],
  EFBIG: ['message-invalid', 'is larger than the file system allows'],
  ELOOP: ['state-invalid', 'is a symbolic link: only regular files are served'],
  ENOTDIR: ['state-invalid', 'lies under something that is not a directory'],
  EISDIR: ['state-invalid', 'is a directory: only regular files are served'],
  EACCES: ['agent-failed', "is not accessible: give the agent's user access to it"],
  EPERM: ['agent-failed', "is not accessible: give the agent's user access to it"],
  EROFS: ['agent-failed', 'lies on a read-only file system'],
  EMFILE: ['agent-unavailable', 'cannot be opened: the agent has too many open files; raise its limit'],
  ENFILE: ['agent-unavailable', 'cannot be opened: the system has too many open files'],
};

/** The errno name of a system error, or an empty string. */
export function errnoOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}

/** True if the kernel or the file system does not have the call. */
export function unsupported(error: unknown): boolean {
  return ['EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'ENOTTY'].includes(errnoOf(error));
}

/** A BackupError about `thing` for an error of the file system; one of ours passes as it is. */
export function translateFileError(error: unknown, thing: string): BackupError {
  if (isBackupError(error)) return error;
  const errno = errnoOf(error);
  const meaning = Object.hasOwn(meanings, errno) ? meanings[errno] : undefined;
  if (meaning === undefined) {
    return new BackupError('agent-failed', `${thing}: ${messageOf(error)}`, {
      cause: error,
      details: { errno },
    });
  }
  return new BackupError(meaning[0], `${thing} ${meaning[1]}`, { cause: error, details: { errno } });
}
