import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createThreadPool, type ThreadPool } from '../../src/agent/thread-pool.ts';
import type { PoolJob, PoolResult } from '../support/pool-worker.ts';

const noAbort = new AbortController().signal;

describe('thread pool', () => {
  let pool: ThreadPool<PoolJob, PoolResult>;
  beforeEach(() => {
    pool = createThreadPool({ module: new URL('../support/pool-worker.ts', import.meta.url), threads: 2 });
  });
  afterEach(() => pool.close());

  const echo = (value: number) => pool.run({ kind: 'echo', value }, [], noAbort);
  /** Fills both workers, and what each holds ready, until the flag is raised. */
  const occupy = () => {
    const flag = new Int32Array(new SharedArrayBuffer(4));
    const jobs = Array.from({ length: 4 }, () => pool.run({ kind: 'wait', flag }, [], noAbort));
    return async () => {
      Atomics.store(flag, 0, 1);
      Atomics.notify(flag, 0);
      await Promise.all(jobs);
    };
  };

  test('gives every job its own answer', async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, (_, value) => echo(value)));
    expect(answers.map(({ value }) => value)).toEqual(Array.from({ length: 50 }, (_, value) => value));
    expect(pool.pending).toBe(0);
  });

  test('hands buffers over and gets them back', async () => {
    const buffer = new ArrayBuffer(8);
    new Uint8Array(buffer).set([1, 2, 3]);
    const { buffer: back } = await pool.run({ kind: 'echo', value: 0, buffer }, [buffer], noAbort);
    expect(buffer.byteLength).toBe(0);
    expect([...new Uint8Array(back ?? new ArrayBuffer())].slice(0, 3)).toEqual([1, 2, 3]);
  });

  test('brings errors of ours and of the system over as what they were', async () => {
    await expect(pool.run({ kind: 'ours' }, [], noAbort)).rejects.toMatchObject({
      name: 'BackupError',
      code: 'corrupt',
      message: 'a damaged thing',
      details: { at: 7 },
    });
    await expect(pool.run({ kind: 'system' }, [], noAbort)).rejects.toMatchObject({ code: 'ENOSPC' });
  });

  test('fails the job of a thread that dies, and goes on with another thread', async () => {
    await expect(pool.run({ kind: 'die' }, [], noAbort)).rejects.toMatchObject({ code: 'agent-failed' });
    expect(await echo(5)).toMatchObject({ value: 5 });
  });

  test('drops a waiting job when its signal aborts, and leaves its buffer here', async () => {
    const release = occupy();
    const controller = new AbortController();
    const buffer = new ArrayBuffer(8);
    const waiting = pool.run({ kind: 'echo', value: 1, buffer }, [buffer], controller.signal);
    controller.abort(new Error('gone'));
    await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
    expect(buffer.byteLength).toBe(8);
    await release();
  });

  test('does not start a job whose signal has aborted before', async () => {
    await expect(pool.run({ kind: 'die' }, [], AbortSignal.abort())).rejects.toMatchObject({
      code: 'cancelled',
    });
    expect(pool.pending).toBe(0);
  });

  test('lets the jobs that run come to their ends when it is closed, and fails those that wait', async () => {
    const flag = new Int32Array(new SharedArrayBuffer(4));
    const begun = new Int32Array(new SharedArrayBuffer(4));
    const jobs = Array.from({ length: 6 }, () => pool.run({ kind: 'wait', flag, begun }, [], noAbort));
    const outcomes = Promise.allSettled(jobs);
    await vi.waitFor(() => expect(Atomics.load(begun, 0)).toBe(2), 10_000);
    const closing = pool.close();
    expect(await Promise.race([closing.then(() => 'closed'), setTimeout(100, 'open')])).toBe('open');
    Atomics.store(flag, 0, 1);
    Atomics.notify(flag, 0);
    await closing;
    const refused = { status: 'rejected', reason: { code: 'agent-unavailable' } };
    const ended = { status: 'fulfilled' };
    expect(await outcomes).toMatchObject([ended, ended, refused, refused, refused, refused]);
    expect(Atomics.load(begun, 0)).toBe(2);
    await expect(echo(1)).rejects.toMatchObject({ code: 'agent-unavailable' });
  });

  test('lets its threads load their modules to the end before it ends them', async () => {
    // A thread that was terminated while it loaded a native module took the process with it.
    const folder = await mkdtemp(join(tmpdir(), 'cinder-delta-pool-'));
    try {
      process.env['POOL_WORKER_LOADED'] = folder;
      const slow = createThreadPool({
        module: new URL('../support/slow-worker.ts', import.meta.url),
        threads: 2,
      });
      slow.warm();
      await slow.close();
      expect(await readdir(folder)).toHaveLength(2);
    } finally {
      delete process.env['POOL_WORKER_LOADED'];
      await rm(folder, { recursive: true });
    }
  });
});
