/**
 * Snapshots of raw files: `<directory>/.snapshots/<volume>/<snapshot>` and beside it `<snapshot>.json`, its record.
 * A snapshot exists when its record does. It is made under a temporary name, flushed, renamed, and the record comes
 * last; it is removed record first. Whatever a dead process leaves in between is not listed, and removed at start.
 */
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import {
  copyFile,
  mkdir,
  open,
  readFile,
  readdir,
  rename,
  rm,
  rmdir,
  type FileHandle,
} from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { systemClock } from '../model/clock.ts';
import type { Logger } from '../log.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import { snapshotNamePattern, volumeNamePattern } from '../model/names.ts';
import type { SnapshotInfo } from '../protocol/calls.ts';
import { errnoOf, translateFileError, unsupported } from './file-errors.ts';
import type { FileStep, FileStepResult } from './file-steps.ts';
import { openRegular, syncDirectory, type OpenVolume } from './file-volumes.ts';
import { settledStat } from './settled-stat.ts';
import type { ThreadPool } from './thread-pool.ts';

export type FileThreads = ThreadPool<FileStep, FileStepResult>;

const recordSchema = z.object({
  name: z.string().regex(snapshotNamePattern),
  identity: z.uuid(),
  volume: z.string(),
  volume_identity: z.string(),
  size_bytes: z.number().int().min(0),
  created_at: z.iso.datetime(),
  method: z.enum(['reflink', 'copy']),
});
export type SnapshotRecord = z.infer<typeof recordSchema>;

export type OpenRecord = { readonly handle: FileHandle; readonly record: SnapshotRecord };

export type FileSnapshots = {
  pathOf(volume: string, snapshot: string): string;
  read(volume: string, snapshot: string): Promise<SnapshotRecord>;
  /** Undefined if there is none. */
  find(volume: string, snapshot: string): Promise<SnapshotRecord | undefined>;
  /**
   * The snapshot's bytes and its record, proven to belong together: `state-invalid` if it was made anew meanwhile. The caller
   * closes the handle.
   */
  open(volume: string, snapshot: string): Promise<OpenRecord>;
  /** Those that can be read. Others are logged and left out: one damaged record keeps nobody from the rest. */
  list(volume: string): Promise<SnapshotRecord[]>;
  /** Names of volumes that have snapshots, whether they are still there or not. */
  volumes(): Promise<string[]>;
  /** Throws `cancelled` up to the moment when the snapshot gets its name. */
  create(volume: OpenVolume, snapshot: string, signal: AbortSignal): Promise<SnapshotRecord>;
  remove(volume: string, snapshot: string): Promise<void>;
  /** A name in the snapshot directory that `recover` removes. */
  readonly temporary: () => string;
  recover(): Promise<readonly string[]>;
};

const temporaryPrefix = '.making-';
const recordSuffix = '.json';

export function infoOf(record: SnapshotRecord): SnapshotInfo {
  const { name, size_bytes, identity, created_at } = record;
  return { name, size_bytes, identity, created_at };
}

