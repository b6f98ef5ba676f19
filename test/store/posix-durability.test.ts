import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createDurability, type Durability } from '../../src/store/posix-durability.ts';

const { signal } = new AbortController();
const log = createLogger({ level: 'silent' });

describe('durability', () => {
  let directory = '';
  let durability: Durability;
  /** Calls of syncfs; each waits for its gate and fails if the gate does. */
  let syncs: number;
  let gate: Promise<void>;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'posix-durability-'));
    syncs = 0;
    gate = Promise.resolve();
    durability = createDurability(
      () =>
        Promise.resolve(async (fd: number) => {
          expect(fd).toBeGreaterThan(2);
          syncs += 1;
          await gate;
        }),
      log,
    );
  });
  afterEach(async () => {
    await durability.settle();
    await rm(directory, { recursive: true });
  });

  const add = async (count: number, sizeBytes = 10, first = 0, prefix = 'a-'): Promise<void> => {
    for (let n = first; n < first + count; n += 1) {
      await writeFile(join(directory, `${prefix}${n}`), 'x');
      await durability.addFile(directory, `${prefix}${n}`, sizeBytes);
    }
  };
  const flush = (prefix: string) => durability.flush(directory, prefix, signal);
  const lost = { code: 'store-unavailable', retryable: false };

  /** A sync of `a-0` to `a-37` that began by itself and fails once `work` is done. */
  const loseSync = async (work: () => Promise<void> = async () => undefined): Promise<void> => {
    const { promise, reject } = Promise.withResolvers<void>();
    promise.catch(() => undefined);
    gate = promise;
    await add(38, 111 * 1024);
    await expect.poll(() => syncs).toBe(1);
    await work();
    gate = Promise.resolve();
    reject(new Error('EIO'));
  };

  test('syncs many files at once and few one by one', async () => {
    await add(31);
    await durability.flush(directory, 'a-', signal);
    expect(syncs).toBe(0);
    await add(40);
    await durability.flush(directory, 'a-', signal);
    expect(syncs).toBe(1);
    await durability.flush(directory, 'a-', signal);
    expect(syncs).toBe(1);
  });

  test('syncs one by one where the file system cannot be synced as a whole', async () => {
    durability = createDurability(() => Promise.resolve(undefined), log);
    await add(50);
    await rm(join(directory, 'a-7'));
    await durability.flush(directory, 'a-', signal);
  });

  test('syncs the parents of directories that were made', async () => {
    await mkdir(join(directory, 'x/y'), { recursive: true });
    durability.addDirectories(join(directory, 'x/y'), [join(directory, 'x'), join(directory, 'x/y')]);
    await durability.flush(join(directory, 'x/y'), 'a-', signal);
    durability.addDirectories(join(directory, 'x'), [join(directory, 'gone/z')]);
    const flushAbove = () => durability.flush(join(directory, 'x'), 'a-', signal);
    for (let n = 0; n < 2; n += 1) await expect(flushAbove()).rejects.toMatchObject({ retryable: false });
    await mkdir(join(directory, 'gone'));
    await flushAbove();
  });

  test('starts by itself after 4 MiB, and not again while that runs', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    await add(40, 100 * 1024);
    expect(syncs).toBe(0);
    await add(40, 100 * 1024, 40);
    await expect.poll(() => syncs).toBe(1);
    await add(40, 1024 * 1024, 80);
    resolve();
    await durability.flush(directory, 'a-', signal);
    expect(syncs).toBe(2);
  });

  test('starts a second sync after 64 MiB, and lets puts wait when two are behind', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    // The 38th begins a sync, which the gate holds up; 64 MiB more a second one.
    await add(40, 110 * 1024);
    await add(32, 2 * 1024 * 1024, 40);
    let passed = 0;
    const names = Array.from({ length: 40 }, (_, n) => `b-${n}`);
    const waiting = names.map(async (name) => {
      await durability.addFile(directory, name, 2 * 1024 * 1024);
      passed += 1;
    });
    await new Promise((done) => setImmediate(done));
    expect(passed).toBe(31);
    resolve();
    await Promise.all(waiting);
    await durability.flush(directory, 'a-', signal);
    expect(syncs).toBeGreaterThanOrEqual(2);
  });

  test('delivers a failure to every flush that covers it, for good, and recovers after that', async () => {
    gate = Promise.reject(new Error('EIO'));
    gate.catch(() => undefined);
    await add(40);
    const both = await Promise.allSettled([
      durability.flush(directory, 'a-', signal),
      durability.flush(directory, 'a-', signal),
    ]);
    for (const outcome of both) {
      expect(outcome).toMatchObject({
        status: 'rejected',
        reason: { code: 'store-unavailable', retryable: false },
      });
    }
    gate = Promise.resolve();
    await add(40);
    await durability.flush(directory, 'a-', signal);
  });

  test('keeps the failure of a sync that began by itself for every flush of what it covers, and for no other', async () => {
    await loseSync();
    await add(5, 10, 0, 'b-');
    await flush('b-');
    for (let n = 0; n < 2; n += 1) await expect(flush('a-')).rejects.toMatchObject(lost);
    await flush('b-');
    await expect(flush('')).rejects.toMatchObject(lost);
  });

  test('counts what was added before a sync of all has failed to what it covers', async () => {
    await loseSync(() => add(5, 10, 0, 'b-'));
    await expect(flush('b-')).rejects.toMatchObject(lost);
    await expect(flush('a-')).rejects.toMatchObject(lost);
  });

  test('blames a file that cannot be synced, and not those that are synced with it', async () => {
    await add(3);
    await add(3, 10, 0, 'b-');
    await rm(join(directory, 'a-1'));
    await symlink('elsewhere', join(directory, 'a-1'));
    await flush('b-');
    for (let n = 0; n < 2; n += 1) await expect(flush('a-')).rejects.toMatchObject({ retryable: false });
    await flush('a-0');
    await flush('a-2');
  });

  test('tells every flush that the directory itself cannot be synced, and tries again with the next', async () => {
    await add(1);
    durability.addDirectories(directory, [join(directory, 'gone/z')]);
    await expect(flush('b-')).rejects.toMatchObject({ retryable: false });
    await mkdir(join(directory, 'gone'));
    await flush('b-');
    await expect(flush('a-')).rejects.toMatchObject({ retryable: false });
    const none = join(directory, 'a-0');
    durability.addRemoval(none);
    for (let n = 0; n < 2; n += 1) {
      await expect(durability.flush(none, 'a-', signal)).rejects.toMatchObject({ retryable: false });
    }
    await rm(none);
    await mkdir(none);
    await expect
      .poll(() => durability.flush(none, 'a-', signal).then(() => 'flushed', String))
      .toBe('flushed');
  });

  test('lets go of a directory that cannot be synced, and takes the one that is in its place by then', async () => {
    const place = join(directory, 'place');
    await symlink('/proc/self', place);
    durability.addRemoval(place);
    await expect(durability.flush(place, 'a-', signal)).rejects.toMatchObject({ retryable: false });
    await rm(place);
    await mkdir(place);
    await durability.flush(place, 'a-', signal);
  });

  test('forgets what was lost when it is removed or put anew; until then other removals are flushed', async () => {
    await loseSync();
    await writeFile(join(directory, 'a_metadata'), 'x');
    await rm(join(directory, 'a_metadata'));
    durability.addRemoval(directory);
    await flush('a_');
    await add(37);
    await expect(flush('a-')).rejects.toMatchObject(lost);
    await rm(join(directory, 'a-37'));
    durability.addRemoval(directory);
    await flush('a-');
  });

  test('syncs one by one after a sync of all has failed: what was being written tells only so that it was lost', async () => {
    await loseSync();
    await add(50, 10, 0, 'b-');
    await rm(join(directory, 'b-49'));
    await symlink('elsewhere', join(directory, 'b-49'));
    await expect(flush('b-')).rejects.toMatchObject({ retryable: false });
    expect(syncs).toBe(1);
  });

  test('a flush that is cancelled leaves its sync to the next one', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    await add(40);
    const controller = new AbortController();
    const cancelled = durability.flush(directory, 'a-', controller.signal);
    controller.abort(new Error('enough'));
    await expect(cancelled).rejects.toMatchObject({ code: 'cancelled' });
    let flushed = false;
    const next = durability.flush(directory, 'a-', signal).then(() => {
      flushed = true;
    });
    await new Promise((done) => setImmediate(done));
    expect(flushed).toBe(false);
    resolve();
    await next;
    expect(syncs).toBe(1);
  });
});
