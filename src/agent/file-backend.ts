/**
 * Volumes as raw files of one directory (`volume-<uuid>`), snapshots under `.snapshots` of the same.
 *
 * Entry: createFileBackend. A snapshot is a reflink where the file system has them (XFS, Btrfs), else a copy that
 * keeps holes; what changed is told by physical extents where that works, else by comparing bytes.
 *
 *   at the same time on one volume     allowed
 *   snapshot create / snapshot delete  one after the other (a lock per volume)
 *   restore target / restore target    no: the second is `state-invalid`
 *   restore target / resize            no: `state-invalid`
 *   anything / reading a snapshot      yes: readers hold the file open, also while its name is removed
 *   two backends on one directory      no: the second is `state-invalid` when it is created
 *
 * Everything slow runs in `file-worker`; the event loop opens, stats and renames.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, rm, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from '../log.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import type { BackendInfo } from '../protocol/calls.ts';
import { lockDirectory } from './file-lock.ts';
import { openFileSnapshot } from './file-source.ts';
import { translateFileError, unsupported } from './file-errors.ts';
import { findFileRanges } from './file-ranges.ts';
import { createFileSnapshots, infoOf, reflink, type FileThreads, type OpenRecord } from './file-snapshots.ts';
import { stepFlags, type FileStep, type FileStepResult } from './file-steps.ts';
import { previousGone } from './range-checks.ts';
import { createFileTarget } from './file-target.ts';
import { createFileVolumes } from './file-volumes.ts';
import { createThreadPool, workerModule } from './thread-pool.ts';
import type { VolumeBackend } from './volume-backend.ts';
import { createVolumeLocks } from './volume-locks.ts';

/** One thread walks while another copies; more would only fight over the same disk. */
const fileThreads = 2;

/**
 * Throws `config-invalid` if `directory` is not one, `agent-failed` if it cannot be written to, `state-invalid` while
 * another backend, of this process or another, serves it.
 */
export async function createFileBackend(options: {
  readonly name: string;
  readonly directory: string;
  readonly log: Logger;
}): Promise<VolumeBackend> {
  const { directory, name, log } = options;
  const root = join(directory, '.snapshots');
  await requireDirectory(name, directory);
  await mkdir(root, { recursive: true, mode: 0o700 }).catch((error: unknown) => {
    throw translateFileError(error, `directory ${root}`);
  });

  const threads: FileThreads = createThreadPool<FileStep, FileStepResult>({
    module: workerModule('file-worker'),
    threads: fileThreads,
  });
  const volumes = createFileVolumes(directory);
  const snapshots = createFileSnapshots({ root, threads, log });
  const locked = createVolumeLocks();
  const targets = new Set<string>();

  const requireNoTarget = (volume: string) => {
    if (!targets.has(volume)) return;
    throw new BackupError('state-invalid', `${volume} is being restored to: wait until that has ended`);
  };

  await using opening = new AsyncDisposableStack();
  opening.defer(() => threads.close());
  const lock = await lockDirectory({ directory, root, threads, log });
  opening.defer(() => lock.close());
  const close = async () => {
    await threads.close();
    await lock.close();
  };
  const found = await probe(threads, snapshots.temporary).catch((error: unknown) => {
    throw translateFileError(error, `directory ${root}`);
  });
  const info: BackendInfo = {
    name,
    type: 'file',
    delta: found.extentsWork ? 'extents' : 'bytes',
    restore: true,
    create_volume: true,
  };
  log.info({ backend: name, directory, delta: info.delta, holes: found.holesWork }, 'file backend opened');
  opening.move();

  return {
    info,
    listVolumes: () => volumes.list(),
    async listGone() {
      const gone: string[] = [];
      for (const volume of await snapshots.volumes()) if (!(await volumes.has(volume))) gone.push(volume);
      return gone;
    },
    listSnapshots: async (volume) => (await snapshots.list(volume)).map(infoOf),
    async getVolume(volume) {
      const detail = await volumes.get(volume);
      return { ...detail, snapshots: (await snapshots.list(volume)).map(infoOf) };
    },
    createVolume: (volume, sizeBytes) => volumes.create(volume, sizeBytes, snapshots.temporary()),
    async resizeVolume(volume, sizeBytes) {
      requireNoTarget(volume);
      return await volumes.resize(volume, sizeBytes);
    },
    async createSnapshot(volume, snapshot, signal) {
      throwIfAborted(signal);
      return await locked(
        volume,
        async () => {
          const source = await volumes.open(volume, 'read');
          try {
            const existing = await snapshots.find(volume, snapshot);
            if (existing === undefined) return infoOf(await snapshots.create(source, snapshot, signal));
            if (existing.volume_identity === source.info.identity) return infoOf(existing);
            throw new BackupError(
              'already-exists',
              `snapshot ${snapshot} exists, but of a file that was ${volume} before: remove it first`,
            );
          } finally {
            await source.handle.close();
          }
        },
        signal,
      );
    },
    deleteSnapshot: (volume, snapshot) => locked(volume, () => snapshots.remove(volume, snapshot)),
    async findRanges(request) {
      const { volume } = request;
      const current = await snapshots.open(volume, request.current);
      let previous: OpenRecord | null = null;
      try {
        if (request.previous !== null) previous = await snapshots.open(volume, request.previous);
      } catch (error) {
        await current.handle.close();
        if (!isBackupError(error, 'not-found')) throw error;
        throw previousGone(request, error);
      }
      return await findFileRanges({ threads, ...found, request, previous, current });
    },
    openSnapshot: (volume, snapshot) => openFileSnapshot(snapshots, volume, snapshot),
    async openTarget(volume) {
      requireNoTarget(volume);
      targets.add(volume);
      try {
        const opened = await volumes.open(volume, 'write');
        return createFileTarget({ volume: opened, threads, closed: () => targets.delete(volume) });
      } catch (error) {
        targets.delete(volume);
        throw error;
      }
    },
    async recover() {
      for (const path of await snapshots.recover())
        log.warn({ backend: name, path }, 'removed half-made snapshot');
    },
    close,
  };
}

