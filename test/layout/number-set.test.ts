import { expect, test } from 'vitest';
import { createNumberSet } from '../../src/layout/number-set.ts';
import { createRandom } from '../support/random-volume.ts';

test('holds what a set of numbers holds', () => {
  const random = createRandom();
  const ours = createNumberSet(200_000);
  const theirs = new Set<number>();
  for (let round = 0; round < 5000; round += 1) {
    const number = random.between(1, random.between(0, 1) === 0 ? 300 : 200_000);
    if (random.between(0, 2) === 0) expect(ours.delete(number)).toBe(theirs.delete(number));
    else {
      expect(ours.add(number)).toBe(!theirs.has(number));
      theirs.add(number);
    }
    expect(ours.size).toBe(theirs.size);
  }
  expect([...ours]).toEqual([...theirs].toSorted((a, b) => a - b));
});

test('takes no number out of its range', () => {
  const set = createNumberSet(100);
  for (const number of [0, -1, 101, 2 ** 40])
    expect([set.add(number), set.delete(number)]).toEqual([false, false]);
  expect([...set]).toEqual([]);
});
