import { describe, expect, test } from 'vitest';
import { createSwiftAccess } from '../../src/store/swift-access.ts';
import type { SwiftCaller, SwiftStoreOptions } from '../../src/store/swift-options.ts';
import { swiftDefaults } from '../support/cloud-stores.ts';
import { createFakeHttp } from '../support/fake-http.ts';

const live = new AbortController().signal;
const caller: SwiftCaller = {
  authToken: 'user-token',
  projectId: 'p1',
  serviceCatalog: [
    { type: 'object-store', name: 'swift', endpoints: [{ publicURL: 'http://swift/v1/AUTH_p1/' }] },
    { type: 'identity', name: 'keystone', endpoints: [{ publicURL: 'http://keystone/v3' }] },
  ],
};
const inRegions: SwiftCaller = {
  ...caller,
  serviceCatalog: ['object-store', 'identity'].map((type) => ({
    type,
    endpoints: [
      { region: 'One', publicURL: 'http://one/A', internalURL: 'http://inner/A' },
      { region: 'Two', publicURL: 'http://two/A' },
    ],
  })),
};
const single: SwiftStoreOptions = { ...swiftDefaults, auth: 'single_user', user: 'u', key: 'k' };
const v1Headers = { 'x-auth-token': 'tk', 'x-storage-url': 'http://swift/v1/AUTH_u' };

function access(
  options: SwiftStoreOptions,
  who: SwiftCaller | null = caller,
  http = createFakeHttp(() => ({ status: 200, headers: v1Headers })),
) {
  return { http, access: createSwiftAccess(options, who, { http, service: null, now: () => 0 }) };
}

describe('per_user', () => {
  test('takes token and URL from the request, and cannot renew', async () => {
    const grant = await access(swiftDefaults).access.current(live);
    expect(grant).toMatchObject({
      storageUrl: 'http://swift/v1/AUTH_p1',
      headers: { 'x-auth-token': 'user-token' },
    });
    expect(grant.refuse()).toBe(false);
  });

  test('appends the project to backup_swift_url, as it stands', async () => {
    const grant = await access({ ...swiftDefaults, url: 'http://other/v1/AUTH_' }).access.current(live);
    expect(grant.storageUrl).toBe('http://other/v1/AUTH_p1');
  });

  test.each([
    ['Two', 'http://two/A'],
    ['Mars', 'http://one/A'],
    [undefined, 'http://one/A'],
  ])('with region %s takes its endpoint, or the first if the catalog lacks it', async (regionName, url) => {
    const grant = await access({ ...swiftDefaults, regionName }, inRegions).access.current(live);
    expect(grant.storageUrl).toBe(url);
  });

  test('takes no endpoint of another region in place of one that lacks the wanted type', () => {
    const catalogInfo = { ...swiftDefaults.catalogInfo, endpointType: 'internalURL' };
    expect(() => access({ ...swiftDefaults, catalogInfo, regionName: 'Two' }, inRegions)).toThrow(
      /not internalURL in Two/,
    );
  });

  test.each([
    [{ ...caller, serviceCatalog: [] }, /swift_catalog_info, or set backup_swift_url/],
    [{ ...caller, authToken: '' }, /carries no user token/],
    [null, /carries no user token/],
  ])('without what it needs says so', (who, message) => {
    expect(() => access(swiftDefaults, who)).toThrow(message);
  });
});

