import { describe, expect, test } from 'vitest';
import { describeOffers, findEndpoint, parseCatalog } from '../../src/openstack/catalog.ts';

const query = { serviceType: 'object-store', serviceName: 'swift', endpointType: 'publicURL' };
const context = [
  { type: 'compute', name: 'nova', endpoints: [{ publicURL: 'http://nova' }] },
  {
    type: 'object-store',
    name: 'swift',
    endpoints: [
      { region: 'one', publicURL: 'http://one/public', internalURL: 'http://one/internal' },
      { region: 'two', publicURL: 'http://two/public' },
    ],
  },
];
const keystone = [
  {
    type: 'object-store',
    name: 'swift',
    endpoints: [
      { interface: 'internal', region_id: 'one', url: 'http://one/internal' },
      { interface: 'public', region: 'two', region_id: 'two', url: 'http://two/public' },
      { interface: 'public', region: 'one', url: 'http://one/public' },
    ],
  },
];

describe('a catalog', () => {
  test('of a request context gives the first endpoint of the type, or that of the region', () => {
    const catalog = parseCatalog(context);
    expect(findEndpoint(catalog, query, undefined)).toBe('http://one/public');
    expect(findEndpoint(catalog, query, 'two')).toBe('http://two/public');
    expect(findEndpoint(catalog, { ...query, endpointType: 'internalURL' }, 'one')).toBe(
      'http://one/internal',
    );
  });

  test('of Keystone v3 is read alike, whichever way regions and interfaces are spelled', () => {
    const catalog = parseCatalog(keystone);
    expect(findEndpoint(catalog, query, undefined)).toBe('http://two/public');
    expect(findEndpoint(catalog, query, 'one')).toBe('http://one/public');
    expect(findEndpoint(catalog, { ...query, endpointType: 'internal' }, undefined)).toBe(
      'http://one/internal',
    );
  });

  test('gives nothing for an interface, a region or a type that it lacks, and says what it has', () => {
    const catalog = parseCatalog(context);
    expect(findEndpoint(catalog, { ...query, endpointType: 'adminURL' }, undefined)).toBeNull();
    expect(findEndpoint(catalog, { ...query, endpointType: 'internalURL' }, 'two')).toBeNull();
    expect(findEndpoint(catalog, { ...query, serviceType: 'object-storage' }, undefined)).toBeNull();
    expect(describeOffers(catalog, 'object-store')).toBe('one/public, one/internal, two/public');
    expect(describeOffers(catalog, 'volume')).toBe('no volume at all');
  });

  test('takes the service of the wanted name among several of one type, and any name if there is one service', () => {
    const other = { type: 'object-store', name: 'ceph', endpoints: [{ publicURL: 'http://ceph' }] };
    expect(findEndpoint(parseCatalog([other, ...context]), query, undefined)).toBe('http://one/public');
    expect(findEndpoint(parseCatalog([other]), query, undefined)).toBe('http://ceph');
  });

  test.each([null, undefined, 'x', {}, [null, 1, { type: 3 }, { type: 'object-store', endpoints: 'none' }]])(
    'that is %j has no endpoint',
    (value) => {
      expect(findEndpoint(parseCatalog(value), query, undefined)).toBeNull();
    },
  );
});
