/** Bulk deletes, and what becomes of those that are answered in another way than wished. */
import { describe, expect, test } from 'vitest';
import { removeMany } from '../../src/store/swift-removal.ts';
import type { SwiftCapabilities } from '../../src/store/swift-capabilities.ts';
import { createFakeSwift } from '../support/fake-swift.ts';

const live = new AbortController().signal;
const able: SwiftCapabilities = { bulkDeletes: 10, manifestSegments: 1000, policies: null };
const names = Array.from({ length: 20 }, (_, at) => `volume_1/a-${at + 1}`);

async function* keys(): AsyncGenerator<string> {
  for (const name of names) yield await Promise.resolve(name);
}

function bulkAnswer(...errors: readonly (readonly [string, string])[]) {
  const status = errors.length === 0 ? '200 OK' : '400 Bad Request';
  return { status: 200, body: JSON.stringify({ 'Response Status': status, Errors: errors }) };
}

const methods = (http: { readonly asked: readonly { readonly method: string }[] }) =>
  http.asked.map(({ method }) => method);

describe('a bulk delete', () => {
  test.each(['401 Unauthorized', '403 Forbidden'])(
    'that is answered with %s inside goes one by one, and so do the others',
    async (status) => {
      const { exchange, http } = createFakeSwift(({ method }) =>
        method === 'POST'
          ? bulkAnswer(['/c/volume_1/a-2', '503 Internal Error'], ['/c/volume_1/a-1', status])
          : { status: 204 },
      );
      expect(await removeMany(exchange, able, 'c', keys(), live)).toBe(20);
      expect(methods(http)).toEqual(['POST', ...names.map(() => 'DELETE')]);
    },
  );

  test('whose objects may not be removed singly either is store-denied', async () => {
    const { exchange } = createFakeSwift(({ method }) =>
      method === 'POST' ? bulkAnswer(['/c/volume_1/a-1', '403 Forbidden']) : { status: 403 },
    );
    await expect(removeMany(exchange, able, 'c', keys(), live)).rejects.toMatchObject({
      code: 'store-denied',
    });
  });

  test('that works takes one request for a batch', async () => {
    const { exchange, http } = createFakeSwift(() => bulkAnswer());
    expect(await removeMany(exchange, able, 'c', keys(), live)).toBe(20);
    expect(new Set(methods(http))).toEqual(new Set(['POST']));
  });

  test('that failed inside for another reason fails, and names the object', async () => {
    const { exchange } = createFakeSwift(() => bulkAnswer(['/c/volume_1/a-2', '503 Internal Error']));
    await expect(removeMany(exchange, able, 'c', keys(), live)).rejects.toMatchObject({
      code: 'store-unavailable',
      message: expect.stringContaining('volume_1/a-2'),
    });
  });
});
