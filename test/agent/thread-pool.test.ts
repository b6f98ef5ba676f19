import { afterEach, beforeEach, describe, expect, test } from 'vitest';
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

  test('fails what runs and what waits when it is closed', async () => {
    const flag = new Int32Array(new SharedArrayBuffer(4));
    const jobs = Array.from({ length: 6 }, () => pool.run({ kind: 'wait', flag }, [], noAbort));
    const failed = Promise.all(
      jobs.map((job) => expect(job).rejects.toMatchObject({ code: 'agent-unavailable' })),
    );
    await pool.close();
    await failed;
    await expect(echo(1)).rejects.toMatchObject({ code: 'agent-unavailable' });
  });
});
