/** Steps that hang in librbd, and those that come after them. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createRbdConnection, createRbdThreads, type RbdThreads } from '../../src/agent/rbd-connection.ts';
import type { RbdStepResult } from '../../src/agent/rbd-steps.ts';
import { createLogger } from '../../src/log.ts';
import { never, rbdPool, rbdSettings as settings, scriptedRbd } from '../support/scripted-rbd.ts';

const log = createLogger({ level: 'silent' });
const unanswered = {
  code: 'agent-unavailable',
  message: expect.stringMatching(/^cluster ceph does not answer/),
};
const limitMs = 160_000;
const write = { kind: 'write', image: 9n, offset: 0, bytes: new Uint8Array(512) } as const;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});
afterEach(() => {
  vi.useRealTimers();
});

describe('beside steps that hang', () => {
  let folder: string;
  let threads: RbdThreads;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'cinder-delta-rbd-'));
    process.env['RBD_STEPS'] = folder;
    threads = createRbdThreads(new URL('../support/rbd-step-worker.ts', import.meta.url));
  });
  afterEach(async () => {
    await threads.close();
    delete process.env['RBD_STEPS'];
    await rm(folder, { recursive: true });
  });

  const letGo = () => writeFile(join(folder, 'go'), '');
  const begun = async (kind: string) =>
    (await readFile(join(folder, 'steps'), 'utf8')).split('\n').filter((line) => line === kind).length;

  test('a step does not wait for theirs while a thread is free', async () => {
    const connection = createRbdConnection({ settings, threads, log });
    const lease = await connection.lease();
    const hung = [1n, 2n, 3n].map((image) => lease.run('done', 'hung', { kind: 'flush', image }));
    await vi.waitFor(async () => expect(await begun('flush')).toBe(3), 10_000);
    const writes = [0, 512, 1024].map((offset) => lease.run('written', 'volume', { ...write, offset }));
    expect(await Promise.all(writes)).toHaveLength(3);
    await letGo();
    await Promise.all(hung);
    lease.release();
    await connection.close();
  });

  test('a write that has not begun when it is given up is never done', async () => {
    const connection = createRbdConnection({ settings, threads, log });
    const lease = await connection.lease();
    const hung = [1n, 2n, 3n, 4n].map((image) => lease.run('done', 'hung', { kind: 'flush', image }));
    await vi.waitFor(async () => expect(await begun('flush')).toBe(4), 10_000);
    const outcomes = Promise.allSettled([...hung, lease.run('written', 'volume', write)]);
    await vi.advanceTimersByTimeAsync(limitMs);
    for (const outcome of await outcomes) expect(outcome).toMatchObject({ reason: unanswered });
    await letGo();
    lease.release();
    await connection.close();
    expect(await begun('disconnect')).toBe(1);
    expect(await begun('write')).toBe(0);
  });
});

test('closing an image is not given up, however late: its connection waits for it', async () => {
  const { asked, threads } = scriptedRbd({
    connect: Promise.resolve({ kind: 'pool', pool: rbdPool }),
    close: never,
    flush: never,
  });
  const lease = await createRbdConnection({ settings, threads, log }).lease();
  const outcomes = Promise.allSettled([
    lease.run('done', 'volume', { kind: 'close', image: 1n }),
    lease.run('done', 'volume', { kind: 'flush', image: 2n }),
  ]);
  await vi.advanceTimersByTimeAsync(limitMs);
  for (const outcome of await outcomes) expect(outcome).toMatchObject({ reason: unanswered });
  expect(asked.map(({ kind, signal }) => [kind, signal.aborted])).toEqual([
    ['connect', false],
    ['close', false],
    ['flush', true],
  ]);
});

test('connecting is given up after a time, and closed again if it succeeds later', async () => {
  const connected = Promise.withResolvers<RbdStepResult>();
  const { asked, threads } = scriptedRbd({ connect: connected.promise });
  const connection = createRbdConnection({ settings, threads, log });
  const outcome = Promise.allSettled([connection.lease()]);
  await vi.advanceTimersByTimeAsync(limitMs);
  expect(await outcome).toMatchObject([{ reason: unanswered }]);
  expect(asked).toMatchObject([{ kind: 'connect', signal: { aborted: true } }]);
  connected.resolve({ kind: 'pool', pool: rbdPool });
  await vi.waitFor(() => expect(asked.map(({ kind }) => kind)).toEqual(['connect', 'disconnect']));
});
