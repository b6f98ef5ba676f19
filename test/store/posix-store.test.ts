import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { backupContainer } from '../../src/layout/names.ts';
import { createLogger } from '../../src/log.ts';
import { createPosixStore, type PosixStore } from '../../src/store/posix-store.ts';
import { markerName } from '../../src/store/posix-root.ts';
import { createSmallFileWriter } from '../../src/store/posix-writer.ts';
import { objectStoreContract } from '../contract/object-store.ts';
import { collect, inRecycledPieces, patternBytes } from '../support/pattern.ts';
import { listedKeys } from '../support/listed-keys.ts';
import { openFilesBelow } from '../support/running-agent.ts';

const log = createLogger({ level: 'silent' });
const { signal } = new AbortController();
const options = { signal };

objectStoreContract('posix', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'posix-store-'));
  const store = createPosixStore({ directory: join(directory, 'root'), log });
  await store.adopt(signal);
  return {
    store,
    freshContainer: () => backupContainer('posix', randomUUID(), null),
    dispose: () => rm(directory, { recursive: true }),
  };
});

const modeOf = async (path: string) => ((await stat(path)).mode & 0o777).toString(8);

const temporary = (parts: { host?: string; pid?: number; started?: number }) => {
  const { host = '00000000', pid = 1, started = 1 } = parts;
  return `.cinder-delta-${host}-${pid}-${started}-abc-1.tmp`;
};

const shared = (lengthBytes: number, generation: number): Buffer => {
  const memory = Buffer.from(new SharedArrayBuffer(lengthBytes + 100), 50, lengthBytes);
  patternBytes(lengthBytes, generation).copy(memory);
  return memory;
};

function file(name: string, body: Buffer) {
  return { temporary: `${name}.tmp`, name, body };
}

/** `getInto` of the posix store, which has it. */
async function readInto(
  from: PosixStore,
  within: string,
  key: string,
  target: Buffer,
  given: AbortSignal = signal,
): Promise<number> {
  if (from.getInto === undefined) throw new Error('the posix store has getInto');
  return await from.getInto(within, key, target, { signal: given });
}

/** Bodies of 1000 bytes and more that lie behind each other. */
function bodies(count: number): readonly Buffer[] {
  const memory = new SharedArrayBuffer(count * (1000 + count));
  let used = 0;
  return Array.from({ length: count }, (_, n) => {
    const body = Buffer.from(memory, used, 1000 + n);
    patternBytes(1000 + n, n).copy(body);
    used += body.length;
    return body;
  });
}

