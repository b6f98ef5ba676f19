import { expect, test } from 'vitest';
import { setImmediate as turn } from 'node:timers/promises';
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
  const good = runUntilSignal(log, async () => ({ close: async () => {} }));
  process.emit('SIGTERM');
  expect(await good).toBe(0);
  const bad = runUntilSignal(log, async () => ({ close: () => Promise.reject(new Error('stuck')) }));
  await turn();
  process.emit('SIGINT');
  expect(await bad).toBe(1);
  expect(process.listenerCount('SIGTERM')).toBe(0);
});

test('the second signal ends at once', async () => {
  const closing = Promise.withResolvers<void>();
  const codes: number[] = [];
  const running = runUntilSignal(log, async () => ({ close: () => closing.promise }), {
    exit: (code) => void codes.push(code),
  });
  await turn();
  process.emit('SIGTERM');
  expect(codes).toEqual([]);
  process.emit('SIGTERM');
  expect(codes).toEqual([1]);
  closing.resolve();
  expect(await running).toBe(0);
});

test('a signal during the start ends it, and what was started all the same is closed', async () => {
  let wasClosed = false;
  const slow = Promise.withResolvers<void>();
  const ignoring = runUntilSignal(log, async () => {
    await slow.promise;
    return {
      close: async () => {
        wasClosed = true;
      },
    };
  });
  process.emit('SIGTERM');
  slow.resolve();
  expect(await ignoring).toBe(0);
  expect(wasClosed).toBe(true);

  const heeding = runUntilSignal(
    log,
    (stopping) =>
      new Promise((_, reject) => stopping.addEventListener('abort', () => reject(stopping.reason))),
  );
  process.emit('SIGTERM');
  expect(await heeding).toBe(0);
  await expect(runUntilSignal(log, () => Promise.reject(new Error('no room')))).rejects.toThrow('no room');
});
