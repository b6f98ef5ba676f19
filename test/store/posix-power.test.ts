import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createPageMemory } from '../../src/model/page-memory.ts';
import { createPosixStore, type PosixStore } from '../../src/store/posix-store.ts';
import { listedKeys } from '../../src/store/listed-keys.ts';
import { loopMountObstacle, mountLoop, type LoopMount } from '../support/loop-mount.ts';
import { patternBytes } from '../support/pattern.ts';

const run = promisify(execFile);
const obstacle = await loopMountObstacle('xfs');
const { signal } = new AbortController();
const container = '2e/07/2e07de79-59c4-46dd-b72f-eb288b5194a1';

describe.skipIf(obstacle !== null)('a power failure', () => {
  let mount: LoopMount;
  beforeAll(async () => {
    mount = await mountLoop('xfs', { sizeBytes: 512 * 1024 * 1024 });
  });
  afterAll(() => mount.unmount());

  const open = (): PosixStore =>
    createPosixStore({ directory: mount.directory, log: createLogger({ level: 'silent' }) });

  /** The file system ends without writing anything more, its log included, and is mounted anew. */
  const failPower = async () => {
    await run('xfs_io', ['-x', '-c', 'shutdown', mount.directory]);
    await run('umount', [mount.directory]);
    await run('mount', ['-o', 'loop', join(dirname(mount.directory), 'image'), mount.directory]);
  };

  test('takes nothing of long objects that were put past the page cache and flushed, their last bytes neither', async () => {
    const before = open();
    await before.adopt(signal);
    await before.ensureContainer(container, signal);
    const bodies = [1_048_576, 9 * 1_048_576 + 777, 20 * 1_048_576 + 1].map((lengthBytes) => {
      const body = Buffer.from(createPageMemory(lengthBytes), 0, lengthBytes);
      patternBytes(lengthBytes, lengthBytes).copy(body);
      return body;
    });
    for (const [n, body] of bodies.entries()) await before.put(container, `long-${n}`, body, { signal });
    await before.flush(container, '', signal);
    await before.close();
    await failPower();
    for (const [n, body] of bodies.entries()) {
      const found = await readFile(join(mount.directory, container, `long-${n}`));
      expect(found.equals(body), `long-${n}`).toBe(true);
    }
  });

  test('brings back nothing that was removed and flushed', async () => {
    const before = open();
    await before.adopt(signal);
    await before.ensureContainer(container, signal);
    for (const key of ['a-00001', 'a-00002', 'a-00003']) {
      await before.put(container, key, patternBytes(5000, 1), { signal });
    }
    await before.flush(container, '', signal);
    for (const key of ['a-00001', 'a-00002']) await before.remove(container, key, signal);
    await before.flush(container, '', signal);
    await before.close();
    await failPower();
    const after = open();
    const keys: string[] = [];
    for await (const key of listedKeys(after.list(container, 'a', signal))) keys.push(key);
    expect(keys).toEqual(['a-00003']);
    await after.close();
  });

  test('is no matter for the flush of a directory that somebody has removed', async () => {
    const store = open();
    const other = '3e/07/3e07de79-59c4-46dd-b72f-eb288b5194a1';
    await store.ensureContainer(other, signal);
    await store.flush(other, '', signal);
    await store.remove(other, 'a-00001', signal);
    await run('rmdir', [join(mount.directory, other)]);
    await store.flush(other, '', signal);
    await store.close();
  });
});
