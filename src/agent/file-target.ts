/** A raw file, or the device of a thin volume, as the target of a restore. */
import { constants, open as openFile, type FileHandle } from 'node:fs/promises';
import { BackupError } from '../model/errors.ts';
import { isPageAligned } from '../model/page-memory.ts';
import { errnoOf, translateFileError } from './file-errors.ts';
import type { FileThreads } from './file-snapshots.ts';
import type { OpenVolume } from './file-volumes.ts';
import { createZeroer, type ThinBlocks } from './zeroer.ts';
import type { WriteTarget } from './volume-backend.ts';

/** After so many bytes they begin to go to stable storage, so that the flush at the end has little left to wait for. */
const syncEveryBytes = 64 * 1024 * 1024;

/** Takes over the handle; `closed` is called once when the target is closed. */
export function createFileTarget(deps: {
  readonly volume: OpenVolume;
  readonly threads: FileThreads;
  /** Those of a thin device. */
  readonly blocks?: ThinBlocks;
  readonly closed: () => void;
}): WriteTarget {
  const { handle, info } = deps.volume;
  const running = new Set<Promise<void>>();
  let open = true;
  const direct = createDirectWriter(handle);
  const zero = createZeroer(handle.fd, deps.threads, deps.blocks);
  let unsyncedBytes = 0;
  /** The newest early sync; its failure is delivered to the flush, since the kernel tells of it only once. */
  let syncing: Promise<void> | undefined;
  let earlyFailure: { readonly reason: unknown } | undefined;

  const syncEarly = (written: number): void => {
    unsyncedBytes += written;
    if (unsyncedBytes < syncEveryBytes || syncing !== undefined) return;
    unsyncedBytes = 0;
    const sync = handle
      .datasync()
      .catch((reason: unknown) => {
        earlyFailure ??= { reason };
      })
      .finally(() => {
        syncing = undefined;
        running.delete(sync);
      });
    syncing = sync;
    running.add(sync);
  };

  const perform = (offset: number, length: number, work: () => Promise<void>): Promise<void> => {
    if (!open) return Promise.reject(new BackupError('bug', `the restore target ${info.name} is closed`));
    if (offset < 0 || length < 0 || offset + length > info.size_bytes) {
      return Promise.reject(
        new BackupError(
          'message-invalid',
          `bytes ${offset} to ${offset + length} lie outside ${info.name}, which has ${info.size_bytes}: resize it first`,
        ),
      );
    }
    const task = work()
      .catch((error: unknown) => {
        throw translateFileError(error, `${info.name} at byte ${offset}`);
      })
      .finally(() => running.delete(task));
    running.add(task);
    return task;
  };

  return {
    sizeBytes: info.size_bytes,
    write: (offset, bytes) =>
      perform(offset, bytes.length, async () => {
        if (await direct.write(offset, bytes)) return;
        await writeFully(handle, bytes, offset);
        syncEarly(bytes.length);
      }),
    zero: (offset, length) => perform(offset, length, () => zero(offset, length)),
    flush: () =>
      perform(0, 0, async () => {
        await syncing;
        if (earlyFailure !== undefined) throw earlyFailure.reason;
        await handle.sync();
      }),
    async close() {
      if (!open) return;
      open = false;
      await Promise.allSettled(running);
      try {
        await direct.close();
      } finally {
        await handle.close().finally(deps.closed);
      }
    },
  };
}

/**
 * Writes past the page cache: the bytes of a restore are not read again soon, and would push out what guests use; and it saves
 * a copy. Only where the file system takes it: the first refusal is the last try.
 */
function createDirectWriter(handle: FileHandle) {
  let opened: Promise<FileHandle | undefined> | undefined;
  let isRefused = false;
  return {
    /** False if the bytes have to be written in another way. */
    async write(offset: number, bytes: Buffer): Promise<boolean> {
      if (isRefused || !isPageAligned(offset, bytes)) return false;
      opened ??= openFile(`/proc/self/fd/${handle.fd}`, constants.O_WRONLY | constants.O_DIRECT).catch(
        () => undefined,
      );
      const file = await opened;
      if (file === undefined) return false;
      try {
        await writeFully(file, bytes, offset);
        return true;
      } catch (error) {
        if (errnoOf(error) !== 'EINVAL') throw error;
        isRefused = true;
        return false;
      }
    },
    async close(): Promise<void> {
      await (await opened)?.close();
    },
  };
}

async function writeFully(handle: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
