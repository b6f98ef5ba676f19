import { expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createReleaseStack, runUntilSignal } from '../../src/main/lifecycle.ts';

const log = createLogger({ level: 'silent' });

test('what was acquired last is released first, all of it, also when one fails', async () => {
  const order: string[] = [];
  const stack = createReleaseStack();
  stack.add('first', () => void order.push('first'));
  stack.add('second', () => Promise.reject(new Error('stuck')));
  stack.add('third', async () => void order.push('third'));
  await expect(stack.releaseAll()).rejects.toMatchObject({
    errors: [expect.objectContaining({ message: 'second was not closed' })],
  });
  expect(order).toEqual(['third', 'first']);
});

test('releasing twice releases once', async () => {
  let count = 0;
  const stack = createReleaseStack();
  stack.add('it', () => {
    count += 1;
  });
  await Promise.all([stack.releaseAll(), stack.releaseAll()]);
  expect(count).toBe(1);
});

test('the first signal closes, and the exit code tells how that went', async () => {
  const good = runUntilSignal(log, async () => {});
  process.emit('SIGTERM');
  expect(await good).toBe(0);
  const bad = runUntilSignal(log, () => Promise.reject(new Error('stuck')));
  process.emit('SIGINT');
  expect(await bad).toBe(1);
  expect(process.listenerCount('SIGTERM')).toBe(0);
});

test('the second signal ends at once', async () => {
  const closing = Promise.withResolvers<void>();
  const codes: number[] = [];
  const running = runUntilSignal(log, () => closing.promise, { exit: (code) => void codes.push(code) });
  process.emit('SIGTERM');
  expect(codes).toEqual([]);
  process.emit('SIGTERM');
  expect(codes).toEqual([1]);
  closing.resolve();
  expect(await running).toBe(0);
});
