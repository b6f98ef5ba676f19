/** Reading and writing one file of the posix store. Errors of the file system are translated here. */
import { constants, open, unlink, type FileHandle } from 'node:fs/promises';
import { BackupError, throwIfAborted } from '../model/errors.ts';
import type { DirectWrites, WritePiece } from './posix-direct.ts';
import { attempt, fileMode, posixError, systemCode } from './posix-error.ts';

const writeBytes = 8 * 1024 * 1024;
/** So much is worth a sync of its own while more is being written. */
const aheadBytes = 4 * 1024 * 1024;
const pieceBytes = 1024 * 1024;
/** What is read at a time into memory that is there already; an abort is heard after that. */
const intoBytes = 4 * 1024 * 1024;
/** Objects up to this size are read at once, and closed before their first byte is handed out. */
const wholeBytes = 2 * 1024 * 1024;

/** A new file that is not yet known by its name. */
export type NewFile = {
  write(bytes: Buffer, signal: AbortSignal): Promise<void>;
  /** Begins an fdatasync, if enough has been written since the last and none runs; its error is that of `sync`. */
  syncAhead(): void;
  /** fdatasync. */
  sync(): Promise<void>;
  /** Closes it; an error (NFS reports a full disk here) means that it is not whole. */
  close(): Promise<void>;
  /** Closes and removes it; never throws. */
  discard(): Promise<void>;
};

/** Creates `path`, which must not exist. With `direct`, what can goes past the page cache. */
export async function createFile(path: string, direct: DirectWrites | null): Promise<NewFile> {
  const action = `write ${path}`;
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  const handle = await attempt(`create ${path}`, open(path, flags, fileMode));
  let position = 0;
  let ahead: { readonly running: Promise<void>; readonly upTo: number } | undefined;
  let isSyncing = false;
  const writeAll = async (bytes: Buffer, signal: AbortSignal): Promise<void> => {
    const past = (await direct?.write(handle, bytes, position, writePiece, signal)) ?? 0;
    position += past;
    for (let at = past; at < bytes.length;) {
      const written = await writePiece(handle, bytes.subarray(at), position, signal);
      at += written;
      position += written;
    }
  };
  const file: NewFile = {
    write: (bytes, signal) => attempt(action, writeAll(bytes, signal)),
    syncAhead() {
      if (isSyncing || position - (ahead?.upTo ?? 0) < aheadBytes) return;
      isSyncing = true;
      // After one that failed, the kernel calls the lost pages clean: the failure stays.
      const before = ahead?.running;
      const sync = async () => {
        await before;
        await attempt(action, handle.datasync());
      };
      const running = sync().finally(() => {
        isSyncing = false;
      });
      running.catch(() => undefined);
      ahead = { running, upTo: position };
    },
    async sync() {
      await ahead?.running;
      await attempt(action, handle.datasync());
    },
    async close() {
      await ahead?.running;
      await attempt(action, handle.close());
    },
    async discard() {
      await ahead?.running.catch(() => undefined);
      await handle.close().catch(() => undefined);
      await unlink(path).catch(() => undefined);
    },
  };
  try {
    await attempt(action, handle.chmod(fileMode));
    return file;
  } catch (error) {
    await file.discard();
    throw error;
  }
}

/** Writes the begin of `bytes`, at most 8 MiB of it, at `position`; returns how much. */
const writePiece: WritePiece = async (to, bytes, position, signal) => {
  throwIfAborted(signal);
  const { bytesWritten } = await to.write(bytes, 0, Math.min(writeBytes, bytes.length), position);
  return bytesWritten;
};

/** Reads all of `path` into `target`; returns its size, and reads nothing of a file that is longer. */
export async function readFileInto(path: string, target: Buffer, signal: AbortSignal): Promise<number> {
  throwIfAborted(signal);
  const handle = await openForReading(path);
  try {
    const sizeBytes = await sizeOf(handle, path);
    if (sizeBytes > target.length) return sizeBytes;
    for (let at = 0; at < sizeBytes; at += intoBytes) {
      throwIfAborted(signal);
      await fill(handle, path, target.subarray(at, Math.min(sizeBytes, at + intoBytes)), at);
    }
    throwIfAborted(signal);
    return sizeBytes;
  } finally {
    await handle.close();
  }
}

