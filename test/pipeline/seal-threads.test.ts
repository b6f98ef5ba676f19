import { setTimeout } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { startSealThreads, type SealThreads } from '../../src/pipeline/seal-threads.ts';

/** Answers the length of a task, dies of one of 13, and starts as the environment says: at once, slowly, or not at all. */
const program = `
  import { setTimeout } from 'node:timers/promises';
  import { parentPort } from 'node:worker_threads';
  if (process.env.SEAL_TEST_START === 'fails') throw new Error('no more threads');
  if (process.env.SEAL_TEST_START === 'slow') await setTimeout(200);
  parentPort.on('message', (task) => {
    if (task.length === 13) process.exit(13);
    parentPort.postMessage({ kind: 'done', result: task.length });
  });
  parentPort.postMessage({ kind: 'ready', deflate: 'none' });`;
const entry = new URL(`data:text/javascript,${encodeURIComponent(program)}`);

const workers: Worker[] = [];
const ready: Worker[] = [];
const keep = (worker: Worker) => {
  workers.push(worker);
  worker.once('message', () => ready.push(worker));
};
/** A thread that has ended has no id. */
const living = () => workers.filter(({ threadId }) => threadId >= 0).length;

beforeEach(() => {
  process.on('worker', keep);
});
afterEach(() => {
  process.off('worker', keep);
  delete process.env['SEAL_TEST_START'];
  workers.length = 0;
  ready.length = 0;
});

const run = (threads: SealThreads, length: number) => threads.run({ kind: 'zeros', length, codec: 'zlib' });

test('without a thread a task fails rather than waits, and the first that can have one again gets it', async () => {
  const lines: string[] = [];
  const log = createLogger({
    level: 'warn',
    destination: { write: (line: string) => void lines.push(line) },
  });
  const threads = await startSealThreads(2, { effort: 'speed' }, { entry, log });
  process.env['SEAL_TEST_START'] = 'fails';
  for (const length of [13, 13, 1, 2, 3])
    await expect(run(threads, length)).rejects.toMatchObject({ code: 'bug' });
  expect(living()).toBe(0);
  expect(lines.map((line) => JSON.parse(line))).toContainEqual(
    expect.objectContaining({ living: 0, wanted: 2, msg: 'a sealing thread could not be started' }),
  );
  delete process.env['SEAL_TEST_START'];
  expect(await Promise.all([run(threads, 4), run(threads, 5)])).toEqual([4, 5]);
  await threads.close();
  expect(living()).toBe(0);
});

test('a thread that could not be replaced comes back with a later task, not with each', async () => {
  const threads = await startSealThreads(2, { effort: 'speed' }, { entry, retryMs: 2000 });
  process.env['SEAL_TEST_START'] = 'fails';
  await expect(run(threads, 13)).rejects.toMatchObject({ code: 'bug' });
  await expect.poll(() => [workers.length, living()]).toEqual([3, 1]);
  delete process.env['SEAL_TEST_START'];
  expect(await run(threads, 1)).toBe(1);
  expect(workers.length).toBe(3);
  await setTimeout(2000);
  expect(await run(threads, 2)).toBe(2);
  await expect.poll(() => ready.length).toBe(3);
  expect([workers.length, living()]).toEqual([4, 2]);
  await threads.close();
});

test('closing ends also when the last thread dies meanwhile: what waits fails', async () => {
  const threads = await startSealThreads(1, { effort: 'speed' }, { entry });
  const running = Promise.allSettled([run(threads, 13), run(threads, 1), run(threads, 2)]);
  await threads.close();
  const failed = { status: 'rejected', reason: { code: 'bug' } };
  expect(await running).toMatchObject([failed, failed, failed]);
  expect(living()).toBe(0);
});

test('closing waits for a thread that is starting, and for what that has to do', async () => {
  const threads = await startSealThreads(1, { effort: 'speed' }, { entry });
  process.env['SEAL_TEST_START'] = 'slow';
  await expect(run(threads, 13)).rejects.toMatchObject({ code: 'bug' });
  const waiting = run(threads, 5);
  await threads.close();
  expect(await waiting).toBe(5);
  expect([workers.length, ready.length, living()]).toEqual([2, 2, 0]);
});

test('closing ends a thread that is starting only when it is ready, also if nothing waits', async () => {
  const threads = await startSealThreads(2, { effort: 'speed' }, { entry });
  process.env['SEAL_TEST_START'] = 'slow';
  await expect(run(threads, 13)).rejects.toMatchObject({ code: 'bug' });
  await threads.close();
  expect([workers.length, ready.length, living()]).toEqual([3, 3, 0]);
});

test('closing ends when a thread that is starting cannot be started', async () => {
  const threads = await startSealThreads(1, { effort: 'speed' }, { entry });
  process.env['SEAL_TEST_START'] = 'fails';
  await expect(run(threads, 13)).rejects.toMatchObject({ code: 'bug' });
  const waiting = run(threads, 5);
  waiting.catch(() => undefined);
  await threads.close();
  await expect(waiting).rejects.toMatchObject({ code: 'bug' });
  expect(living()).toBe(0);
});
