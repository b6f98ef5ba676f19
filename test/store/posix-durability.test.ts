import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createDurability, type Durability } from '../../src/store/posix-durability.ts';

const { signal } = new AbortController();

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
    durability = createDurability(() =>
      Promise.resolve(async (fd: number) => {
        expect(fd).toBeGreaterThan(2);
        syncs += 1;
        await gate;
      }),
    );
  });
  afterEach(async () => {
    await durability.settle();
    await rm(directory, { recursive: true });
  });

  const add = async (count: number, sizeBytes = 10, first = 0): Promise<void> => {
    for (let n = first; n < first + count; n += 1) {
      await writeFile(join(directory, `a-${n}`), 'x');
      await durability.addFile(directory, `a-${n}`, sizeBytes);
    }
  };

  test('syncs many files at once and few one by one', async () => {
    await add(31);
    await durability.flush(directory, signal);
    expect(syncs).toBe(0);
    await add(40);
    await durability.flush(directory, signal);
    expect(syncs).toBe(1);
    await durability.flush(directory, signal);
    expect(syncs).toBe(1);
  });

  test('syncs one by one where the file system cannot be synced as a whole', async () => {
    durability = createDurability(() => Promise.resolve(undefined));
    await add(50);
    await rm(join(directory, 'a-7'));
    await durability.flush(directory, signal);
  });

  test('syncs the parents of directories that were made', async () => {
    await mkdir(join(directory, 'x/y'), { recursive: true });
    durability.addDirectories(join(directory, 'x/y'), [join(directory, 'x'), join(directory, 'x/y')]);
    await durability.flush(join(directory, 'x/y'), signal);
    durability.addDirectories(join(directory, 'x'), [join(directory, 'gone/z')]);
    await expect(durability.flush(join(directory, 'x'), signal)).rejects.toMatchObject({ retryable: false });
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
    await durability.flush(directory, signal);
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
    await durability.flush(directory, signal);
    expect(syncs).toBeGreaterThanOrEqual(2);
  });

  test('delivers a failure to every flush that covers it, for good, and recovers after that', async () => {
    gate = Promise.reject(new Error('EIO'));
    gate.catch(() => undefined);
    await add(40);
    const both = await Promise.allSettled([
      durability.flush(directory, signal),
      durability.flush(directory, signal),
    ]);
    for (const outcome of both) {
      expect(outcome).toMatchObject({
        status: 'rejected',
        reason: { code: 'store-unavailable', retryable: false },
      });
    }
    gate = Promise.resolve();
    await add(40);
    await durability.flush(directory, signal);
  });

  test('keeps the failure of a sync that started by itself for the next flush', async () => {
    gate = Promise.reject(new Error('EIO'));
    gate.catch(() => undefined);
    await add(40, 110 * 1024);
    await expect.poll(() => syncs).toBe(1);
    gate = Promise.resolve();
    await expect(durability.flush(directory, signal)).rejects.toMatchObject({ retryable: false });
  });

  test('a flush that is cancelled leaves its sync to the next one', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    gate = promise;
    await add(40);
    const controller = new AbortController();
    const cancelled = durability.flush(directory, controller.signal);
    controller.abort(new Error('enough'));
    await expect(cancelled).rejects.toMatchObject({ code: 'cancelled' });
    let flushed = false;
    const next = durability.flush(directory, signal).then(() => {
      flushed = true;
    });
    await new Promise((done) => setImmediate(done));
    expect(flushed).toBe(false);
    resolve();
    await next;
    expect(syncs).toBe(1);
  });
});
