/**
 * Whether the root of the posix store is the store. A mount point whose file system is not mounted is an empty directory: every
 * object would seem to be gone, a removal to succeed, and a backup would go to the disk beneath. So the root of a store has a
 * marker file, and nothing is done without it. It starts as temporary files do: Python looks into containers only, and none can have such a name.
 * The directory beneath a share could be marked too, so a share has to be mounted besides.
 */
import { lstat, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BackupError } from '../model/errors.ts';
import { attempt, fileMode, posixError, systemCode } from './posix-error.ts';
import { isMounted } from './posix-file-systems.ts';
import { entriesOf } from './posix-listing.ts';

export const markerName = '.cinder-delta-store';
const markerText =
  'The directory above holds volume backups. cinder-delta does nothing in it while this file is absent.\n';

const pairPattern = /^[0-9a-f]{2}$/;
const ownPattern = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const objectPattern = /^volume_[0-9a-f-]{36}_\d{14}_backup_[0-9a-f-]{36}/;
/** Directory entries that are looked at in search of a backup. */
const mostEntries = 10_000;

export type PosixRoot = {
  /**
   * Throws `store-unavailable` unless the marker is there, and the share mounted. A directory that never had a marker gets it if it
   * holds a backup: Python made it.
   */
  require(): Promise<void>;
  /** Makes the directory, unless it is a share's, and the marker. Throws `store-unavailable` for a share that is not mounted. */
  adopt(): Promise<void>;
};

/** `share` has to be mounted on `root`; undefined for a plain directory. */
export function createPosixRoot(root: string, share: string | undefined): PosixRoot {
  const marker = join(root, markerName);
  let seen = false;

  const isMarked = async (): Promise<boolean> => {
    try {
      await lstat(marker);
      seen = true;
      return true;
    } catch (error) {
      if (isAbsent(error)) return false;
      throw posixError(`look at ${marker}`, error);
    }
  };

  const lost = (): BackupError =>
    new BackupError(
      'store-unavailable',
      `${root} is not the directory of the backups, or is not mounted: it has no file ${markerName}; mount its file system, or make that file if the directory is right`,
    );

  const requireShare = async (): Promise<void> => {
    if (share === undefined || (await isShareThere(root))) return;
    throw new BackupError(
      'store-unavailable',
      `${share} is not mounted on ${root}: mount it, and start the service again if nothing was ever stored there`,
    );
  };

  const mark = async (): Promise<void> => {
    try {
      await writeFile(marker, markerText, { flag: 'wx', mode: fileMode });
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw posixError(`make ${marker}`, error);
    }
    seen = true;
  };

  return {
    async adopt() {
      await requireShare();
      await attempt(`create directory ${root}`, mkdir(root, { recursive: true }));
      await mark();
    },
    async require() {
      await requireShare();
      if (await isMarked()) return;
      if (seen || !(await holdsBackup(root))) throw lost();
      try {
        await mark();
      } catch (error) {
        // A store that may only be read is proven by what it holds.
        if (!(error instanceof BackupError) || error.code !== 'store-denied') throw error;
      }
    },
  };
}

/** Looks for a directory that Cinder makes for a backup (`2e/07/<id>`), or an object in a directory of another name. */
async function holdsBackup(root: string): Promise<boolean> {
  let left = mostEntries;
  const some = async (
    path: string,
    isFound: (name: string) => Promise<boolean> | boolean,
  ): Promise<boolean> => {
    try {
      for await (const { name } of entriesOf(path)) {
        left -= 1;
        if (left < 0) return false;
        if (await isFound(name)) return true;
      }
    } catch (error) {
      // Others' directories (lost+found) are no matter.
      const isOthers = path !== root && ['EACCES', 'EPERM'].includes(systemCode(error));
      if (!isOthers && !isAbsent(error)) throw posixError(`list ${path}`, error);
    }
    return false;
  };
  return await some(root, (first) => {
    const path = join(root, first);
    if (!pairPattern.test(first)) return some(path, (name) => objectPattern.test(name));
    return some(path, (second) => pairPattern.test(second) && some(join(path, second), isOwn));
  });
}

async function isShareThere(root: string): Promise<boolean> {
  try {
    return await isMounted(root);
  } catch (error) {
    if (isAbsent(error)) return false;
    throw posixError(`look at ${root}`, error);
  }
}

function isOwn(name: string): boolean {
  return ownPattern.test(name);
}

function isAbsent(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'ENOENT' || code === 'ENOTDIR';
}
