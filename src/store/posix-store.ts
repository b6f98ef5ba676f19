/**
 * The posix store: one directory, below it a directory for each container, in it a file for each object; the layout of
 * PosixBackupDriver (cinder/backup/drivers/posix.py), with its modes.
 *
 * An object is written under a temporary name that starts with `.cinder-delta-` (no prefix does, so Python, which lists by
 * prefix, never sees it) and renamed when it is whole. After a power failure an object that was not flushed may be there with
 * wrong bytes: nobody trusts it, because the closing objects are put last, by `putStream`, which flushes what came before
 * and its own bytes before it shows the name.
 *
 * Nothing is made, removed, listed or called absent unless the root is known to be the store (posix-root.ts).
 */
import { access, chmod, constants, lstat, rename, rmdir, unlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { closedPrefix } from '../layout/names.ts';
import type { Logger } from '../log.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import type { CheckableStore } from './check-store.ts';
import type { ObjectStore, StoredObject } from './object-store.ts';
import { createDirectWrites, type DirectWrites } from './posix-direct.ts';
import {
  createDurability,
  createSyncFileSystemFinder,
  syncDirectory,
  type Durability,
} from './posix-durability.ts';
import { attempt, posixError, systemCode } from './posix-error.ts';
import { createFile, readFileInPieces, readFileInto, type NewFile } from './posix-files.ts';
import { entriesOf } from './posix-listing.ts';
import { createSmallFileWriter } from './posix-writer.ts';
import { createPosixPlaces, isTemporary, requireFileName, type PosixPlaces } from './posix-places.ts';
import { createPosixRoot } from './posix-root.ts';

/** Cinder's mode for container directories (put_container). */
const directoryMode = 0o770;
/** Containers that Cinder makes for one backup; others are shared, and stay. */
const ownContainer = /^[0-9a-f]{2}\/[0-9a-f]{2}\/[0-9a-f-]{36}$/;

export type PosixStoreOptions = {
  /** `backup_posix_path`, or the mount point of an NFS share. */
  readonly directory: string;
  /** The share that has to be mounted on `directory` before anything is done in it; undefined for a plain directory. */
  readonly share?: string | undefined;
  readonly log: Logger;
  /** The class path in `backups.service`: that of the posix driver unless given. */
  readonly service?: string;
};

export type PosixStore = ObjectStore &
  CheckableStore & {
    /** Removes temporary files of processes that have ended; returns how many. An absent container has none. */
    recover(container: string, signal: AbortSignal): Promise<number>;
    /** Takes the directory for the store of a service that has no backups yet, whatever it holds; makes it if it is absent. */
    adopt(signal: AbortSignal): Promise<void>;
  };

/** Nothing is touched before the first call; a new directory has to be adopted. */
export function createPosixStore(options: PosixStoreOptions): PosixStore {
  const places = createPosixPlaces(resolve(options.directory));
  const root = createPosixRoot(resolve(options.directory), options.share);
  const durability = createDurability(createSyncFileSystemFinder(), options.log);
  const smallFiles = createSmallFileWriter();
  const direct = createDirectWrites();
  const { log } = options;

  const existing = async (container: string): Promise<string> => {
    const directory = await places.find(container);
    if (directory !== undefined) return directory;
    await root.require();
    throw new BackupError(
      'object-missing',
      `container ${container} is absent below ${options.directory}; check that its file system is mounted`,
    );
  };

  const recover = async (container: string, signal: AbortSignal): Promise<number> => {
    throwIfAborted(signal);
    const directory = await places.find(container);
    if (directory === undefined) return 0;
    const removed = await removeAbandoned(directory, places, signal);
    if (removed > 0) log.info({ container, removed }, 'removed temporary files of processes that have ended');
    return removed;
  };

  /** A call that fails may do so because the container was removed or replaced: it is looked for anew. */
  const forgetting = async <T>(container: string, call: Promise<T>): Promise<T> => {
    try {
      return await call;
    } catch (error) {
      places.forget(container);
      if (isBackupError(error, 'object-missing')) await root.require();
      throw error;
    }
  };

  /** Writes a file with `fill` and renames it to `name`. A failure leaves nothing behind. */
  const store = async (
    container: string,
    directory: string,
    name: string,
    signal: AbortSignal,
    fill: (file: NewFile) => Promise<void>,
    past: DirectWrites | null = null,
  ): Promise<void> => {
    const temporary = join(directory, places.temporaryName());
    const file = await forgetting(container, createFile(temporary, past));
    try {
      await fill(file);
      throwIfAborted(signal);
      await file.close();
      const path = join(directory, name);
      await attempt(`rename a temporary file to ${path}`, rename(temporary, path));
    } catch (error) {
      await file.discard();
      throw error;
    }
  };

  return {
    kind: 'posix',
    service: options.service ?? 'cinder.backup.drivers.posix.PosixBackupDriver',
    recover,

    async adopt(signal) {
      throwIfAborted(signal);
      await root.adopt();
    },

    async check(_container, signal) {
      throwIfAborted(signal);
      await root.require();
      const { directory } = options;
      await attempt(`write into ${directory}`, access(directory, constants.W_OK | constants.X_OK));
      return [];
    },

    async ensureContainer(container, signal) {
      throwIfAborted(signal);
      smallFiles.prepare();
      await root.require();
      const { directory, made } = await places.make(container);
      if (made.length === 0) {
        await recover(container, signal);
        return;
      }
      await attempt(`set the mode of ${directory}`, chmod(directory, directoryMode));
      durability.addDirectories(directory, made);
    },

    async put(container, key, body, { signal }) {
      throwIfAborted(signal);
      const name = requireFileName(key);
      const directory = await existing(container);
      const small = smallFiles.write(directory, [{ temporary: places.temporaryName(), name, body }]);
      if (small === undefined) {
        const past = (await direct.favours(directory, body.length)) ? direct : null;
        await store(container, directory, name, signal, (file) => file.write(body, signal), past);
      } else await forgetting(container, small);
      await durability.addFile(directory, name, body.length);
    },

    async putMany(container, objects, { signal }) {
      throwIfAborted(signal);
      const files = objects.map(({ key, body }) => ({
        temporary: places.temporaryName(),
        name: requireFileName(key),
        body,
      }));
      const directory = await existing(container);
      const small = smallFiles.write(directory, files);
      if (small === undefined) {
        for (const { name, body } of files) {
          await store(container, directory, name, signal, (file) => file.write(body, signal));
        }
      } else await forgetting(container, small);
      for (const { name, body } of files) await durability.addFile(directory, name, body.length);
    },

    async putStream(container, key, body, { signal }) {
      throwIfAborted(signal);
      const name = requireFileName(key);
      const directory = await existing(container);
      await store(container, directory, name, signal, async (file) => {
        for await (const piece of body) {
          await file.write(piece, signal);
          file.syncAhead();
        }
        await durability.flush(directory, closedPrefix(name), signal);
        await file.sync();
      });
      await syncDirectory(directory);
    },

    async flush(container, prefix, signal) {
      throwIfAborted(signal);
      const directory = await places.find(container);
      if (directory !== undefined) await durability.flush(directory, prefix, signal);
    },

    async get(container, key, { signal }) {
      throwIfAborted(signal);
      const name = requireFileName(key);
      const directory = await existing(container);
      return await forgetting(container, readFileInPieces(join(directory, name), signal));
    },

    async getInto(container, key, target, { signal }) {
      throwIfAborted(signal);
      const name = requireFileName(key);
      const directory = await existing(container);
      return await forgetting(container, readFileInto(join(directory, name), target, signal));
    },

    async *list(container, prefix, signal) {
      throwIfAborted(signal);
      const directory = await places.find(container);
      await root.require();
      if (directory !== undefined) yield* listDirectory(directory, prefix, signal);
    },

    async remove(container, key, signal) {
      throwIfAborted(signal);
      const name = requireFileName(key);
      const directory = await places.find(container);
      await root.require();
      if (directory === undefined) return;
      await removeFile(join(directory, name));
      durability.addRemoval(directory);
    },

    async removeContainer(container, signal) {
      throwIfAborted(signal);
      const directory = await places.find(container);
      await root.require();
      if (directory === undefined) return;
      await recover(container, signal);
      if (ownContainer.test(container)) await removeEmpty(directory, container, places, durability);
    },

    async close() {
      await smallFiles.close();
      await durability.settle();
    },
  };
}

/** The regular files of a directory. Their sizes are not looked at: that would be a call for each. */
async function* listDirectory(
  directory: string,
  prefix: string,
  signal: AbortSignal,
): AsyncGenerator<readonly StoredObject[]> {
  for await (const names of fileNames(directory)) {
    throwIfAborted(signal);
    yield names
      .filter((name) => name.startsWith(prefix) && !isTemporary(name))
      .map((key) => ({ key, sizeBytes: null }));
  }
  throwIfAborted(signal);
}

const namesInPage = 256;

/** The names of the regular files in a directory, page by page. An absent directory has none. */
async function* fileNames(directory: string): AsyncGenerator<readonly string[]> {
  try {
    let page: string[] = [];
    for await (const entry of entriesOf(directory)) {
      if (entry.isFile()) page.push(entry.name);
      if (page.length < namesInPage) continue;
      yield page;
      page = [];
    }
    yield page;
  } catch (error) {
    throw posixError(`list ${directory}`, error);
  }
}

async function removeAbandoned(directory: string, places: PosixPlaces, signal: AbortSignal): Promise<number> {
  let removed = 0;
  for await (const names of fileNames(directory)) {
    for (const name of names.filter(isTemporary)) {
      throwIfAborted(signal);
      const path = join(directory, name);
      const stats = await lstat(path).catch(() => undefined);
      if (stats === undefined || !places.isAbandoned(name, stats.mtimeMs)) continue;
      await removeFile(path);
      removed += 1;
    }
  }
  return removed;
}

async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw posixError(`remove ${path}`, error);
  }
}

async function removeEmpty(
  directory: string,
  container: string,
  places: PosixPlaces,
  durability: Durability,
): Promise<void> {
  try {
    await rmdir(directory);
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOTEMPTY' || code === 'EEXIST') return;
    if (code !== 'ENOENT') throw posixError(`remove ${directory}`, error);
  }
  places.forget(container);
  await durability.forget(directory);
}
