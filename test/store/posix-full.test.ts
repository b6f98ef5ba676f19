import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createPosixStore, type PosixStore } from '../../src/store/posix-store.ts';
import { loopMountObstacle, mountLoop, type LoopMount } from '../support/loop-mount.ts';
import { inRecycledPieces, patternBytes } from '../support/pattern.ts';

const run = promisify(execFile);
const obstacle = await loopMountObstacle('tmpfs');
const { signal } = new AbortController();
const options = { signal };
const MiB = 1024 * 1024;
const container = '2e/07/2e07de79-59c4-46dd-b72f-eb288b5194a1';

describe.skipIf(obstacle !== null)('a posix store without room or rights', () => {
  let mount: LoopMount;
  let store: PosixStore;
  const names = () => readdir(join(mount.directory, container));

  beforeAll(async () => {
    mount = await mountLoop('tmpfs', { sizeBytes: 4 * MiB });
    store = createPosixStore({ directory: mount.directory, log: createLogger({ level: 'silent' }) });
    await store.adopt(signal);
    await store.ensureContainer(container, signal);
    await store.put(container, 'a-00001', patternBytes(MiB, 1), options);
  });
  afterAll(async () => {
    await store.close();
    await mount.unmount();
  });

  test('says store-full and leaves no part of the object behind', async () => {
    const large = patternBytes(5 * MiB, 2);
    await expect(store.put(container, 'a-00002', large, options)).rejects.toMatchObject({
      code: 'store-full',
    });
    const stream = store.putStream(container, 'a_metadata', inRecycledPieces(large, MiB), options);
    await expect(stream).rejects.toMatchObject({ code: 'store-full' });
    expect(await names()).toEqual(['a-00001']);
    await store.put(container, 'a-00002', patternBytes(MiB, 3), options);
  });

  test('says store-full for many small objects, too', async () => {
    const puts = Array.from({ length: 200 }, (_, n) =>
      store.put(container, `b-${n}`, patternBytes(32768, n), options),
    );
    const failed = (await Promise.allSettled(puts)).filter(({ status }) => status === 'rejected');
    expect(failed.length).toBeGreaterThan(50);
    for (const outcome of failed) expect(outcome).toMatchObject({ reason: { code: 'store-full' } });
    expect((await names()).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  test('says store-denied where it may only read', async () => {
    await run('mount', ['-o', 'remount,ro', mount.directory]);
    const denied = { code: 'store-denied' };
    await expect(store.put(container, 'c', patternBytes(5, 1), options)).rejects.toMatchObject(denied);
    await expect(store.remove(container, 'a-00001', signal)).rejects.toMatchObject(denied);
    await expect(store.ensureContainer('2f/07/x', signal)).rejects.toMatchObject(denied);
  });
});
