import { describe, expect, test } from 'vitest';
import { createCapabilities } from '../../src/store/swift-capabilities.ts';
import { infoUrl } from '../../src/store/swift-exchange.ts';
import { createSwiftReach } from '../../src/store/swift-reach.ts';
import { createFakeHttp } from '../support/fake-http.ts';
import { createFakeSwift } from '../support/fake-swift.ts';

const live = new AbortController().signal;
const info = JSON.stringify({ slo: { max_manifest_segments: 7 }, bulk_delete: {} });

describe('what a cluster can do', () => {
  test.each([429, 500, 503])('is asked for again after a %i', async (status) => {
    const { exchange, http } = createFakeSwift((_, count) =>
      count === 1 ? { status } : { status: 200, body: info },
    );
    const capabilities = createCapabilities(exchange);
    await expect(capabilities(live)).rejects.toMatchObject({
      code: 'store-unavailable',
      message: expect.stringContaining(`/info (${status})`),
    });
    expect(await capabilities(live)).toEqual({ bulkDeletes: 1000, manifestSegments: 7, policies: null });
    expect(await capabilities(live)).toMatchObject({ manifestSegments: 7 });
    expect(http.asked.map(({ url }) => url)).toEqual(['http://swift/info', 'http://swift/info']);
  });

  test.each([
    [403, ''],
    [404, ''],
    [200, '<html></html>'],
  ])('is assumed of one that does not tell (%i %s), and not asked again', async (status, body) => {
    const { exchange, http } = createFakeSwift(() => ({ status, body }));
    const capabilities = createCapabilities(exchange);
    await capabilities(live);
    expect(await capabilities(live)).toMatchObject({ bulkDeletes: 0, manifestSegments: 1000 });
    expect(http.asked).toHaveLength(1);
  });
});

describe('what a cluster can do stands', () => {
  // What swiftclient's Connection._map_url makes of them.
  test.each([
    ['http://swift:8080/v1/AUTH_p', 'http://swift:8080/info'],
    ['http://swift/v1/AUTH_', 'http://swift/info'],
    ['https://swift/v1.0', 'https://swift/info'],
    ['http://rgw/swift/v1', 'http://rgw/swift/info'],
    ['http://rgw/swift/v1/AUTH_p/', 'http://rgw/swift/info'],
    ['http://swift', 'http://swift/info'],
    ['http://swift/store/', 'http://swift/store/info'],
    ['http://swift/store', 'http://swift/store/info'],
    ['http://swift/store/info', 'http://swift/store/info'],
  ])('for %s at %s', (url, wanted) => {
    expect(infoUrl(url)).toBe(wanted);
  });

  test('at the same place for the store and for the test before a user comes', async () => {
    const { exchange, http: ofStore } = createFakeSwift(
      () => ({ status: 200, body: info }),
      'http://rgw/swift/v1',
    );
    await createCapabilities(exchange)(live);
    const ofReach = createFakeHttp(() => ({ status: 200, body: info }));
    await createSwiftReach(ofReach, 'http://rgw/swift/v1', () => 0).check('c', live);
    for (const { asked } of [ofStore, ofReach])
      expect(asked.map(({ url }) => url)).toEqual(['http://rgw/swift/info']);
  });
});
