import { expect, test } from 'vitest';
import { removePrefix } from '../../src/store/remove-prefix.ts';
import { createMemoryStore } from '../support/memory-store.ts';
import { patternBytes } from '../support/pattern.ts';

const live = new AbortController().signal;

test('a store without a removal of its own is emptied object by object', async () => {
  const store = createMemoryStore();
  await store.ensureContainer('c', live);
  for (let n = 0; n < 30; n += 1) await store.put('c', `mine-${n}`, patternBytes(n, n), { signal: live });
  await store.put('c', 'other', patternBytes(3, 1), { signal: live });
  expect(await removePrefix(store, 'c', 'mine-', live)).toBe(30);
  expect([...(store.containers.get('c')?.keys() ?? [])]).toEqual(['other']);
  expect(await removePrefix(store, 'c', 'mine-', live)).toBe(0);
});

test('a store with a removal of its own is asked for it', async () => {
  const asked: string[] = [];
  const store = {
    ...createMemoryStore(),
    removePrefix: async (container: string, prefix: string) => {
      asked.push(`${container}/${prefix}`);
      return await Promise.resolve(7);
    },
  };
  expect(await removePrefix(store, 'c', 'p', live)).toBe(7);
  expect(asked).toEqual(['c/p']);
});
