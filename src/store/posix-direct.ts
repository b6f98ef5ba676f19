/**
 * Writing past the page cache (open(2), O_DIRECT): objects are not read again soon, would push out what is, and are copied once less.
 * Only whole pages of memory that begins on one; the rest of a body goes through the cache.
 */
import { constants, open, type FileHandle } from 'node:fs/promises';
import { createBudget } from '../async/limit.ts';
import { cancelledBy } from '../model/errors.ts';
import { directBytes, isPageAligned } from '../model/page-memory.ts';
import { systemCode } from './posix-error.ts';
import { favoursDirectWrites } from './posix-file-systems.ts';

/** Less is as well left to the page cache. */
const leastBytes = 1024 * 1024;
/** Each holds a thread of libuv's pool until the disk has it; others need the pool too. */
const atOnce = 3;
/** What is answered where it cannot be done; ENOENT where there is no /proc. */
const refusals = new Set(['EINVAL', 'EOPNOTSUPP', 'ENOTSUP', 'ENOENT']);

/** Writes from `position` on; returns how many bytes of `bytes` are written, which may be fewer. */
export type WritePiece = (
  to: Pick<FileHandle, 'write'>,
  bytes: Buffer,
  position: number,
  signal: AbortSignal,
) => Promise<number>;

export type DirectWrites = {
  /**
   * Writes as many whole pages of `bytes` to the open file, from `position` on, as the file system takes in this way, by `write`;
   * returns how many bytes that was. Throws what `write` throws but for a refusal.
   */
  write(
    handle: FileHandle,
    bytes: Buffer,
    position: number,
    write: WritePiece,
    signal: AbortSignal,
  ): Promise<number>;
  /** Whether a body of so many bytes is to be tried in `directory`. */
  favours(directory: string, lengthBytes: number): Promise<boolean>;
};

/** Those of one store: after a refusal none is tried again. `openPast` opens an open file anew, past the cache. */
export function createDirectWrites(
  openPast: (handle: FileHandle) => Promise<Pick<FileHandle, 'write' | 'close'>> = openDirect,
): DirectWrites {
  const budget = createBudget(atOnce);
  let isRefused = false;
  const refused = (error: unknown): boolean => {
    if (!refusals.has(systemCode(error))) return false;
    isRefused = true;
    return true;
  };
  const writePages: DirectWrites['write'] = async (handle, pages, position, write, signal) => {
    const past = await openPast(handle).catch((error: unknown) => {
      if (refused(error)) return undefined;
      throw error;
    });
    if (past === undefined) return 0;
    let done = 0;
    try {
      while (done < pages.length) done += await write(past, pages.subarray(done), position + done, signal);
    } catch (error) {
      if (!refused(error)) throw error;
    } finally {
      await past.close();
    }
    return done;
  };
  return {
    async favours(directory, lengthBytes) {
      return !isRefused && lengthBytes >= leastBytes && (await favoursDirectWrites(directory));
    },
    async write(handle, bytes, position, write, signal) {
      const pages = bytes.subarray(0, bytes.length - (bytes.length % directBytes));
      if (isRefused || pages.length === 0 || !isPageAligned(position, pages)) return 0;
      const release = await budget.acquire(1, signal).catch(() => {
        throw cancelledBy(signal);
      });
      try {
        return await writePages(handle, pages, position, write, signal);
      } finally {
        release();
      }
    },
  };
}

/** The same file, whatever has become of its name. */
function openDirect(handle: FileHandle): Promise<FileHandle> {
  return open(`/proc/self/fd/${handle.fd}`, constants.O_WRONLY | constants.O_DIRECT);
}
