import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { both } from '../../src/async/both.ts';

const live = new AbortController().signal;

async function fails(): Promise<never> {
  await turn();
  throw new Error('the first');
}

function waitsFor(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) =>
    signal.addEventListener('abort', () => reject(signal.reason), { once: true }),
  );
}

test('two steps run at the same time and give both results', async () => {
  const order: string[] = [];
  const step = (name: string) => async () => {
    order.push(`${name} begins`);
    await turn();
    order.push(`${name} ends`);
    return name;
  };
  expect(await both(live, step('a'), step('b'))).toEqual(['a', 'b']);
  expect(order).toEqual(['a begins', 'b begins', 'a ends', 'b ends']);
});

test('a step that fails aborts the other, and its reason is thrown when both are at rest', async () => {
  let rested = false;
  const waits = async (signal: AbortSignal) => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    await turn();
    rested = true;
    throw signal.reason;
  };
  await expect(both(live, waits, fails)).rejects.toThrow('the first');
  expect(rested).toBe(true);
});

test('an outer signal that aborts ends both with its reason', async () => {
  const outer = new AbortController();
  const running = both(outer.signal, waitsFor, waitsFor);
  outer.abort(new Error('stopped'));
  await expect(running).rejects.toThrow('stopped');
});
