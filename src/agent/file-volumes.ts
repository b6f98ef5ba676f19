/** The raw files of a directory as volumes: `volume-<uuid>`, regular files only, never through a link. */
import { constants, type BigIntStats } from 'node:fs';
import { link, lstat, open, readdir, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { volumeNamePattern } from '../model/names.ts';
import { BackupError, isBackupError } from '../model/errors.ts';
import type { VolumeInfo } from '../protocol/calls.ts';
import { errnoOf, translateFileError } from './file-errors.ts';

export type OpenVolume = { readonly handle: FileHandle; readonly info: VolumeInfo };

/** Opens a regular file without following a link at its end. The caller closes the handle. */
export async function openRegular(path: string, flags: number, thing: string): Promise<FileHandle> {
  let handle: FileHandle;
  try {
    handle = await open(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    throw translateFileError(error, thing);
  }
  try {
    if ((await handle.stat()).isFile()) return handle;
    throw new BackupError('state-invalid', `${thing} is not a regular file: only regular files are served`);
  } catch (error) {
    await handle.close();
    throw translateFileError(error, thing);
  }
}

/** Makes the names of a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Inode and time of birth: the next file of this name has others, also after it took over the inode. */
function identityOf(stats: BigIntStats): string {
  return `file:${stats.ino}:${stats.birthtimeNs}`;
}

async function describe(volume: string, handle: FileHandle): Promise<VolumeInfo> {
  const stats = await handle.stat({ bigint: true });
  return {
    name: volume,
    size_bytes: Number(stats.size),
    identity: identityOf(stats),
    allocated_bytes: Number(stats.blocks * 512n),
  };
}

export type FileVolumes = {
  list(): Promise<VolumeInfo[]>;
  open(volume: string, mode: 'read' | 'write'): Promise<OpenVolume>;
  get(volume: string): Promise<VolumeInfo>;
  /** True if anything has the volume's name, be it one that is not served. */
  has(volume: string): Promise<boolean>;
  create(volume: string, sizeBytes: number, temporary: string): Promise<VolumeInfo>;
  resize(volume: string, sizeBytes: number): Promise<VolumeInfo>;
};

export function createFileVolumes(directory: string): FileVolumes {
  const openVolume = async (volume: string, mode: 'read' | 'write'): Promise<OpenVolume> => {
    const flags = mode === 'read' ? constants.O_RDONLY : constants.O_RDWR;
    const handle = await openRegular(join(directory, volume), flags, volume);
    try {
      return { handle, info: await describe(volume, handle) };
    } catch (error) {
      await handle.close();
      throw error;
    }
  };

  const get = async (volume: string): Promise<VolumeInfo> => {
    const { handle, info } = await openVolume(volume, 'read');
    await handle.close();
    return info;
  };

  return {
    open: openVolume,
    get,
    async has(volume) {
      try {
        await lstat(join(directory, volume));
        return true;
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') return false;
        throw translateFileError(error, volume);
      }
    },
    async list() {
      const entries = await readdir(directory, { withFileTypes: true }).catch((error: unknown) => {
        throw translateFileError(error, `directory ${directory}`);
      });
      const names = entries.filter((entry) => entry.isFile() && volumeNamePattern.test(entry.name));
      const found: VolumeInfo[] = [];
      for (const { name } of names.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
        try {
          found.push(await get(name));
        } catch (error) {
          if (!isBackupError(error, 'not-found')) throw error;
        }
      }
      return found;
    },
    async create(volume, sizeBytes, temporary) {
      try {
        const handle = await open(temporary, 'wx', 0o600);
        try {
          await handle.truncate(sizeBytes);
          await handle.sync();
        } finally {
          await handle.close();
        }
        await link(temporary, join(directory, volume));
      } catch (error) {
        throw translateFileError(error, `${volume} of ${sizeBytes} bytes`);
      } finally {
        await rm(temporary, { force: true });
      }
      await syncDirectory(directory);
      return await get(volume);
    },
    async resize(volume, sizeBytes) {
      const { handle, info } = await openVolume(volume, 'write');
      try {
        if (sizeBytes < info.size_bytes) {
          throw new BackupError(
            'message-invalid',
            `${volume} is ${info.size_bytes} bytes: it cannot shrink to ${sizeBytes}, only grow`,
          );
        }
        await handle.truncate(sizeBytes);
        await handle.sync();
        return await describe(volume, handle);
      } catch (error) {
        throw translateFileError(error, `${volume} of ${sizeBytes} bytes`);
      } finally {
        await handle.close();
      }
    },
  };
}
