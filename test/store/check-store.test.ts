import { expect, test } from 'vitest';
import { BackupError } from '../../src/model/errors.ts';
import { checkStore } from '../../src/store/check-store.ts';

const { signal } = new AbortController();

test('a store that answers is ready, with what is worth knowing', async () => {
  const store = { check: () => Promise.resolve(['the clock is late']) };
  expect(await checkStore(store, 'c', signal)).toEqual({ ready: true, findings: ['the clock is late'] });
});

test('a store that fails is not ready, with the reason', async () => {
  const store = { check: () => Promise.reject(new BackupError('store-denied', 'wrong key')) };
  expect(await checkStore(store, 'c', signal)).toEqual({ ready: false, findings: ['wrong key'] });
});

test('a store that hangs whatever it is told holds nobody who stops', async () => {
  const stop = new AbortController();
  const store = { check: () => new Promise<never>(() => undefined) };
  const checked = checkStore(store, 'c', stop.signal);
  stop.abort();
  await expect(checked).rejects.toMatchObject({ code: 'cancelled' });
});