async function requireDirectory(name: string, directory: string): Promise<void> {
  const found = await stat(directory).catch((error: unknown) => {
    throw new BackupError(
      'config-invalid',
      `backend ${name}: directory ${directory} cannot be used; create it or mount it`,
      { cause: error },
    );
  });
  if (!found.isDirectory()) {
    throw new BackupError('config-invalid', `backend ${name}: ${directory} is not a directory`);
  }
}

/**
 * Tries on three small files what the file system can: holes, reflinks, and whether the physical extents of a
 * clone that was changed in its middle show just that.
 */
async function probe(
  threads: FileThreads,
  temporary: () => string,
): Promise<{ extentsWork: boolean; holesWork: boolean }> {
  const size = 1024 * 1024;
  const middle = size / 2;
  const { signal } = new AbortController();
  const paths = [temporary(), temporary()] as const;
  const handles: FileHandle[] = [];
  try {
    const original = await open(paths[0], 'wx+', 0o600);
    handles.push(original);
    await original.write(randomBytes(size), 0, size, size);
    await original.sync();
    const allocation = await threads.run(
      { kind: 'allocation', fd: original.fd, from: 0, end: 2 * size },
      [],
      signal,
    );
    const holesWork = allocation.extents[2] === stepFlags.zero;
    if (!holesWork || !(await reflink(original, paths[1]))) return { extentsWork: false, holesWork };

    const clone = await open(paths[1], 'r+');
    handles.push(clone);
    await clone.write(randomBytes(4096), 0, 4096, size + middle);
    await clone.sync();
    const step = {
      kind: 'extents',
      previousFd: original.fd,
      currentFd: clone.fd,
      from: 0,
      end: 2 * size,
    } as const;
    const extents = await threads.run(step, [], signal).catch((error: unknown) => {
      if (unsupported(error)) return null;
      throw error;
    });
    return {
      extentsWork: extents !== null && showsOnly(extents.extents, size + middle, size / 4),
      holesWork,
    };
  } finally {
    for (const handle of handles) await handle.close();
    for (const path of paths) await rm(path, { force: true });
  }
}

/** True if `offset` is among what changed, and no more than `limit` bytes are said to have changed for certain. */
function showsOnly(extents: Float64Array, offset: number, limit: number): boolean {
  let covered = false;
  let certain = 0;
  for (let i = 0; i + 2 < extents.length; i += 3) {
    const start = extents[i] ?? 0;
    const length = extents[i + 1] ?? 0;
    if (extents[i + 2] === stepFlags.data) certain += length;
    if (start <= offset && offset < start + length) covered = true;
  }
  return covered && certain <= limit;
}
