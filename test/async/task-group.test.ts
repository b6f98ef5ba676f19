import { describe, expect, it } from 'vitest';
import { createTaskGroup } from '../../src/async/task-group.ts';

const never = new AbortController().signal;
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A task that ends when it is told to, or with the signal. */
function controlled() {
  const gate = Promise.withResolvers<undefined>();
  const task = async (signal: AbortSignal) => {
    signal.addEventListener('abort', () => gate.reject(signal.reason), { once: true });
    await gate.promise;
  };
  return { task, end: () => gate.resolve(undefined) };
}

describe('a task group', () => {
  it('starts no more tasks at once than its limit', async () => {
    const group = createTaskGroup(2, never);
    const tasks = [controlled(), controlled(), controlled()];
    let started = 0;
    const adding = (async () => {
      for (const { task } of tasks) {
        await group.add(task);
        started += 1;
      }
    })();
    await settled();
    expect(started).toBe(2);
    tasks[1]?.end();
    await settled();
    expect(started).toBe(3);
    for (const { end } of tasks) end();
    await adding;
    await group.settle();
  });

  it('aborts the others when one fails, and throws that failure after all have settled', async () => {
    const group = createTaskGroup(3, never);
    let stopped = false;
    await group.add(async (signal) => {
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      await settled();
      stopped = true;
    });
    await group.add(async () => {
      throw new Error('broken');
    });
    await expect(group.settle()).rejects.toThrow('broken');
    expect(stopped).toBe(true);
  });

  it('keeps the first failure when stopping fails too', async () => {
    const group = createTaskGroup(2, never);
    await group.add(async (signal) => {
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      throw new Error('second');
    });
    await group.add(async () => {
      throw new Error('first');
    });
    await expect(group.settle()).rejects.toThrow('first');
  });

  it('takes no task after it failed', async () => {
    const group = createTaskGroup(1, never);
    await group.add(async () => {
      throw new Error('broken');
    });
    await settled();
    await expect(group.add(async () => {})).rejects.toThrow('broken');
    await expect(group.settle()).rejects.toThrow('broken');
  });

  it('fails with the reason of the outer signal', async () => {
    const controller = new AbortController();
    const group = createTaskGroup(1, controller.signal);
    await group.add(controlled().task);
    controller.abort(new Error('enough'));
    await expect(group.settle()).rejects.toThrow('enough');
  });

  it('fails with the reason it was cancelled with', async () => {
    const group = createTaskGroup(1, never);
    await group.add(controlled().task);
    group.cancel(new Error('given up'));
    await expect(group.settle()).rejects.toThrow('given up');
    expect(group.signal.aborted).toBe(true);
  });

  it('settles at once without tasks', async () => {
    await createTaskGroup(1, never).settle();
  });
});
