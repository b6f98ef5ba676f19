/** Long objects in memory that begins on a page go past the page cache, where the file system favours that; all come back as they were. */
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, stat, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createPageMemory } from '../../src/model/page-memory.ts';
import { createDirectWrites } from '../../src/store/posix-direct.ts';
import { createFile } from '../../src/store/posix-files.ts';
import { favoursDirectWrites } from '../../src/store/posix-file-systems.ts';
import { createPosixStore } from '../../src/store/posix-store.ts';
import { loopMountObstacle, mountLoop } from '../support/loop-mount.ts';
import { patternBytes } from '../support/pattern.ts';

const run = promisify(execFile);
const log = createLogger({ level: 'silent' });
const { signal } = new AbortController();
const mebibyte = 1024 * 1024;
const container = '2e/07/2e07de79-59c4-46dd-b72f-eb288b5194a1';

/** `lengthBytes` of a pattern in shared memory that begins on a page, `at` bytes behind its begin. */
function body(lengthBytes: number, at: number): Buffer {
  const bytes = Buffer.from(createPageMemory(at + lengthBytes), at, lengthBytes);
  patternBytes(lengthBytes, lengthBytes).copy(bytes);
  return bytes;
}

async function putAndRead(directory: string): Promise<void> {
  const store = createPosixStore({ directory, log });
  await store.adopt(signal);
  await store.ensureContainer(container, signal);
  const lengths = [mebibyte - 1, mebibyte, mebibyte + 1, 3 * mebibyte + 4096, 9 * mebibyte + 777];
  for (const [n, lengthBytes] of lengths.entries()) {
    for (const at of [0, 4096, 512, 1]) {
      const key = `a-${n}-${at}`;
      const bytes = body(lengthBytes, at);
      await store.put(container, key, bytes, { signal });
      const path = join(directory, container, key);
      expect((await readFile(path)).equals(bytes), key).toBe(true);
      expect((await stat(path)).mode & 0o777).toBe(0o660);
    }
  }
  await store.flush(container, '', signal);
  await store.close();
}

/** Bytes that the kernel holds of a file in its page cache. */
async function cachedBytes(path: string): Promise<number> {
  const script =
    'import ctypes,mmap,os,sys\n' +
    'fd=os.open(sys.argv[1],os.O_RDONLY);n=os.fstat(fd).st_size\n' +
    'libc=ctypes.CDLL(None,use_errno=True);libc.mmap.restype=ctypes.c_void_p\n' +
    'at=libc.mmap(None,ctypes.c_size_t(n),1,1,fd,ctypes.c_long(0));pages=(n+4095)//4096\n' +
    'seen=(ctypes.c_ubyte*pages)();libc.mincore(ctypes.c_void_p(at),ctypes.c_size_t(n),seen)\n' +
    'print(4096*sum(page&1 for page in seen))';
  const { stdout } = await run('/usr/bin/python3', ['-c', script, path]);
  return Number(stdout);
}

test('long objects come back as they were put, whatever they begin and end with', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'posix-direct-'));
  try {
    await putAndRead(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
});

for (const [kind, favoured] of [
  ['xfs', true],
  ['ext4', true],
  ['btrfs', false],
  ['tmpfs', false],
] as const) {
  const obstacle = await loopMountObstacle(kind);
  test.skipIf(obstacle !== null)(
    `the same on ${kind}, ${favoured ? 'past' : 'through'} the page cache`,
    async () => {
      await using cleanup = new AsyncDisposableStack();
      const mount = await mountLoop(kind, { sizeBytes: 512 * mebibyte });
      cleanup.defer(() => mount.unmount());
      await putAndRead(mount.directory);
      expect(await favoursDirectWrites(mount.directory)).toBe(favoured);
      const path = join(mount.directory, 'fresh');
      const file = await createFile(path, favoured ? createDirectWrites() : null);
      await file.write(body(8 * mebibyte + 100, 0), signal);
      await file.close();
      const cached = await cachedBytes(path);
      if (favoured) expect(cached).toBeLessThan(mebibyte);
      else expect(cached).toBeGreaterThan(8 * mebibyte);
    },
  );
}

test('a place that cannot be looked at favours nothing', async () => {
  expect(await favoursDirectWrites('/nowhere/at/all')).toBe(false);
});

