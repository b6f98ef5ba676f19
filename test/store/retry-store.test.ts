import { randomUUID } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { BackupError } from '../../src/model/errors.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
import { createRetryStore } from '../../src/store/retry-store.ts';
import { objectStoreContract } from '../contract/object-store.ts';
import { createFaultPlanStore, type Fault, type FaultPlanStore } from '../support/fault-plan-store.ts';
import { createMemoryStore, type MemoryStore } from '../support/memory-store.ts';
import { collect, inRecycledPieces, patternBytes } from '../support/pattern.ts';
import { listedKeys } from '../support/listed-keys.ts';

const log = createLogger({ level: 'silent' });
const policy = { attempts: 4, firstDelayMs: 1, maxDelayMs: 2 };
const { signal } = new AbortController();
const options = { signal };
const MiB = 1024 * 1024;

const slowDown = () =>
  new BackupError('store-unavailable', 'slow down', { details: { retryAfterMs: 60_000 } });

objectStoreContract('retry over memory', () =>
  Promise.resolve({
    store: createRetryStore(createMemoryStore(), { policy, log }),
    freshContainer: () => `container-${randomUUID()}`,
    dispose: () => Promise.resolve(),
  }),
);

describe('retry store', () => {
  let memory: MemoryStore;
  let faulty: FaultPlanStore;
  let store: ObjectStore;

  beforeEach(async () => {
    memory = createMemoryStore();
    await memory.ensureContainer('c', signal);
    faulty = createFaultPlanStore(memory);
    store = createRetryStore(faulty, { policy, log });
  });
  const failing = (call: Fault['call'], more: Partial<Fault> = {}): void => {
    faulty.plan({ call, at: 1, times: 2, when: 'before', ...more });
  };
  const bytes = patternBytes(3 * MiB, 1);

  for (const when of ['before', 'after'] as const) {
    test(`repeats simple calls that fail twice ${when} their effect`, async () => {
      const calls = ['ensureContainer', 'put', 'flush', 'get', 'remove', 'removeContainer'] as const;
      for (const call of calls) failing(call, { when });
      await store.ensureContainer('c', signal);
      await store.put('c', 'k', bytes, options);
      await store.flush('c', 'k', signal);
      expect((await collect((await store.get('c', 'k', options)).body)).equals(bytes)).toBe(true);
      await store.remove('c', 'k', signal);
      await store.removeContainer('c', signal);
      faulty.assertAllFired();
      expect(calls.map((call) => faulty.calls.get(call))).toEqual([3, 3, 3, 3, 3, 3]);
      expect(memory.containers.size).toBe(0);
    });
  }

  test('throws the last error when the tries are used up', async () => {
    failing('put', { times: Number.POSITIVE_INFINITY });
    await expect(store.put('c', 'k', bytes, options)).rejects.toMatchObject({ code: 'store-unavailable' });
    expect(faulty.calls.get('put')).toBe(policy.attempts);
  });

  test('does not repeat what is not retryable', async () => {
    failing('put', { error: () => new BackupError('store-denied', 'no') });
    await expect(store.put('c', 'k', bytes, options)).rejects.toMatchObject({ code: 'store-denied' });
    failing('flush', { error: () => new BackupError('store-unavailable', 'lost', { retryable: false }) });
    await expect(store.flush('c', 'k', signal)).rejects.toMatchObject({ code: 'store-unavailable' });
    failing('remove', { error: () => new Error('a bug') });
    await expect(store.remove('c', 'k', signal)).rejects.toThrow('a bug');
    expect([faulty.calls.get('put'), faulty.calls.get('flush'), faulty.calls.get('remove')]).toEqual([
      1, 1, 1,
    ]);
  });

  test('waits as long as the store asks for, before calls and in the middle of bodies', async () => {
    const lines: string[] = [];
    const told = createLogger({ level: 'warn', destination: { write: (line) => void lines.push(line) } });
    const patient = createRetryStore(faulty, { policy: { ...policy, maxDelayMs: 30 }, log: told });
    failing('put', { times: 1, error: slowDown });
    failing('getPiece', { at: 3, times: 1, error: slowDown });
    await patient.put('c', 'k', bytes, options);
    expect((await collect((await patient.get('c', 'k', options)).body)).equals(bytes)).toBe(true);
    expect(lines.map((line) => /"delayMs":(\d+)/.exec(line)?.[1])).toEqual(['30', '30']);
  });

  test('never repeats putStream', async () => {
    failing('putStream');
    const put = store.putStream('c', 'k', inRecycledPieces(bytes, MiB), options);
    await expect(put).rejects.toMatchObject({ code: 'store-unavailable' });
    expect(faulty.calls.get('putStream')).toBe(1);
  });

  test('goes on with a body that fails before and after a piece, and gives each byte once', async () => {
    await memory.put('c', 'k', bytes, options);
    failing('getPiece', { at: 5, times: 1 });
    failing('getPiece', { at: 14, times: 2, when: 'after' });
    const { sizeBytes, body } = await store.get('c', 'k', options);
    expect((await collect(body)).equals(bytes)).toBe(true);
    expect(sizeBytes).toBe(bytes.length);
    faulty.assertAllFired();
  });

  test('gives up on a body that brings nothing new', async () => {
    await memory.put('c', 'k', bytes, options);
    failing('getPiece', { at: 3, times: Number.POSITIVE_INFINITY });
    const { body } = await store.get('c', 'k', options);
    await expect(collect(body)).rejects.toMatchObject({ code: 'store-unavailable' });
    expect(faulty.calls.get('get')).toBeLessThanOrEqual(1 + policy.attempts);
  });

  test('refuses to mix two versions of an object', async () => {
    await memory.put('c', 'k', bytes, options);
    failing('getPiece', { at: 3, times: 1 });
    const { body } = await store.get('c', 'k', options);
    const reading = async () => {
      for await (const piece of body) {
        expect(piece.length).toBeGreaterThan(0);
        await memory.put('c', 'k', bytes.subarray(0, 2 * MiB), options);
      }
    };
    await expect(reading()).rejects.toMatchObject({ code: 'store-unavailable', retryable: false });
  });

  const listed = () => listedKeys(store, 'c', 'k');

  describe('a listing', () => {
    const keys = Array.from({ length: 20 }, (_, n) => `k-${n}`);
    beforeEach(async () => {
      for (const key of keys) await memory.put('c', key, patternBytes(3, 1), options);
    });

    test('that fails before and between pages gives each name once', async () => {
      failing('list');
      failing('listPage', { at: 2, times: 1 });
      failing('listPage', { at: 6, times: 1, when: 'after' });
      expect(await listed()).toEqual(keys);
      faulty.assertAllFired();
    });

    test('that is another one the second time ends with an error', async () => {
      failing('listPage', {
        at: 3,
        times: 1,
        error: () => {
          memory.corrupt('c', 'k-0', () => patternBytes(1, 1));
          void memory.remove('c', 'k-3', signal);
          return new BackupError('store-unavailable', 'cut');
        },
      });
      await expect(listed()).rejects.toMatchObject({ code: 'store-unavailable', retryable: false });
    });
  });

  test('a wait ends when the signal aborts', async () => {
    const controller = new AbortController();
    const slow = createRetryStore(faulty, {
      policy: { attempts: 3, firstDelayMs: 60_000, maxDelayMs: 60_000 },
      log,
    });
    failing('put', {
      error: () => {
        setImmediate(() => controller.abort(new Error('enough')));
        return new BackupError('store-unavailable', 'down');
      },
    });
    const put = slow.put('c', 'k', bytes, { signal: controller.signal });
    await expect(put).rejects.toMatchObject({ code: 'cancelled' });
    expect(faulty.calls.get('put')).toBe(1);
  });
});
