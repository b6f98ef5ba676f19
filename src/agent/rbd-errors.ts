/** The one place where errors of librados and librbd become ours. */
import { BackupError, isBackupError, messageOf, type ErrorCode } from '../model/errors.ts';
import { errnoOf } from './file-errors.ts';

const meanings: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  ENOENT: ['not-found', 'does not exist'],
  EEXIST: ['already-exists', 'exists already'],
  EBUSY: [
    'state-invalid',
    'is in use: a snapshot that is protected or has clones, or an image with watchers',
  ],
  EROFS: [
    'state-invalid',
    'is read-only: perhaps the secondary of a mirror, which takes no writes or snapshots',
  ],
  EDQUOT: [
    'store-full',
    'does not fit: a quota or the limit of snapshots is reached; raise it and try again',
  ],
  ENOSPC: ['store-full', 'does not fit: the pool is full; add space and try again'],
  EPERM: ['agent-failed', "is not allowed to the agent's user: its caps must be `profile rbd` for the pool"],
  EACCES: ['agent-failed', "is not allowed to the agent's user: its caps must be `profile rbd` for the pool"],
};

/** The cluster has not answered in time, or has thrown the client out: a new attempt may succeed. */
const unreachable = new Set(['ETIMEDOUT', 'ENOTCONN', 'ESHUTDOWN', 'ECONNREFUSED', 'EHOSTUNREACH']);

/** True if the cluster has blocklisted this client: its connection is of no more use. */
export function isBlocklisted(error: unknown): boolean {
  return errnoOf(error) === 'ESHUTDOWN';
}

/** True if the cluster has not answered in time: what was asked for may have been done, or not. */
export function isUnanswered(error: unknown): boolean {
  return ['ETIMEDOUT', 'ENOTCONN'].includes(errnoOf(error));
}

/** A BackupError about `thing` in `cluster`; one of ours passes as it is. */
export function translateRbdError(error: unknown, cluster: string, thing: string): BackupError {
  if (isBackupError(error)) return error;
  const errno = errnoOf(error);
  const details = { errno, cluster };
  if (unreachable.has(errno)) {
    const why = errno === 'ESHUTDOWN' ? 'it has blocklisted this client' : messageOf(error);
    return new BackupError(
      'agent-unavailable',
      `cluster ${cluster} does not answer: ${thing} (${why}); check its monitors, its OSDs and the network (ceph -s)`,
      { cause: error, details },
    );
  }
  const meaning = Object.hasOwn(meanings, errno) ? meanings[errno] : undefined;
  const [code, sentence] = meaning ?? (['agent-failed', `fails: ${messageOf(error)}`] as const);
  return new BackupError(code, `${thing} in cluster ${cluster} ${sentence}`, { cause: error, details });
}