test('a write that was called off ends as cancelled, past the page cache as through it', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'posix-direct-'));
  try {
    for (const direct of [createDirectWrites(), null]) {
      const file = await createFile(join(directory, `${direct === null}`), direct);
      await expect(file.write(body(mebibyte, 0), AbortSignal.abort())).rejects.toMatchObject({
        code: 'cancelled',
      });
      await file.discard();
    }
    expect(await readdir(directory)).toEqual([]);
  } finally {
    await rm(directory, { recursive: true });
  }
});

/** Opens a file past the cache for so many bytes; the next write is answered with `code`. */
function endingAfter(bytes: number, code: string, opened: { count: number; open: number }) {
  return async (handle: FileHandle) => {
    let left = bytes;
    opened.count += 1;
    opened.open += 1;
    const write = async (buffer: Buffer, from: number, length: number, position: number) => {
      if (left <= 0) throw Object.assign(new Error(code), { code });
      const most = Math.min(length, left);
      const { bytesWritten } = await handle.write(buffer, from, most, position);
      left -= bytesWritten;
      return { bytesWritten, buffer };
    };
    return {
      write: write as FileHandle['write'],
      close: async () => {
        opened.open -= 1;
      },
    };
  };
}

describe('a file system that refuses direct writes', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'posix-direct-'));
  });
  afterEach(() => rm(directory, { recursive: true }));

  test.each([
    ['at once', 0],
    ['after some pages', 4096 * 300],
    ['after the first piece, and a short write', 8 * mebibyte + 4096],
  ])('%s gets the rest through the cache, and is not asked again', async (_when, bytes) => {
    const opened = { count: 0, open: 0 };
    const direct = createDirectWrites(endingAfter(bytes, 'EINVAL', opened));
    for (const name of ['a', 'b']) {
      const content = body(10 * mebibyte + 333, 0);
      const file = await createFile(join(directory, name), direct);
      await file.write(content, signal);
      await file.write(Buffer.from('and more'), signal);
      await file.close();
      const written = await readFile(join(directory, name));
      expect(written.equals(Buffer.concat([content, Buffer.from('and more')]))).toBe(true);
    }
    expect(opened).toEqual({ count: 1, open: 0 });
    expect(await direct.favours(directory, 2 * mebibyte)).toBe(false);
  });

  test('with another error than a refusal fails the write, and leaves nothing open', async () => {
    const opened = { count: 0, open: 0 };
    const direct = createDirectWrites(endingAfter(mebibyte, 'EIO', opened));
    const file = await createFile(join(directory, 'a'), direct);
    await expect(file.write(body(4 * mebibyte, 0), signal)).rejects.toMatchObject({
      code: 'store-unavailable',
    });
    await file.discard();
    expect(opened).toEqual({ count: 1, open: 0 });
    expect(await readdir(directory)).toEqual([]);
  });

  test('never has more than three of them in the pool, whatever is asked for', async () => {
    let running = 0;
    let most = 0;
    const direct = createDirectWrites(async (handle) => {
      running += 1;
      most = Math.max(most, running);
      return {
        write: handle.write.bind(handle),
        close: async () => {
          running -= 1;
        },
      };
    });
    const content = body(mebibyte, 0);
    const files = await Promise.all(
      Array.from({ length: 12 }, (_, n) => createFile(join(directory, `${n}`), direct)),
    );
    await Promise.all(files.map((file) => file.write(content, signal)));
    await Promise.all(files.map((file) => file.close()));
    expect(most).toBe(3);
  });
});

const obstacle = await loopMountObstacle('xfs');
describe.skipIf(obstacle !== null)('on XFS', () => {
  test('a full disk is store-full in the middle of a direct write, and nothing is left behind', async () => {
    await using cleanup = new AsyncDisposableStack();
    const mount = await mountLoop('xfs', { sizeBytes: 320 * mebibyte });
    cleanup.defer(() => mount.unmount());
    const store = createPosixStore({ directory: mount.directory, log });
    cleanup.defer(() => store.close());
    await store.adopt(signal);
    await store.ensureContainer(container, signal);
    const content = body(25 * mebibyte, 0);
    const names: string[] = [];
    const fill = async () => {
      for (let n = 0; n < 20; n += 1) {
        await store.put(container, `a-${n}`, content, { signal });
        names.push(`a-${n}`);
      }
    };
    await expect(fill()).rejects.toMatchObject({ code: 'store-full' });
    const left = await readdir(join(mount.directory, container));
    expect(left.toSorted()).toEqual(names.toSorted());
  });
});
