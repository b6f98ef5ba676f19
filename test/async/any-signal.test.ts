import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { anySignal } from '../../src/async/any-signal.ts';

const never = new AbortController().signal;

test('a signal of several aborts with the first of them, and its reason', () => {
  const controller = new AbortController();
  const signal = anySignal([never, controller.signal]);
  expect(signal.aborted).toBe(false);
  controller.abort('enough');
  expect(signal).toMatchObject({ aborted: true, reason: 'enough' });
});

test('time limits that nobody else holds and nobody listens to are not lost', async () => {
  const signals = Array.from({ length: 2000 }, () => anySignal([never, AbortSignal.timeout(1)]));
  const nested = signals.slice(0, 1000).map((signal) => anySignal([never, signal]));
  // Enough litter that what nobody holds is collected.
  for (let round = 0; round < 20; round += 1) {
    const litter = Array.from({ length: 200 }, () => Array.from({ length: 1000 }, () => round));
    expect(litter).toHaveLength(200);
    await sleep(1);
  }
  expect([...signals, ...nested].filter(({ aborted }) => !aborted)).toHaveLength(0);
});
