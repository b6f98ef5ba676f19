import { expect, test } from 'vitest';
import { createBadRanges } from '../../src/pipeline/bad-ranges.ts';

const bad = (offset: number, object = 'o-00001') => ({
  offset,
  length: 4096,
  backupId: 'b',
  object,
  reason: 'its MD5 is another',
});

test('of very many bad ranges the first by offset are kept, in whatever order they come, and all are counted', () => {
  const found = createBadRanges();
  const count = 20_011;
  // 7919 is prime to the count: every offset once, jumbled.
  for (let n = 0; n < count; n += 1) found.add(bad(((n * 7919) % count) * 4096));
  expect(found.first()).toEqual(Array.from({ length: 1000 }, (_, n) => bad(n * 4096)));
  expect([found.count, found.bytes]).toEqual([count, count * 4096]);
});

test('ranges at one offset come by the names of their objects', () => {
  const found = createBadRanges();
  for (const object of ['c', 'a', 'b']) found.add(bad(512, object));
  expect(found.first().map(({ object }) => object)).toEqual(['a', 'b', 'c']);
});
