/**
 * What has been put, or removed, but may still be lost with the power, per directory, and how it gets onto stable storage: few
 * files by fdatasync, many by one syncfs where the file system is local and reports its errors there (Linux 5.8).
 * A sync starts by itself whenever none runs and 4 MiB wait. Bounded: at 1024 files or 64 MiB a second one starts, and puts
 * wait for those that do not keep up.
 *
 * After a failed sync the kernel calls the lost pages clean, so a second one would wrongly succeed: the files are remembered until
 * they are removed or put anew, and the failure is delivered to every flush that covers one of them. It is not retryable.
 */
import { constants, open, type FileHandle } from 'node:fs/promises';
import { release } from 'node:os';
import { dirname, join } from 'node:path';
import { untilAborted } from '../async/until-aborted.ts';
import type { Logger } from '../log.ts';
import { throwIfAborted } from '../model/errors.ts';
import { attempt, systemCode } from './posix-error.ts';
import { isLocal } from './posix-file-systems.ts';
import { createLosses, lostError } from './posix-losses.ts';

const maxPendingFiles = 1024;
const maxPendingBytes = 64 * 1024 * 1024;
/** Where no sync runs, so much begins one: the disk then works while objects are made, not at their end. */
const earlyBytes = 4 * 1024 * 1024;
const maxSyncsAhead = 2;
const sideBySide = 4;
const wholeFileSystemFrom = 32;

/** Calls syncfs(2) on an open file; throws if anything of the file system could not be written. */
export type SyncFileSystem = (fd: number) => Promise<void>;

/** How a directory's whole file system is synced; undefined where that is not to be trusted. */
export type FindSyncFileSystem = (directory: string) => Promise<SyncFileSystem | undefined>;

export type Durability = {
  /** A file was renamed into place. Waits while too much is unsynced. */
  addFile(directory: string, name: string, sizeBytes: number): Promise<void>;
  /** Files were removed. */
  addRemoval(directory: string): void;
  /** Directories were made. */
  addDirectories(directory: string, made: readonly string[]): void;
  /**
   * Everything added for `directory` before the call is on stable storage when this returns, but for files that do not start with
   * `prefix`, whose loss is not told.
   */
  flush(directory: string, prefix: string, signal: AbortSignal): Promise<void>;
  /** The directory was removed: nothing of it needs to survive. */
  forget(directory: string): Promise<void>;
  /** Waits for syncs that run, and closes what is open. */
  settle(): Promise<void>;
};

type Pending = {
  names: string[];
  sizeBytes: number;
  made: string[];
  hasRemoved: boolean;
  /**
   * The directory itself, open since the first file: syncfs reports errors since the opening. Not after a failure: what is mounted
   * there may be another by then, and the one that failed is not to be held.
   */
  handle: Promise<FileHandle> | undefined;
  /** The newest sync; each waits for the one before. It fails if the directory itself could not be synced. */
  running: Promise<void>;
  /** The files of each sync that has not ended. */
  readonly batches: Set<readonly string[]>;
};