/** Opens `path` and reads it in pieces of 1 MiB, the next one while the last is used. A piece belongs to its reader. */
export async function readFileInPieces(
  path: string,
  signal: AbortSignal,
): Promise<{ sizeBytes: number; body: AsyncIterable<Buffer> }> {
  throwIfAborted(signal);
  const handle = await openForReading(path);
  try {
    const sizeBytes = await sizeOf(handle, path);
    if (sizeBytes > wholeBytes) return { sizeBytes, body: ownedPieces(handle, path, sizeBytes, signal) };
    const whole = await readPiece(handle, path, 0, sizeBytes);
    throwIfAborted(signal);
    await handle.close();
    return { sizeBytes, body: onePiece(whole, signal) };
  } catch (error) {
    await handle.close().catch(() => undefined);
    throw error;
  }
}

async function sizeOf(handle: FileHandle, path: string): Promise<number> {
  const stats = await attempt(`read ${path}`, handle.stat());
  if (stats.isFile()) return stats.size;
  throw new BackupError(
    'message-invalid',
    `${path} is not a regular file: this is no object of a backup; move it out of the way`,
  );
}

async function openForReading(path: string): Promise<FileHandle> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  try {
    return await open(path, flags);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw posixError(`open ${path}`, error);
    throw new BackupError(
      'object-missing',
      `object ${path} is absent: it was deleted or never written; check that the file system of backup_posix_path is mounted`,
      { cause: error },
    );
  }
}

async function* onePiece(bytes: Buffer, signal: AbortSignal): AsyncGenerator<Buffer> {
  throwIfAborted(signal);
  if (bytes.length > 0) yield bytes;
  throwIfAborted(signal);
}

/** Nobody closes the handle of a body whose loop never begins, so its operation's end does. */
function ownedPieces(
  handle: FileHandle,
  path: string,
  sizeBytes: number,
  signal: AbortSignal,
): AsyncIterable<Buffer> {
  const release = () => void handle.close().catch(() => undefined);
  signal.addEventListener('abort', release, { once: true });
  return {
    [Symbol.asyncIterator]() {
      signal.removeEventListener('abort', release);
      return pieces(handle, path, sizeBytes, signal);
    },
  };
}

async function* pieces(
  handle: FileHandle,
  path: string,
  sizeBytes: number,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const readFrom = (offset: number): Promise<Buffer> => {
    const piece = readPiece(handle, path, offset, Math.min(pieceBytes, sizeBytes - offset));
    // The reader may leave before it asks for this one.
    piece.catch(() => undefined);
    return piece;
  };
  let next: Promise<Buffer> | undefined = readFrom(0);
  try {
    for (let offset = 0; next !== undefined;) {
      throwIfAborted(signal);
      const piece: Buffer = await next;
      offset += piece.length;
      next = offset < sizeBytes ? readFrom(offset) : undefined;
      yield piece;
    }
    throwIfAborted(signal);
  } finally {
    await next?.catch(() => undefined);
    await handle.close();
  }
}

async function readPiece(handle: FileHandle, path: string, offset: number, length: number): Promise<Buffer> {
  const piece = Buffer.allocUnsafeSlow(length);
  await fill(handle, path, piece, offset);
  return piece;
}

/** Reads all of `piece` from `offset` on. */
async function fill(handle: FileHandle, path: string, piece: Buffer, offset: number): Promise<void> {
  for (let filled = 0; filled < piece.length;) {
    const { bytesRead } = await handle
      .read(piece, filled, piece.length - filled, offset + filled)
      .catch((error: unknown) => {
        throw readError(path, error);
      });
    if (bytesRead === 0) {
      throw new BackupError(
        'corrupt',
        `object ${path} ends after ${offset + filled} bytes: it was cut while it was read; put it back or do a full backup`,
      );
    }
    filled += bytesRead;
  }
}

/** A disk that cannot read a place of an open file has lost it: that object is bad, the store is not away. */
function readError(path: string, error: unknown): BackupError {
  if (systemCode(error) !== 'EIO') return posixError(`read ${path}`, error);
  return new BackupError(
    'corrupt',
    `object ${path} cannot be read: EIO; check the disk or the file server behind backup_posix_path, then put the object back or do a full backup`,
    { cause: error },
  );
}
