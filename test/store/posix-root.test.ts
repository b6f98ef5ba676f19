import { randomUUID } from 'node:crypto';
import { chmod, chown, mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { backupPrefix } from '../../src/layout/names.ts';
import { createLogger } from '../../src/log.ts';
import { isMounted } from '../../src/store/posix-file-systems.ts';
import { markerName } from '../../src/store/posix-root.ts';
import { createPosixStore, type PosixStore } from '../../src/store/posix-store.ts';
import { patternBytes } from '../support/pattern.ts';
import { listedKeys } from '../support/listed-keys.ts';
import { loopMountObstacle, mountLoop } from '../support/loop-mount.ts';

const { signal } = new AbortController();
const options = { signal };
const log = createLogger({ level: 'silent' });
const uuid = '2e07de79-59c4-46dd-b72f-eb288b5194a1';
const container = `2e/07/${uuid}`;
const unavailable = { code: 'store-unavailable', message: expect.stringMatching(/mount/) };
const obstacle = await loopMountObstacle('tmpfs');
const nobody = 65_534;
let parent = '';
let directory = '';
let store: PosixStore;

beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), 'posix-root-'));
});
afterAll(() => rm(parent, { recursive: true }));
beforeEach(() => {
  directory = join(parent, randomUUID());
  store = createPosixStore({ directory, log });
});
afterEach(() => store.close());

const keysOf = (of: string) => listedKeys(store, of);

/** Every call that would change something or call something absent. */
const calls: readonly [string, () => Promise<unknown>][] = [
  ['ensureContainer', () => store.ensureContainer(container, signal)],
  ['put', () => store.put(container, 'a', patternBytes(5, 1), options)],
  ['get', () => store.get(container, 'a', options)],
  ['list', () => keysOf(container)],
  ['remove', () => store.remove(container, 'a', signal)],
  ['removeContainer', () => store.removeContainer(container, signal)],
  ['check', () => store.check('', signal)],
];

test('a store that was adopted passes its self-test', async () => {
  await store.adopt(signal);
  expect(await store.check('', signal)).toEqual([]);
});

describe('an empty directory that nobody adopted', () => {
  for (const [name, call] of calls) {
    test(`makes ${name} store-unavailable, and stays as it is`, async () => {
      await mkdir(directory);
      await expect(call()).rejects.toMatchObject(unavailable);
      expect(await readdir(directory)).toEqual([]);
    });
  }

  test('is the store once the operator has made the file', async () => {
    await mkdir(directory);
    await expect(keysOf(container)).rejects.toMatchObject(unavailable);
    await writeFile(join(directory, markerName), '');
    expect(await keysOf(container)).toEqual([]);
  });
});

describe('a store whose file system went away', () => {
  for (const [name, call] of calls) {
    test(`makes ${name} store-unavailable until it is back`, async () => {
      await store.adopt(signal);
      await store.ensureContainer(container, signal);
      await store.put(container, 'a', patternBytes(5, 1), options);
      await rename(directory, `${directory}.away`);
      await mkdir(directory);
      await expect(call()).rejects.toMatchObject(unavailable);
      await rm(directory, { recursive: true });
      await rename(`${directory}.away`, directory);
      expect(await keysOf(container)).toEqual(['a']);
      await call();
    });
  }

  test('is not replaced by an older one beneath it', async () => {
    await store.adopt(signal);
    await rename(directory, `${directory}.away`);
    await mkdir(join(directory, container), { recursive: true });
    await expect(store.remove(container, 'a', signal)).rejects.toMatchObject(unavailable);
  });
});

describe("a store of Cinder's", () => {
  const prefix = backupPrefix('posix', {
    volumeId: randomUUID(),
    backupId: uuid,
    at: new Date(0),
    availabilityZone: 'nova',
  });
  const key = `${prefix}-00001`;

  for (const own of [container, 'nightly']) {
    test(`is adopted for what it holds in ${own}`, async () => {
      await mkdir(join(directory, 'lost+found'), { recursive: true });
      await mkdir(join(directory, own), { recursive: true });
      await writeFile(join(directory, own, key), 'x');
      expect(await keysOf(own)).toEqual([key]);
      expect(await readdir(directory)).toContain(markerName);
    });
  }

  test('is not seen in what is no backup', async () => {
    for (const path of ['lost+found', '2e/07/other', `xx/07/${uuid}`, `2e/${uuid}`, 'nightly/dump']) {
      await mkdir(join(directory, path), { recursive: true });
    }
    await writeFile(join(directory, key), 'x');
    await expect(store.remove(container, key, signal)).rejects.toMatchObject(unavailable);
    expect(await readdir(directory)).not.toContain(markerName);
  });

  test("is looked for beside directories that are another user's, but not without a look at its own", async () => {
    await mkdir(join(directory, 'lost+found'), { recursive: true });
    await chmod(join(directory, 'lost+found'), 0o000);
    await chmod(parent, 0o755);
    await chown(directory, nobody, nobody);
    await asNobody(async () => {
      await expect(keysOf(container)).rejects.toMatchObject(unavailable);
      await mkdir(join(directory, container), { recursive: true });
      expect(await keysOf(container)).toEqual([]);
      expect(await readdir(directory)).toContain(markerName);
      await rm(join(directory, markerName));
      await chmod(directory, 0o300);
      const denied = createPosixStore({ directory, log });
      await expect(denied.check('', signal)).rejects.toMatchObject({ code: 'store-denied' });
      await denied.close();
    });
  });
});

describe.skipIf(obstacle !== null)('a share', () => {
  test('is the store while it is mounted, whatever lies in the directory beneath', async () => {
    const mount = await mountLoop('tmpfs', { sizeBytes: 1024 * 1024 });
    try {
      const share = createPosixStore({ directory: mount.directory, log, share: 'nas:/export' });
      await share.adopt(signal);
      await share.ensureContainer(container, signal);
      await share.put(container, 'a', patternBytes(5, 1), options);
      await share.close();
    } finally {
      await mount.unmount();
    }
    await mkdir(join(mount.directory, container), { recursive: true });
    await writeFile(join(mount.directory, markerName), '');
    const again = createPosixStore({ directory: mount.directory, log, share: 'nas:/export' });
    for (const call of [
      () => again.adopt(signal),
      () => again.check('', signal),
      () => again.ensureContainer(container, signal),
      () => again.remove(container, 'a', signal),
      () => listedKeys(again, container),
    ]) {
      await expect(call()).rejects.toMatchObject({
        code: 'store-unavailable',
        message: expect.stringContaining(`nas:/export is not mounted on ${mount.directory}: mount it`),
      });
    }
    await again.close();
    await rm(dirname(mount.directory), { recursive: true });
  });

  test('of a server that another share comes from is known by its kind: the device may be the same', async () => {
    await mkdir(directory);
    expect(await isMounted(directory, () => Promise.resolve(0x6969))).toBe(true);
    expect(await isMounted(directory)).toBe(false);
  });
});

/** Runs `work` as a user whom permissions stop, unless the tests run as one. */
async function asNobody(work: () => Promise<void>): Promise<void> {
  const user = process.geteuid?.();
  if (user !== 0) return await work();
  process.seteuid?.(nobody);
  try {
    await work();
  } finally {
    process.seteuid?.(user);
  }
}