export function createDurability(findSyncFileSystem: FindSyncFileSystem, log: Logger): Durability {
  const directories = new Map<string, Pending>();
  const losses = createLosses();
  let hasLostWhole = false;

  const pendingOf = (directory: string): Pending => {
    let pending = directories.get(directory);
    if (pending === undefined) {
      const running = Promise.resolve();
      const batches = new Set<readonly string[]>();
      pending = { names: [], sizeBytes: 0, made: [], hasRemoved: false, handle: undefined, running, batches };
      directories.set(directory, pending);
    }
    pending.handle ??= openDirectory(directory);
    return pending;
  };

  /**
   * False unless all is synced. After a failure never again: of files that were being written meanwhile only their own sync tells
   * that they were lost.
   */
  const syncWhole = async (directory: string, pending: Pending, handle: FileHandle): Promise<boolean> => {
    const sync = hasLostWhole ? undefined : await findSyncFileSystem(directory);
    if (sync === undefined) return false;
    try {
      await sync(handle.fd);
      return true;
    } catch (error) {
      if (!hasLostWhole) {
        log.warn(
          { directory, err: error },
          'a sync has failed: files are synced one by one until the restart',
        );
      }
      hasLostWhole = true;
      for (const names of [...pending.batches, pending.names]) losses.add(directory, names, error);
      return false;
    }
  };

  /** What concerns the directory itself stays pending until it is done. */
  const syncBatch = async (directory: string, pending: Pending, names: readonly string[]): Promise<void> => {
    const { made, hasRemoved } = pending;
    if (names.length + made.length === 0 && !hasRemoved) return;
    pending.made = [];
    pending.hasRemoved = false;
    try {
      const handle = await (pending.handle ??= openDirectory(directory));
      if (names.length >= wholeFileSystemFrom && (await syncWhole(directory, pending, handle))) return;
      await syncFiles(directory, names, (name, error) => losses.add(directory, [name], error));
      await handle.sync();
      for (const path of made) await syncDirectory(dirname(path));
    } catch (error) {
      // Of a directory that is gone, with nothing put into it, nothing can come back.
      if (names.length === 0 && made.length === 0 && systemCode(error) === 'ENOENT') return;
      pending.made.unshift(...made);
      pending.hasRemoved ||= hasRemoved;
      await letGo(pending).catch(() => undefined);
      losses.add(directory, names, error);
      throw lostError(directory, error);
    }
  };

  /** Starts a sync of what is pending now. */
  const start = (directory: string, pending: Pending): Promise<void> => {
    const { names, running } = pending;
    pending.names = [];
    pending.sizeBytes = 0;
    pending.batches.add(names);
    const sync = running
      .catch(() => undefined)
      .then(() => syncBatch(directory, pending, names))
      .finally(() => pending.batches.delete(names));
    // A failure waits for the flush that has to report it.
    sync.catch(() => undefined);
    pending.running = sync;
    return sync;
  };

  const drop = async (directory: string, pending: Pending): Promise<void> => {
    directories.delete(directory);
    await letGo(pending);
  };

  const forget = async (directory: string): Promise<void> => {
    const pending = directories.get(directory);
    if (pending !== undefined) {
      await pending.running.catch(() => undefined);
      await drop(directory, pending);
    }
    losses.forget(directory);
  };

  const flushPending = async (directory: string, pending: Pending, signal: AbortSignal): Promise<void> => {
    const sync = start(directory, pending);
    try {
      // It goes on behind a signal that aborts: others may rely on it.
      await untilAborted(sync, signal);
    } finally {
      const { names, made, hasRemoved, batches } = pending;
      const isIdle = pending.running === sync && batches.size + names.length + made.length === 0;
      if (isIdle && !hasRemoved) await drop(directory, pending);
    }
  };

  return {
    async addFile(directory, name, sizeBytes) {
      losses.replace(directory, name);
      const pending = pendingOf(directory);
      pending.names.push(name);
      pending.sizeBytes += sizeBytes;
      const isMuch = pending.names.length >= maxPendingFiles || pending.sizeBytes >= maxPendingBytes;
      if (isMuch && pending.batches.size >= maxSyncsAhead) await pending.running.catch(() => undefined);
      else if (isMuch || (pending.batches.size === 0 && pending.sizeBytes >= earlyBytes)) {
        void start(directory, pending);
      }
    },
    addRemoval(directory) {
      pendingOf(directory).hasRemoved = true;
    },
    addDirectories(directory, made) {
      pendingOf(directory).made.push(...made);
    },
    async flush(directory, prefix, signal) {
      throwIfAborted(signal);
      const pending = directories.get(directory);
      if (pending !== undefined) await flushPending(directory, pending, signal);
      await losses.require(directory, prefix);
    },
    forget,
    async settle() {
      for (const directory of Array.from(directories.keys())) await forget(directory);
    },
  };
}

/** Closes the directory. */
async function letGo(pending: Pending): Promise<void> {
  const handle = await pending.handle?.catch(() => undefined);
  pending.handle = undefined;
  await handle?.close();
}

/** Its failure is that of whoever waits for it. */
function openDirectory(path: string): Promise<FileHandle> {
  const handle = open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  handle.catch(() => undefined);
  return handle;
}

/** fdatasync of the files, a few side by side. A file that is gone needs none. */
async function syncFiles(
  directory: string,
  names: readonly string[],
  onLost: (name: string, error: unknown) => void,
): Promise<void> {
  const waiting = names.values();
  const work = async (): Promise<void> => {
    for (const name of waiting) {
      await syncFile(join(directory, name)).catch((error: unknown) => onLost(name, error));
    }
  };
  await Promise.all(Array.from({ length: Math.min(sideBySide, names.length) }, work));
}

async function syncFile(path: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return;
    throw error;
  }
  try {
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

/** fsync of a directory: the names in it survive. */
export async function syncDirectory(path: string): Promise<void> {
  const action = `sync directory ${path}`;
  const handle = await attempt(action, open(path, constants.O_RDONLY | constants.O_DIRECTORY));
  try {
    await attempt(action, handle.sync());
  } finally {
    await handle.close();
  }
}

/** Finds syncfs of the C library, for local file systems of a kernel that reports errors there. */
export function createSyncFileSystemFinder(): FindSyncFileSystem {
  let syncfs: Promise<SyncFileSystem | undefined> | undefined;
  return async (directory) => {
    if (!(await isLocal(directory))) return undefined;
    return await (syncfs ??= loadSyncFileSystem());
  };
}

async function loadSyncFileSystem(): Promise<SyncFileSystem | undefined> {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  if (process.platform !== 'linux' || major < 5 || (major === 5 && minor < 8)) return undefined;
  try {
    const { default: koffi } = await import('koffi');
    const syncfs = koffi.load('libc.so.6').func('int syncfs(int fd)');
    return (fd) =>
      new Promise((resolve, reject) => {
        syncfs.async(fd, (error: unknown, result: unknown) => {
          if (error === null && result === 0) resolve();
          else reject(new Error(`syncfs failed with ${String(error ?? result)}`));
        });
      });
  } catch {
    return undefined;
  }
}
