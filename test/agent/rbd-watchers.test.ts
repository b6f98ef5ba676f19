import { expect, test } from 'vitest';
import type { RbdImage } from '../../src/agent/rbd-images.ts';
import type { RbdStepResult } from '../../src/agent/rbd-steps.ts';
import { requireAlone } from '../../src/agent/rbd-watchers.ts';

/** An image that a guest has open for the first so many questions. */
function watchedFor(questions: number) {
  let asked = 0;
  const image: Pick<RbdImage, 'run' | 'handle' | 'pool'> = {
    handle: 1n,
    pool: { cluster: 1n, ioctx: 1n, fsid: 'f', poolId: '2' },
    run(kind, _thing, step) {
      asked += 1;
      const names = asked > questions ? [] : ['10.0.0.7:0/123'];
      const result: RbdStepResult = { kind: 'names', names };
      if (step.kind === 'others' && isOf(result, kind)) return Promise.resolve(result);
      return Promise.reject(new Error(`step ${step.kind} is not expected`));
    },
  };
  return { image, asked: () => asked };
}

function isOf<K extends RbdStepResult['kind']>(
  result: RbdStepResult,
  kind: K,
): result is Extract<RbdStepResult, { kind: K }> {
  return result.kind === kind;
}

async function waitFor(image: Pick<RbdImage, 'run' | 'handle' | 'pool'>, stop = new AbortController()) {
  let sleptMs = 0;
  const sleep = (milliseconds: number) => {
    sleptMs += milliseconds;
    if (sleptMs > 100_000) stop.abort();
    return Promise.resolve();
  };
  await requireAlone({ volume: 'volume-x', image, watchTimeoutS: 40, sleep, signal: stop.signal });
  return sleptMs;
}

test('an image that nobody else has open is taken at once', async () => {
  expect(await waitFor(watchedFor(0).image)).toBe(0);
});

test('the watch of a client that died is waited for', async () => {
  expect(await waitFor(watchedFor(30).image)).toBe(30_000);
});

test('an image that a guest has open is refused after a time, and the guest named', async () => {
  const { image, asked } = watchedFor(Infinity);
  await expect(waitFor(image)).rejects.toMatchObject({
    code: 'state-invalid',
    message: expect.stringMatching(/volume-x .*10\.0\.0\.7:0\/123/),
  });
  expect(asked()).toBe(41);
});

test('an agent that ends waits no longer', async () => {
  const stop = new AbortController();
  stop.abort();
  await expect(waitFor(watchedFor(Infinity).image, stop)).rejects.toMatchObject({ code: 'cancelled' });
});
