import { describe, expect, test } from 'vitest';
import { readManifest } from '../../src/store/swift-large-object.ts';
import { createFakeSwift } from '../support/fake-swift.ts';

const live = new AbortController().signal;

describe('the manifest of a large object', () => {
  test('gives its segments', async () => {
    const body = JSON.stringify([{ name: '/c/1', bytes: 7, hash: 'ab' }]);
    const { exchange } = createFakeSwift(() => ({ status: 200, body }));
    expect(await readManifest(exchange, 'c', 'k', live)).toEqual([{ sizeBytes: 7, md5: 'ab' }]);
  });

  test.each(['', '[{"bytes": 1, "hash": "a', '<html>', '{}', '[{"bytes": "1"}]'])(
    'that reads %j is unavailable, and worth another try',
    async (body) => {
      const { exchange } = createFakeSwift(() => ({ status: 200, body }));
      await expect(readManifest(exchange, 'c', 'k', live)).rejects.toMatchObject({
        code: 'store-unavailable',
        retryable: true,
        message: expect.stringContaining('manifest of object k'),
      });
    },
  );
});
