import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createPosixStore, type PosixStore } from '../../src/store/posix-store.ts';
import { entriesOf } from '../../src/store/posix-listing.ts';
import { markerName } from '../../src/store/posix-root.ts';
import { removePrefix } from '../../src/store/remove-prefix.ts';
import { listedKeys } from '../support/listed-keys.ts';
import { loopMountObstacle, mountLoop, type LoopMount } from '../support/loop-mount.ts';

const obstacle = await loopMountObstacle('ext4');
const { signal } = new AbortController();
const container = 'shared';
const count = 600;

/** Node cannot look up what it was told in Latin-1, as it cannot what is gone by then: each is ENOENT. */
const latin = Buffer.from([0x6e, 0x6f, 0x74, 0xe9]);

describe.skipIf(obstacle !== null)('a file system that does not tell what its entries are', () => {
  let mount: LoopMount;
  let store: PosixStore;
  let directory = '';
  beforeAll(async () => {
    mount = await mountLoop('ext4', { sizeBytes: 64 * 1024 * 1024, makeOptions: ['-O', '^filetype'] });
    directory = join(mount.directory, container);
    store = createPosixStore({ directory: mount.directory, log: createLogger({ level: 'silent' }) });
    await store.adopt(signal);
    await store.ensureContainer(container, signal);
    await mkdir(join(directory, 'a-directory'));
    await writeFile(Buffer.concat([Buffer.from(`${directory}/`), latin]), 'x');
    for (let n = 1; n <= count; n += 1) await writeFile(join(directory, `a-${n}`), 'x');
  });
  afterAll(async () => {
    await store.close();
    await mount.unmount();
  });

  test('has all its objects listed, whatever entry is gone before it is looked up', async () => {
    expect(await listedKeys(store, container, 'a-')).toHaveLength(count);
  });

  test('and each of them once while others go', async () => {
    const seen: string[] = [];
    for await (const { name } of entriesOf(directory)) {
      seen.push(name);
      if (seen.length % 50 === 0) await rm(join(directory, `a-${seen.length}`), { force: true });
    }
    expect(new Set(seen).size).toBe(seen.length);
    for (let n = 1; n <= count; n += 1) if (n % 50 !== 0) expect(seen).toContain(`a-${n}`);
  });

  test('keeps none of what a prefix covers when that is removed', async () => {
    await removePrefix(store, container, 'a-', signal);
    expect(await listedKeys(store, container, 'a-')).toEqual([]);
  });

  test('has nothing in a directory that is absent, but fails where there is none to read', async () => {
    expect(await entriesOf(join(directory, 'gone')).next()).toEqual({ done: true, value: undefined });
    const file = entriesOf(join(mount.directory, markerName));
    await expect(file.next()).rejects.toMatchObject({ code: 'ENOTDIR' });
  });
});