describe('posix store', () => {
  const uuid = '2e07de79-59c4-46dd-b72f-eb288b5194a1';
  const container = `2e/07/${uuid}`;
  let parent = '';
  let directory = '';
  let store: PosixStore;

  beforeAll(async () => {
    parent = await mkdtemp(join(tmpdir(), 'posix-store-'));
  });
  afterAll(() => rm(parent, { recursive: true }));
  beforeEach(async () => {
    directory = join(parent, randomUUID());
    store = createPosixStore({ directory, log });
    await store.adopt(signal);
  });

  afterEach(() => store.close());

  const names = () => readdir(join(directory, container));
  const ownHost = async (): Promise<string> => {
    let host = '';
    async function* body(): AsyncGenerator<Buffer> {
      yield patternBytes(8, 1);
      host = (await names()).find((name) => name.startsWith('.cinder-delta-'))?.split('-')[2] ?? '';
    }
    await store.putStream(container, 'probe', body(), options);
    await store.remove(container, 'probe', signal);
    return host;
  };

  test('gives directories and files the modes of Cinder, whatever the umask', async () => {
    const before = process.umask(0o077);
    try {
      await store.ensureContainer(container, signal);
      await store.put(container, 'a-00001', patternBytes(5, 1), options);
      await store.putStream(container, 'a_metadata', inRecycledPieces(patternBytes(5, 1), 5), options);
    } finally {
      process.umask(before);
    }
    expect(await modeOf(join(directory, container))).toBe('770');
    expect(await modeOf(join(directory, container, 'a-00001'))).toBe('660');
    expect(await modeOf(join(directory, container, 'a_metadata'))).toBe('660');
  });

  test('leaves an existing directory its mode', async () => {
    await mkdir(join(directory, container), { recursive: true });
    await chmod(join(directory, container), 0o755);
    await store.ensureContainer(container, signal);
    expect(await modeOf(join(directory, container))).toBe('755');
  });

  test('shows a reader of the directory no object, and no name of the prefix, before it is whole', async () => {
    await store.ensureContainer(container, signal);
    async function* body(): AsyncGenerator<Buffer> {
      yield patternBytes(1000, 1);
      expect((await names()).filter((name) => name.startsWith('a'))).toEqual([]);
      expect(await names()).toHaveLength(1);
      yield patternBytes(1000, 2);
    }
    await store.putStream(container, 'a_metadata', body(), options);
    expect(await names()).toEqual(['a_metadata']);
  });

  test('refuses names that are no file names of the layout', async () => {
    await store.ensureContainer(container, signal);
    for (const key of ['a/b', 'x'.repeat(256), '.cinder-delta-x.tmp']) {
      await expect(store.put(container, key, patternBytes(5, 1), options)).rejects.toMatchObject({
        code: 'message-invalid',
      });
    }
  });

  describe('symbolic links', () => {
    test('a container that leads out of the root is refused for reading and writing', async () => {
      const outside = join(parent, randomUUID());
      await mkdir(outside);
      await writeFile(join(outside, 'a-00001'), 'secret');
      await mkdir(join(directory, '2e/07'), { recursive: true });
      await symlink(outside, join(directory, container));
      const refused = { code: 'message-invalid' };
      await expect(store.get(container, 'a-00001', options)).rejects.toMatchObject(refused);
      await expect(store.put(container, 'b', patternBytes(5, 1), options)).rejects.toMatchObject(refused);
      await expect(store.remove(container, 'a-00001', signal)).rejects.toMatchObject(refused);
      await expect(store.ensureContainer(container, signal)).rejects.toMatchObject(refused);
      expect(await readdir(outside)).toEqual(['a-00001']);
    });

    test('a new container is not made behind a link that leads out', async () => {
      const outside = join(parent, randomUUID());
      await mkdir(outside);
      await symlink(outside, join(directory, '2e'));
      await expect(store.ensureContainer(container, signal)).rejects.toMatchObject({
        code: 'message-invalid',
      });
      expect(await readdir(outside)).toEqual([]);
    });

    test('an object that is a link is not followed, and a put replaces it', async () => {
      const outside = join(parent, randomUUID());
      await writeFile(outside, 'secret');
      await store.ensureContainer(container, signal);
      await symlink(outside, join(directory, container, 'a-00001'));
      await expect(store.get(container, 'a-00001', options)).rejects.toMatchObject({
        code: 'message-invalid',
      });
      await store.put(container, 'a-00001', patternBytes(5, 1), options);
      expect(await readFile(outside, 'utf8')).toBe('secret');
    });

    test('the root itself may be one', async () => {
      const real = join(parent, randomUUID());
      await mkdir(real);
      await rm(directory, { recursive: true });
      await symlink(real, directory);
      await store.adopt(signal);
      await store.ensureContainer(container, signal);
      await store.put(container, 'a-00001', patternBytes(500, 1), options);
      const { body } = await store.get(container, 'a-00001', options);
      expect((await collect(body)).equals(patternBytes(500, 1))).toBe(true);
    });
  });

  describe('an object that is read into memory', () => {
    test.each([0, 1, 4096, 9 * 1024 * 1024 + 7])('of %i bytes comes whole, and no further', async (size) => {
      await store.ensureContainer(container, signal);
      const bytes = patternBytes(size, 3);
      await store.put(container, 'a', bytes, options);
      const target = Buffer.from(new SharedArrayBuffer(size + 10)).fill(0xee);
      expect(await readInto(store, container, 'a', target)).toBe(size);
      expect(target.subarray(0, size).equals(bytes)).toBe(true);
      expect(target.subarray(size).equals(Buffer.alloc(10, 0xee))).toBe(true);
    });

    test('and is longer than that tells its size and leaves it alone', async () => {
      await store.ensureContainer(container, signal);
      await store.put(container, 'a', patternBytes(1000, 3), options);
      const target = Buffer.alloc(999, 0xee);
      expect(await readInto(store, container, 'a', target)).toBe(1000);
      expect(target.equals(Buffer.alloc(999, 0xee))).toBe(true);
    });

    test('that is absent, no file, or not wanted any more is told as by get', async () => {
      await store.ensureContainer(container, signal);
      await mkdir(join(directory, container, 'b'));
      const target = Buffer.alloc(10);
      await expect(readInto(store, container, 'a', target)).rejects.toMatchObject({ code: 'object-missing' });
      await expect(readInto(store, container, 'b', target)).rejects.toMatchObject({
        code: 'message-invalid',
      });
      await expect(readInto(store, container, '../a', target)).rejects.toMatchObject({
        code: 'message-invalid',
      });
      await store.put(container, 'a', patternBytes(10, 3), options);
      await expect(readInto(store, container, 'a', target, AbortSignal.abort())).rejects.toMatchObject({
        code: 'cancelled',
      });
    });
  });

  describe('what stands in the way', () => {
    test('a directory or a pipe with the name of an object is not read', async () => {
      await store.ensureContainer(container, signal);
      await mkdir(join(directory, container, 'a-00001'));
      execFileSync('mkfifo', [join(directory, container, 'a-00002')]);
      for (const key of ['a-00001', 'a-00002']) {
        await expect(store.get(container, key, options)).rejects.toMatchObject({ code: 'message-invalid' });
      }
      expect(await listedKeys(store, container, 'a')).toEqual([]);
    });

    test('a file with the name of a container is message-invalid', async () => {
      await mkdir(join(directory, '2e'), { recursive: true });
      await writeFile(join(directory, '2e/07'), 'x');
      await expect(store.ensureContainer(container, signal)).rejects.toMatchObject({
        code: 'message-invalid',
      });
    });

    test('a put into a container that was removed behind our back is object-missing', async () => {
      await store.ensureContainer(container, signal);
      await rm(join(directory, container), { recursive: true });
      const put = () => store.put(container, 'a', patternBytes(5, 1), options);
      await expect(put()).rejects.toMatchObject({ code: 'object-missing' });
      await store.ensureContainer(container, signal);
      await put();
    });
  });

  describe('temporary files', () => {
    test('of ended processes go when the container is ensured, recovered or removed; others stay', async () => {
      await store.ensureContainer(container, signal);
      const host = await ownHost();
      const ended = execFileSync('sh', ['-c', 'echo $$'], { encoding: 'utf8' }).trim();
      const old = temporary({ host: 'ffffffff' });
      const dead = [
        temporary({ host, pid: Number(ended) }),
        temporary({ host, pid: process.pid, started: 1 }),
        old,
      ];
      const alive = [
        temporary({ host, pid: process.ppid }),
        temporary({ host: 'eeeeeeee' }),
        '.cinder-delta-note',
      ];
      const plant = async () => {
        for (const name of [...dead, ...alive]) await writeFile(join(directory, container, name), 'x');
        await utimes(join(directory, container, old), 1, 1);
      };
      await plant();
      expect(await store.recover(container, signal)).toBe(3);
      expect(await names()).toEqual(alive.toSorted());
      await plant();
      await store.ensureContainer(container, signal);
      expect(await names()).toEqual(alive.toSorted());
      await plant();
      await store.removeContainer(container, signal);
      expect(await names()).toEqual(alive.toSorted());
    });

    test('that are being written survive a recovery, also by another store of this process', async () => {
      await store.ensureContainer(container, signal);
      const other = createPosixStore({ directory, log });
      async function* body(): AsyncGenerator<Buffer> {
        yield patternBytes(1000, 1);
        expect(await other.recover(container, signal)).toBe(0);
        yield patternBytes(1000, 2);
      }
      await store.putStream(container, 'a', body(), options);
      await other.close();
      expect(await names()).toEqual(['a']);
    });
  });

  /** A writer whose thread has proven that it works. */
  const startThread = async () => {
    await store.ensureContainer(container, signal);
    const writer = createSmallFileWriter();
    const within = join(directory, container);
    await expect.poll(() => writer.write(within, [file('probe', shared(5, 1))]) !== undefined).toBe(true);
    await expect.poll(async () => (await names()).includes('probe')).toBe(true);
    return { writer, within };
  };

  describe('small objects in shared memory', () => {
    test('are written whole by the thread, with the mode of Cinder, many at a time', async () => {
      const { writer, within } = await startThread();
      const files = bodies(100).map((body, n) => file(`a-${n}`, body));
      await Promise.all([writer.write(within, files.slice(0, 70)), writer.write(within, files.slice(70))]);
      for (const { name, body } of files) {
        expect((await readFile(join(within, name))).equals(body), name).toBe(true);
      }
      expect(await modeOf(join(within, 'a-7'))).toBe('660');
      expect((await names()).filter((name) => name.endsWith('.tmp'))).toEqual([]);
      await writer.close();
    });

    test('fail with the error of the file system, and leave nothing of the one that failed behind', async () => {
      const { writer, within } = await startThread();
      await mkdir(join(within, 'b'));
      const files = bodies(3).map((body, n) => file('abc'.charAt(n), body));
      await expect(writer.write(within, files)).rejects.toMatchObject({ code: 'message-invalid' });
      await expect(writer.write(join(directory, 'gone'), [file('a', shared(10, 1))])).rejects.toMatchObject({
        code: 'object-missing',
      });
      expect((await names()).toSorted()).toEqual(['a', 'b', 'probe']);
      await writer.close();
    });

    test('are not for the thread if they lie in different memories, or one is large', async () => {
      const { writer, within } = await startThread();
      expect(writer.write(within, [file('a', shared(10, 1)), file('b', shared(10, 2))])).toBeUndefined();
      expect(writer.write(within, [file('a', shared(300 * 1024, 1))])).toBeUndefined();
      expect(writer.write(within, [file('a', patternBytes(10, 1))])).toBeUndefined();
      await writer.close();
    });

    test('of one call of putMany are all stored, through the thread or not', async () => {
      await store.ensureContainer(container, signal);
      for (let round = 0; round < 30; round += 1) {
        const objects = bodies(4).map((body, n) => ({ key: `r${round}-${n}`, body }));
        await store.putMany?.(container, objects, options);
        for (const { key, body } of objects) {
          const stored = await store.get(container, key, options);
          expect((await collect(stored.body)).equals(body), key).toBe(true);
        }
      }
    });

    test('that wait when the thread is closed fail as store-unavailable', async () => {
      const { writer, within } = await startThread();
      const body = shared(10, 1);
      const many = Array.from({ length: 4000 }, (_, n) => file(`a-${n}`, body));
      const write = writer.write(within, many);
      const closed = writer.close();
      await expect(write).rejects.toMatchObject({ code: 'store-unavailable' });
      await closed;
    });

    test('come back from the store as they were, through the thread or not', async () => {
      await store.ensureContainer(container, signal);
      for (let n = 0; n < 60; n += 1) await store.put(container, `a-${n}`, shared(3000, n), options);
      for (let n = 0; n < 60; n += 1) {
        const { body } = await store.get(container, `a-${n}`, options);
        expect((await collect(body)).equals(patternBytes(3000, n))).toBe(true);
      }
    });
  });

  test('removes the directory of one backup but not one that is shared', async () => {
    await store.ensureContainer(container, signal);
    await store.ensureContainer('shared', signal);
    await store.put(container, 'a', patternBytes(5, 1), options);
    await store.remove(container, 'a', signal);
    await store.removeContainer(container, signal);
    await store.removeContainer('shared', signal);
    expect(await readdir(join(directory, '2e/07'))).toEqual([]);
    expect(await readdir(directory)).toEqual([markerName, '2e', 'shared']);
  });

  test('an object that cannot be synced keeps its own backup from being closed, and no other in the container', async () => {
    await store.ensureContainer('shared', signal);
    for (const key of ['a-00001', 'b-00001']) await store.put('shared', key, patternBytes(5, 1), options);
    const path = join(directory, 'shared', 'a-00001');
    await rm(path);
    await symlink('elsewhere', path);
    const close = (prefix: string) =>
      store.putStream('shared', `${prefix}_metadata`, inRecycledPieces(patternBytes(5, 1), 5), options);
    await close('b');
    await store.flush('shared', 'b', signal);
    await expect(close('a')).rejects.toMatchObject({ retryable: false });
    await expect(store.flush('shared', 'a', signal)).rejects.toMatchObject({ retryable: false });
    expect((await readdir(join(directory, 'shared'))).toSorted()).toEqual([
      'a-00001',
      'b-00001',
      'b_metadata',
    ]);
    await store.remove('shared', 'a-00001', signal);
    await store.flush('shared', 'a', signal);
  });

  test('says corrupt when a file is cut while it is read', async () => {
    await store.ensureContainer(container, signal);
    await store.put(container, 'a', patternBytes(8 * 1024 * 1024, 1), options);
    const { body } = await store.get(container, 'a', options);
    let isFirst = true;
    const reading = async () => {
      for await (const piece of body) {
        if (isFirst) await writeFile(join(directory, container, 'a'), piece.subarray(0, 10));
        isFirst = false;
      }
    };
    await expect(reading()).rejects.toMatchObject({ code: 'corrupt' });
  });

  test('keeps no descriptor of files it is done with, nor of bodies whose operation has ended', async () => {
    await store.ensureContainer(container, signal);
    await store.put(container, 'big', patternBytes(6 * 1024 * 1024, 1), options);
    await store.flush(container, '', signal);
    const before = await openFilesBelow(directory);
    const operation = new AbortController();
    for (let n = 0; n < 50; n += 1) {
      await store.put(container, `a-${n}`, patternBytes(100, n), options);
      await collect((await store.get(container, `a-${n}`, options)).body);
      await store.get(container, 'big', { signal: operation.signal });
      for await (const piece of (await store.get(container, 'big', options)).body) {
        expect(piece.length).toBeGreaterThan(0);
        break;
      }
    }
    await store.flush(container, '', signal);
    operation.abort();
    await expect.poll(() => openFilesBelow(directory)).toBe(before);
  });
});
