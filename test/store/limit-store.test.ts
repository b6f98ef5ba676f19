import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { createLimitStore, createStoreLimits } from '../../src/store/limit-store.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
import { objectStoreContract } from '../contract/object-store.ts';
import { createFaultPlanStore } from '../support/fault-plan-store.ts';
import { createMemoryStore } from '../support/memory-store.ts';
import { collect, patternBytes } from '../support/pattern.ts';

const { signal } = new AbortController();
const options = { signal };

objectStoreContract('limit over memory', () =>
  Promise.resolve({
    store: createLimitStore(createMemoryStore(), createStoreLimits({ puts: 3, gets: 2 })),
    freshContainer: () => `container-${randomUUID()}`,
    dispose: () => Promise.resolve(),
  }),
);

/** A memory store that counts how many puts and gets are running. */
function createCountingStore(): { store: ObjectStore; peak: { puts: number; gets: number } } {
  const memory = createMemoryStore();
  const running = { puts: 0, gets: 0 };
  const peak = { puts: 0, gets: 0 };
  const counted = async <T>(kind: 'puts' | 'gets', work: () => Promise<T>): Promise<T> => {
    running[kind] += 1;
    peak[kind] = Math.max(peak[kind], running[kind]);
    await new Promise((resolve) => setImmediate(resolve));
    try {
      return await work();
    } finally {
      running[kind] -= 1;
    }
  };
  const store: ObjectStore = {
    ...memory,
    put: (...args) => counted('puts', () => memory.put(...args)),
    get: (...args) => counted('gets', () => memory.get(...args)),
  };
  return { store, peak };
}

describe('limit store', () => {
  test('lets no more puts and gets run at once than its bounds', async () => {
    const { store: inner, peak } = createCountingStore();
    const store = createLimitStore(inner, createStoreLimits({ puts: 3, gets: 2 }));
    await store.ensureContainer('c', signal);
    const numbers = Array.from({ length: 30 }, (_, n) => n);
    await Promise.all(numbers.map((n) => store.put('c', `k${n}`, patternBytes(10, n), options)));
    await Promise.all(
      numbers.map(async (n) => {
        const { body } = await store.get('c', `k${n}`, options);
        expect((await collect(body)).equals(patternBytes(10, n))).toBe(true);
      }),
    );
    expect(peak).toEqual({ puts: 3, gets: 2 });
  });

  test('stores that share limits are bounded together', async () => {
    const { store: inner, peak } = createCountingStore();
    const limits = createStoreLimits({ puts: 3, gets: 2 });
    const stores = [1, 2, 3].map(() => createLimitStore(inner, limits));
    await inner.ensureContainer('c', signal);
    const puts = stores.flatMap((store, at) =>
      [1, 2, 3, 4, 5].map((n) => store.put('c', `k${at}${n}`, patternBytes(10, n), options)),
    );
    await Promise.all(puts);
    expect(peak.puts).toBe(3);
  });

  test('an open body that nobody reads keeps no slot', async () => {
    const store = createLimitStore(createMemoryStore(), createStoreLimits({ puts: 1, gets: 1 }));
    await store.ensureContainer('c', signal);
    await store.put('c', 'k', patternBytes(1_000_000, 1), options);
    const slow = (await store.get('c', 'k', options)).body[Symbol.asyncIterator]();
    const first = await slow.next();
    expect((await collect((await store.get('c', 'k', options)).body)).length).toBe(1_000_000);
    const second = await slow.next();
    expect([first.done, second.done]).toEqual([false, false]);
    await slow.return?.();
  });

  test('a piece that is awaited holds a slot until it is there', async () => {
    const memory = createMemoryStore();
    const faulty = createFaultPlanStore(memory, { call: 'getPiece', at: 1, when: 'stall' });
    const store = createLimitStore(faulty, createStoreLimits({ puts: 1, gets: 1 }));
    await store.ensureContainer('c', signal);
    await store.put('c', 'k', patternBytes(1000, 1), options);
    const stalled = new AbortController();
    const slow = collect((await store.get('c', 'k', { signal: stalled.signal })).body);
    let opened = false;
    const other = store.get('c', 'k', options).then(({ body }) => {
      opened = true;
      return collect(body);
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(opened).toBe(false);
    stalled.abort(new Error('enough'));
    await expect(slow).rejects.toMatchObject({ code: 'cancelled' });
    expect((await other).equals(patternBytes(1000, 1))).toBe(true);
  });

  test('a put that waits for its slot ends when its signal aborts, and the slot goes to the next', async () => {
    const faulty = createFaultPlanStore(createMemoryStore(), { call: 'put', at: 1, when: 'stall' });
    const store = createLimitStore(faulty, createStoreLimits({ puts: 1, gets: 1 }));
    await store.ensureContainer('c', signal);
    const stalled = new AbortController();
    const waiting = new AbortController();
    const first = store.put('c', 'a', patternBytes(5, 1), { signal: stalled.signal });
    const second = store.put('c', 'b', patternBytes(5, 1), { signal: waiting.signal });
    const third = store.put('c', 'd', patternBytes(5, 1), options);
    waiting.abort(new Error('enough'));
    await expect(second).rejects.toMatchObject({ code: 'cancelled' });
    stalled.abort(new Error('enough'));
    await expect(first).rejects.toMatchObject({ code: 'cancelled' });
    await third;
    faulty.assertAllFired();
  });
});
