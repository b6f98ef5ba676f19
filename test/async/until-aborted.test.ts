import { expect, test } from 'vitest';
import { untilAborted } from '../../src/async/until-aborted.ts';

const never = () => new Promise<never>(() => {});

test('what the work gives or throws is given, while nothing is aborted', async () => {
  const { signal } = new AbortController();
  expect(await untilAborted(Promise.resolve(7), signal)).toBe(7);
  await expect(untilAborted(Promise.reject(new Error('no')), signal)).rejects.toThrow('no');
});

test('an abort ends the waiting as cancelled, with its reason', async () => {
  const controller = new AbortController();
  const waiting = untilAborted(never(), controller.signal);
  const reason = new Error('gone');
  controller.abort(reason);
  await expect(waiting).rejects.toMatchObject({ code: 'cancelled', cause: reason });
});

test('one that has aborted before keeps nothing waiting, and the failure of the work is nobody’s', async () => {
  const work = Promise.reject(new Error('late'));
  await expect(untilAborted(work, AbortSignal.abort())).rejects.toMatchObject({ code: 'cancelled' });
});
