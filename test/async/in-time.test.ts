import { expect, test } from 'vitest';
import { inTime } from '../../src/async/in-time.ts';

const never = () => new Promise<never>(() => {});
const tooLate = (): never => {
  throw new Error('too late');
};

test('what comes in time is given, and so is its failure', async () => {
  expect(await inTime(Promise.resolve(7), 10_000, () => 8)).toBe(7);
  await expect(inTime(Promise.reject(new Error('no')), 10_000, () => 8)).rejects.toThrow('no');
});

test('after the time it is what is given or thrown for it', async () => {
  expect(await inTime<number>(never(), 1, () => 8)).toBe(8);
  await expect(inTime(never(), 1, tooLate)).rejects.toThrow('too late');
});
