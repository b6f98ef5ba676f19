/** Files of the posix store that a failed sync may have lost: their bytes are not to be trusted, though they can be read. */
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { BackupError } from '../model/errors.ts';
import { posixError, systemCode } from './posix-error.ts';

export type Losses = {
  /** `names` of `directory` were lost by `error`. */
  add(directory: string, names: readonly string[], error: unknown): void;
  /** A file was put anew. */
  replace(directory: string, name: string): void;
  /** Throws what lost a file that starts with `prefix` and is still there. */
  require(directory: string, prefix: string): Promise<void>;
  /** The directory was removed. */
  forget(directory: string): void;
};

export function createLosses(): Losses {
  const lost = new Map<string, Map<string, BackupError>>();
  return {
    add(directory, names, error) {
      if (names.length === 0) return;
      const failure = lostError(directory, error);
      const known = lost.get(directory) ?? new Map<string, BackupError>();
      for (const name of names) known.set(name, failure);
      lost.set(directory, known);
    },
    replace(directory, name) {
      lost.get(directory)?.delete(name);
    },
    async require(directory, prefix) {
      const known = lost.get(directory);
      if (known === undefined) return;
      for (const [name, failure] of known) {
        if (!name.startsWith(prefix)) continue;
        const isThere = await exists(join(directory, name));
        if (known.get(name) !== failure) continue;
        if (isThere) throw failure;
        known.delete(name);
      }
      if (known.size === 0 && lost.get(directory) === known) lost.delete(directory);
    },
    forget(directory) {
      lost.delete(directory);
    },
  };
}

/** The failure of a sync. Not retryable: a second one would succeed without having written anything. */
export function lostError(directory: string, error: unknown): BackupError {
  const cause = posixError(`write the files of ${directory} to stable storage`, error);
  return new BackupError(cause.code, cause.message, { cause: error, retryable: false });
}

/** True also where that cannot be told. */
async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    return systemCode(error) !== 'ENOENT';
  }
}
