/**
 * Bytes of real files, for the demo and the bench: zeros or random numbers would compress, hash and deduplicate as no
 * volume does.
 */
import { lstat, open, opendir, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { throwIfAborted } from '../model/errors.ts';
import type { Extent } from '../model/extent.ts';

const pieceBytes = 1024 * 1024;
/** Opening smaller files costs more than they give. */
const smallestFileBytes = 16 * 1024;

/** A source of bytes that never gives the same piece twice. */
export type RealBytes = {
  /** Fills `target` with the next bytes. */
  fill(target: Buffer): Promise<void>;
  close(): Promise<void>;
};

/**
 * The contents of the regular files of at least 16 KiB under `roots`, in a fixed order, one after the other. When they are used up it
 * begins again with every byte XORed by the number of the round: as compressible as before, but nowhere equal.
 * Throws if there is nothing to read under `roots`.
 */
export function createRealBytes(roots: readonly string[], signal: AbortSignal): RealBytes {
  let round = 0;
  let foundInRound = 0;
  let files = walk(roots);
  let file: FileHandle | undefined;

  async function nextFile(): Promise<FileHandle> {
    for (;;) {
      throwIfAborted(signal);
      const next = await files.next();
      if (next.done === true) {
        if (foundInRound === 0) throw new Error(`there are no readable files under ${roots.join(', ')}`);
        round += 1;
        foundInRound = 0;
        files = walk(roots);
        continue;
      }
      const opened = await openReadable(next.value);
      if (opened !== undefined) return opened;
    }
  }

  return {
    async fill(target) {
      let done = 0;
      while (done < target.length) {
        file ??= await nextFile();
        const { bytesRead } = await file.read(target, done, target.length - done);
        if (bytesRead === 0) {
          await file.close();
          file = undefined;
          continue;
        }
        foundInRound += bytesRead;
        mask(target.subarray(done, done + bytesRead), round);
        done += bytesRead;
      }
    },
    async close() {
      await file?.close();
      file = undefined;
      await files.return(undefined);
    },
  };
}

/** Writes the next bytes of `source` over the extents of an open volume file. */
export async function writeRealBytes(
  volume: FileHandle,
  extents: Iterable<Extent>,
  source: RealBytes,
  onWritten: (bytes: number) => void = () => undefined,
): Promise<void> {
  const piece = Buffer.allocUnsafeSlow(pieceBytes);
  for (const { offset, length } of extents) {
    for (let done = 0; done < length;) {
      const part = piece.subarray(0, Math.min(pieceBytes, length - done));
      await source.fill(part);
      await volume.write(part, 0, part.length, offset + done);
      done += part.length;
      onWritten(part.length);
    }
  }
}

function mask(bytes: Buffer, round: number): void {
  const key = round % 256;
  if (key === 0) return;
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = (bytes[at] ?? 0) ^ key;
}

async function openReadable(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (isUnreadable(error)) return undefined;
    throw error;
  }
}

function isUnreadable(error: unknown): boolean {
  return (
    error instanceof Error && 'code' in error && ['EACCES', 'EPERM', 'ENOENT'].includes(String(error.code))
  );
}

/** Regular files, depth first, sorted by name; hard links to the same file once. */
async function* walk(roots: readonly string[]): AsyncGenerator<string, undefined> {
  const seen = new Set<string>();
  const waiting = roots.toReversed();
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const stat = await lstat(path).catch((error: unknown) => {
      if (isUnreadable(error)) return undefined;
      throw error;
    });
    if (stat?.isDirectory() === true) {
      waiting.push(
        ...(await namesIn(path))
          .toSorted()
          .toReversed()
          .map((name) => join(path, name)),
      );
    } else if (stat?.isFile() === true && stat.size >= smallestFileBytes) {
      const key = `${stat.dev}:${stat.ino}`;
      if (stat.nlink > 1 && seen.has(key)) continue;
      if (stat.nlink > 1) seen.add(key);
      yield path;
    }
  }
}

async function namesIn(path: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const entry of await opendir(path)) names.push(entry.name);
  } catch (error) {
    if (!isUnreadable(error)) throw error;
  }
  return names;
}
