import { describe, expect, it } from 'vitest';
import { createBudget, withLimit } from '../../src/async/limit.ts';

/** Resolves after everything that is ready has run. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

describe('a budget', () => {
  it('gives what is free at once and makes the rest wait', async () => {
    const budget = createBudget(10);
    const release = await budget.acquire(7);
    let granted = false;
    const waiting = budget.acquire(4).then((done) => {
      granted = true;
      return done;
    });
    await settled();
    expect(granted).toBe(false);
    release();
    await waiting;
    expect(budget.held).toBe(4);
  });

  it('serves in the order of asking, so that a large request is not passed by for ever', async () => {
    const budget = createBudget(10);
    const release = await budget.acquire(5);
    const order: string[] = [];
    const large = budget.acquire(8).then((done) => {
      order.push('large');
      return done;
    });
    const small = budget.acquire(1).then((done) => {
      order.push('small');
      return done;
    });
    await settled();
    expect(order).toEqual([]);
    release();
    (await large)();
    (await small)();
    expect(order).toEqual(['large', 'small']);
  });

  it('gives a request beyond the capacity all there is, alone', async () => {
    const budget = createBudget(10);
    const release = await budget.acquire(1);
    const waiting = budget.acquire(1000);
    await settled();
    expect(budget.held).toBe(1);
    release();
    (await waiting)();
    expect(budget.peak).toBe(10);
    expect(budget.held).toBe(0);
  });

  it('takes a release only once', async () => {
    const budget = createBudget(2);
    const release = await budget.acquire(1);
    await budget.acquire(1);
    release();
    release();
    expect(budget.held).toBe(1);
  });

  it('remembers the most that was held', async () => {
    const budget = createBudget(10);
    const releases = [await budget.acquire(3), await budget.acquire(4)];
    for (const release of releases) release();
    await budget.acquire(1);
    expect(budget.peak).toBe(7);
  });

  it('refuses an aborted signal', async () => {
    const budget = createBudget(1);
    await expect(budget.acquire(1, AbortSignal.abort(new Error('enough')))).rejects.toThrow('enough');
    expect(budget.held).toBe(0);
  });

  it('ends a wait when its signal aborts, and serves those behind it', async () => {
    const budget = createBudget(10);
    await budget.acquire(5);
    const controller = new AbortController();
    const large = budget.acquire(9, controller.signal);
    const small = budget.acquire(5);
    controller.abort(new Error('enough'));
    await expect(large).rejects.toThrow('enough');
    await small;
    expect(budget.held).toBe(10);
  });
});

describe('withLimit', () => {
  it('runs no more at once than the capacity', async () => {
    const budget = createBudget(3);
    let running = 0;
    let most = 0;
    const work = async () => {
      running += 1;
      most = Math.max(most, running);
      await settled();
      running -= 1;
    };
    await Promise.all(Array.from({ length: 20 }, () => withLimit(budget, work)));
    expect(most).toBe(3);
  });

  it('gives its unit back when the work fails', async () => {
    const budget = createBudget(1);
    const failing = withLimit(budget, async () => {
      throw new Error('no');
    });
    await expect(failing).rejects.toThrow('no');
    expect(budget.held).toBe(0);
  });
});
