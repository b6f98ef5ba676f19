/** One backend at a time on a directory: what another is making looks like what a dead process left half made. */
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from '../log.ts';
import { BackupError } from '../model/errors.ts';
import { errnoOf, translateFileError, unsupported } from './file-errors.ts';
import type { FileThreads } from './file-snapshots.ts';

/**
 * Locks `root`/.lock until the handle is closed, or the process ends, however it ends. `state-invalid` if it is
 * locked. Where locks cannot be had (no koffi, a file system without them) that is logged, and the handle holds nothing.
 */
export async function lockDirectory(deps: {
  /** For messages. */
  readonly directory: string;
  readonly root: string;
  readonly threads: FileThreads;
  readonly log: Logger;
}): Promise<FileHandle> {
  const { directory, log, root, threads } = deps;
  const path = join(root, '.lock');
  const handle = await open(path, 'a', 0o600).catch((error: unknown) => {
    throw translateFileError(error, path);
  });
  try {
    await threads.run({ kind: 'lock', fd: handle.fd }, [], new AbortController().signal);
    return handle;
  } catch (error) {
    if (unsupported(error) || errnoOf(error) === 'ENOLCK') {
      log.warn({ directory, err: error }, 'directory cannot be locked: let no second agent serve it');
      return handle;
    }
    await handle.close();
    if (errnoOf(error) !== 'EAGAIN') throw translateFileError(error, path);
    throw new BackupError(
      'state-invalid',
      `directory ${directory} is served by another agent: stop that one, or give this one another directory`,
      { cause: error },
    );
  }
}