export function createFileSnapshots(deps: {
  readonly root: string;
  readonly threads: FileThreads;
  readonly log: Logger;
}): FileSnapshots {
  const { log, root, threads } = deps;
  const directoryOf = (volume: string) => join(root, volume);
  const pathOf = (volume: string, snapshot: string) => join(root, volume, snapshot);
  const recordPath = (volume: string, snapshot: string) => pathOf(volume, snapshot) + recordSuffix;
  const temporary = () => join(root, `${temporaryPrefix}${randomUUID()}`);

  const read = async (volume: string, snapshot: string): Promise<SnapshotRecord> => {
    const thing = `snapshot ${snapshot} of ${volume}`;
    let text: string;
    try {
      text = await readFile(recordPath(volume, snapshot), 'utf8');
    } catch (error) {
      throw translateFileError(error, thing);
    }
    const parsed = recordSchema.safeParse(parseJson(text));
    if (parsed.success && parsed.data.name === snapshot && parsed.data.volume === volume) return parsed.data;
    throw new BackupError(
      'corrupt',
      `the record of ${thing} (${recordPath(volume, snapshot)}) is damaged: remove the snapshot`,
      { cause: parsed.error },
    );
  };

  const find = async (volume: string, snapshot: string): Promise<SnapshotRecord | undefined> => {
    try {
      return await read(volume, snapshot);
    } catch (error) {
      if (isBackupError(error, 'not-found')) return undefined;
      throw error;
    }
  };

  const write = async (record: SnapshotRecord): Promise<void> => {
    const name = temporary();
    try {
      const handle = await open(name, 'wx', 0o600);
      try {
        await handle.writeFile(`${JSON.stringify(record, null, 2)}\n`);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(name, recordPath(record.volume, record.name));
    } finally {
      await rm(name, { force: true });
    }
  };

  /** Takes back names that were just given. What resists is told; a file without its record goes at the next start. */
  const takeBack = async (paths: readonly string[]): Promise<void> => {
    for (const path of paths) {
      try {
        await rm(path, { force: true });
      } catch (err) {
        log.error({ path, err }, 'a file of a snapshot that failed cannot be removed: remove it by hand');
        return;
      }
    }
  };

  const snapshotNames = async (volume: string): Promise<string[]> => {
    const names = await readdir(directoryOf(volume)).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return [];
      throw translateFileError(error, `snapshots of ${volume}`);
    });
    return names
      .filter((name) => name.endsWith(recordSuffix))
      .map((name) => name.slice(0, -recordSuffix.length))
      .filter((name) => snapshotNamePattern.test(name))
      .toSorted(byCodeUnit);
  };

  const copy = async (source: OpenVolume, target: string, signal: AbortSignal): Promise<void> => {
    const { handle, info } = source;
    await handle.sync();
    const before = await settledStat(handle);
    const copied = await open(target, 'wx+', 0o400);
    try {
      await copied.truncate(info.size_bytes);
      for (let from = 0; from < info.size_bytes;) {
        const step = {
          kind: 'copy',
          sourceFd: handle.fd,
          targetFd: copied.fd,
          from,
          end: info.size_bytes,
        } as const;
        from = (await threads.run(step, [], signal)).next;
      }
    } finally {
      await copied.close();
    }
    const after = await handle.stat({ bigint: true });
    if (after.mtimeNs !== before.mtimeNs || after.size !== before.size) {
      throw new BackupError(
        'state-invalid',
        `${info.name} was written to while it was copied: detach it, or keep it on a file system with reflinks (XFS, Btrfs)`,
      );
    }
  };

  return {
    pathOf,
    read,
    find,
    temporary,
    async open(volume, snapshot) {
      const thing = `snapshot ${snapshot} of ${volume}`;
      const before = await read(volume, snapshot);
      const handle = await openRegular(pathOf(volume, snapshot), constants.O_RDONLY, thing);
      try {
        const record = await read(volume, snapshot);
        requireSame(before, record);
        const { size } = await handle.stat();
        if (size === record.size_bytes) return { handle, record };
        throw new BackupError(
          'corrupt',
          `${thing} has ${size} bytes, its record says ${record.size_bytes}: remove the snapshot`,
        );
      } catch (error) {
        await handle.close();
        throw error;
      }
    },
    async list(volume) {
      const records: SnapshotRecord[] = [];
      for (const snapshot of await snapshotNames(volume)) {
        try {
          const record = await find(volume, snapshot);
          if (record !== undefined) records.push(record);
        } catch (err) {
          if (!isBackupError(err) || err.retryable) throw err;
          log.error({ volume, snapshot, err }, 'snapshot left out of a list: its record cannot be read');
        }
      }
      return records;
    },
    async volumes() {
      const entries = await readdir(root, { withFileTypes: true }).catch((error: unknown) => {
        throw translateFileError(error, `directory ${root}`);
      });
      const found: string[] = [];
      for (const entry of entries) {
        if (!entry.isDirectory() || !volumeNamePattern.test(entry.name)) continue;
        if ((await snapshotNames(entry.name)).length > 0) found.push(entry.name);
      }
      return found.toSorted(byCodeUnit);
    },
    async create(source, snapshot, signal) {
      const volume = source.info.name;
      const making = temporary();
      const named: string[] = [];
      try {
        await mkdir(directoryOf(volume), { recursive: true, mode: 0o700 });
        const reflinked = await reflink(source.handle, making);
        if (!reflinked) await copy(source, making, signal);
        const made = await openRegular(making, constants.O_RDONLY, snapshot);
        let size: number;
        try {
          await made.chmod(0o400);
          await made.sync();
          size = (await made.stat()).size;
        } finally {
          await made.close();
        }
        throwIfAborted(signal);
        await rename(making, pathOf(volume, snapshot));
        named.unshift(pathOf(volume, snapshot));
        const record: SnapshotRecord = {
          name: snapshot,
          identity: randomUUID(),
          volume,
          volume_identity: source.info.identity,
          size_bytes: size,
          created_at: systemClock.now().toISOString(),
          method: reflinked ? 'reflink' : 'copy',
        };
        await write(record);
        named.unshift(recordPath(volume, snapshot));
        await syncDirectory(directoryOf(volume));
        return record;
      } catch (error) {
        await takeBack(named);
        throw translateFileError(error, `snapshot ${snapshot} of ${volume}`);
      } finally {
        await rm(making, { force: true });
      }
    },
    async remove(volume, snapshot) {
      const directory = directoryOf(volume);
      try {
        await rm(recordPath(volume, snapshot), { force: true });
        await rm(pathOf(volume, snapshot), { force: true });
        await syncDirectory(directory);
        await rmdir(directory);
      } catch (error) {
        if (!['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes(errnoOf(error))) {
          throw translateFileError(error, `snapshot ${snapshot} of ${volume}`);
        }
      }
    },
    async recover() {
      const removed: string[] = [];
      const discard = async (path: string) => {
        await rm(path, { force: true });
        removed.push(path);
      };
      for (const entry of await readdir(root, { withFileTypes: true })) {
        const path = join(root, entry.name);
        if (entry.isFile() && entry.name.startsWith(temporaryPrefix)) await discard(path);
        if (!entry.isDirectory()) continue;
        const names = new Set(await readdir(path));
        for (const name of names) {
          const isRecord = name.endsWith(recordSuffix);
          const snapshot = isRecord ? name.slice(0, -recordSuffix.length) : name;
          if (!snapshotNamePattern.test(snapshot)) continue;
          if (!names.has(isRecord ? snapshot : snapshot + recordSuffix)) await discard(join(path, name));
        }
      }
      return removed;
    },
  };
}

/** Throws `state-invalid` if a snapshot was made anew between its two records. */
export function requireSame(before: SnapshotRecord, now: SnapshotRecord): void {
  if (now.identity === before.identity) return;
  throw new BackupError(
    'state-invalid',
    `snapshot ${now.name} of ${now.volume} was made anew while it was opened`,
  );
}

/** Clones the file that `source` holds open; false where the file system cannot. The path is that of the open file. */
export async function reflink(source: FileHandle, target: string): Promise<boolean> {
  const flags = constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE;
  try {
    await copyFile(`/proc/self/fd/${source.fd}`, target, flags);
    return true;
  } catch (error) {
    await rm(target, { force: true });
    if (unsupported(error) || ['EXDEV', 'EINVAL'].includes(errnoOf(error))) return false;
    throw error;
  }
}

function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : 1;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
