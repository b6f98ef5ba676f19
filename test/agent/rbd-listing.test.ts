import { expect, test } from 'vitest';
import { describeEach } from '../../src/agent/rbd-listing.ts';
import { createBudget } from '../../src/async/limit.ts';

const names = Array.from({ length: 50 }, (_, at) => `volume-${at}`);
const { signal: never } = new AbortController();
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Describes as `tell` does, and counts. */
function counted(tell: (name: string) => string | undefined) {
  let running = 0;
  const seen = { begun: 0, most: 0, left: 0 };
  const describe = async (name: string) => {
    seen.begun += 1;
    running += 1;
    seen.most = Math.max(seen.most, running);
    await turn();
    running -= 1;
    seen.left = running;
    return tell(name);
  };
  return { seen, describe };
}

test('images are described in order, those that have gone left out', async () => {
  const { describe } = counted((name) => (name === 'volume-7' ? undefined : name));
  expect(await describeEach(names, createBudget(3), never, describe)).toEqual(
    names.filter((name) => name !== 'volume-7'),
  );
});

test('two lists at a time describe no more images at once than one', async () => {
  const { seen, describe } = counted((name) => name);
  const budget = createBudget(3);
  await Promise.all([
    describeEach(names, budget, never, describe),
    describeEach(names, budget, never, describe),
  ]);
  expect(seen).toEqual({ begun: 100, most: 3, left: 0 });
});

test('after the first error no other image is opened, and the error comes when all is at rest', async () => {
  const failure = new Error('the cluster does not answer');
  const { seen, describe } = counted((name) => {
    if (name === 'volume-4') throw failure;
    return name;
  });
  await expect(describeEach(names, createBudget(2), never, describe)).rejects.toBe(failure);
  expect(seen.begun).toBeLessThan(8);
  expect(seen.left).toBe(0);
});

test('when nobody waits for the list any more no other image is opened', async () => {
  const leaving = new AbortController();
  const { seen, describe } = counted((name) => {
    if (name === 'volume-4') leaving.abort(new Error('the client has gone away'));
    return name;
  });
  await expect(describeEach(names, createBudget(2), leaving.signal, describe)).rejects.toThrow();
  expect(seen.begun).toBeLessThan(8);
  expect(seen.left).toBe(0);
});
