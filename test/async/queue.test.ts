import { describe, expect, it } from 'vitest';
import { createQueue } from '../../src/async/queue.ts';

const settled = () => new Promise((resolve) => setImmediate(resolve));

describe('a queue', () => {
  it('hands items on in order and ends after the last', async () => {
    const queue = createQueue<number>(2);
    const producing = (async () => {
      for (let item = 0; item < 10; item += 1) await queue.push(item);
      queue.end();
    })();
    const seen: number[] = [];
    for await (const item of queue) seen.push(item);
    await producing;
    expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it('holds no more than its limit', async () => {
    const queue = createQueue<number>(3);
    let pushed = 0;
    const producing = (async () => {
      for (let item = 0; item < 6; item += 1) {
        await queue.push(item);
        pushed += 1;
      }
      queue.end();
    })();
    await settled();
    expect(pushed).toBe(3);
    const reader = queue[Symbol.asyncIterator]();
    await reader.next();
    await settled();
    expect(pushed).toBe(4);
    await reader.return?.();
    await expect(producing).rejects.toThrow('left');
  });

  it('gives its failure to the reader, and drops what waits', async () => {
    const queue = createQueue<number>(3);
    await queue.push(1);
    queue.fail(new Error('broken'));
    await expect(queue[Symbol.asyncIterator]().next()).rejects.toThrow('broken');
  });

  it('gives its failure to a producer that waits for room', async () => {
    const queue = createQueue<number>(1);
    await queue.push(1);
    const waiting = queue.push(2);
    queue.fail(new Error('broken'));
    await expect(waiting).rejects.toThrow('broken');
  });

  it('keeps the first of two failures', async () => {
    const queue = createQueue<number>(1);
    queue.fail(new Error('first'));
    queue.fail(new Error('second'));
    await expect(queue.push(1)).rejects.toThrow('first');
  });

  it('tells the producer when the reader has left', async () => {
    const queue = createQueue<number>(1);
    await queue.push(1);
    for await (const item of queue) if (item === 1) break;
    await expect(queue.push(2)).rejects.toThrow('the reader of the queue has left');
  });
});