describe('single_user', () => {
  test.each([
    [{ user: undefined }, /backup_swift_user is not set/],
    [{ key: undefined }, /backup_swift_key is not set/],
    [{ authVersion: 3 as const }, /backup_swift_project is not set/],
    [
      { keystoneCatalogInfo: { serviceType: 'none', serviceName: '', endpointType: 'publicURL' } },
      /set backup_swift_auth_url/,
    ],
  ])('with %j says what is missing', (changes, message) => {
    expect(() => access({ ...single, ...changes })).toThrow(message);
  });

  test('with version 1 logs in at the URL as it is', async () => {
    const { access: one, http } = access({ ...single, authUrl: 'http://swift/auth/v1.0' }, null);
    expect((await one.current(live)).storageUrl).toBe('http://swift/v1/AUTH_u');
    expect(http.asked[0]?.url).toBe('http://swift/auth/v1.0');
  });

  test('with version 2 or 3 takes the URL of the catalog in the answer', async () => {
    const http = createFakeHttp(({ url }) =>
      url.endsWith('/auth/tokens')
        ? {
            status: 201,
            headers: { 'x-subject-token': 'three' },
            body: JSON.stringify({
              token: {
                catalog: [
                  { type: 'object-store', endpoints: [{ interface: 'public', url: 'http://three/v1/A' }] },
                ],
              },
            }),
          }
        : {
            status: 200,
            body: JSON.stringify({
              access: {
                token: { id: 'two' },
                serviceCatalog: [{ type: 'object-store', endpoints: [{ publicURL: 'http://two/v1/A' }] }],
              },
            }),
          },
    );
    const three = access({ ...single, authVersion: 3, project: 'p' }, caller, http);
    expect(await three.access.current(live)).toMatchObject({
      storageUrl: 'http://three/v1/A',
      headers: { 'x-auth-token': 'three' },
    });
    const two = access(
      { ...single, authVersion: 2, project: 'p', authUrl: 'http://keystone/v2.0' },
      null,
      http,
    );
    expect(await two.access.current(live)).toMatchObject({
      storageUrl: 'http://two/v1/A',
      headers: { 'x-auth-token': 'two' },
    });
  });

  test('takes the first public object-store of the answer, whatever swift_catalog_info and the region are', async () => {
    const body = JSON.stringify({
      token: {
        catalog: [
          { type: 'mine', endpoints: [{ interface: 'internal', region: 'Two', url: 'http://mine/v1/A' }] },
          {
            type: 'object-store',
            endpoints: [
              { interface: 'internal', region: 'Two', url: 'http://inner/v1/A' },
              { interface: 'public', region: 'One', url: 'http://one/v1/A' },
              { interface: 'public', region: 'Two', url: 'http://two/v1/A' },
            ],
          },
        ],
      },
    });
    const answer = { status: 201, headers: { 'x-subject-token': 'three' }, body };
    const { access: one } = access(
      {
        ...single,
        authVersion: 3,
        project: 'p',
        authUrl: 'http://keystone/v3',
        url: 'http://elsewhere/v1/AUTH_',
        catalogInfo: { serviceType: 'mine', serviceName: 'mine', endpointType: 'internalURL' },
        regionName: 'Two',
      },
      null,
      createFakeHttp(() => answer),
    );
    expect((await one.current(live)).storageUrl).toBe('http://one/v1/A');
  });

  test('without a public object-store in the answer says so', async () => {
    const answer = {
      status: 201,
      headers: { 'x-subject-token': 'three' },
      body: '{"token": {"catalog": []}}',
    };
    const { access: one } = access(
      { ...single, authVersion: 3, project: 'p', authUrl: 'http://keystone/v3', regionName: 'Two' },
      null,
      createFakeHttp(() => answer),
    );
    await expect(one.current(live)).rejects.toThrow(/no object-store at all, and a public one is needed/);
  });

  test.each([
    ['Two', 'http://two/A/v3/auth/tokens'],
    ['Mars', 'http://one/A/v3/auth/tokens'],
  ])('looks Keystone up in region %s of the request, or in the first', async (regionName, url) => {
    const http = createFakeHttp(() => ({ status: 503 }));
    const options = { ...single, authVersion: 3 as const, project: 'p', regionName };
    await expect(access(options, inRegions, http).access.current(live)).rejects.toThrow();
    expect(http.asked.map((asked) => asked.url)).toEqual([url]);
  });

  test('can renew a token that was refused', async () => {
    const { access: one, http } = access({ ...single, authUrl: 'http://swift/auth/v1.0' }, null);
    const grant = await one.current(live);
    expect(grant.refuse()).toBe(true);
    await one.current(live);
    expect(http.asked).toHaveLength(2);
  });
});
