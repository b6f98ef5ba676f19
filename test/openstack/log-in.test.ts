import { describe, expect, test } from 'vitest';
import { keystoneV2, keystoneV3, tempAuthV1, type KeystoneIdentity } from '../../src/openstack/log-in.ts';
import { createFakeHttp } from '../support/fake-http.ts';

const live = new AbortController().signal;
const noScope = {
  projectName: undefined,
  projectId: undefined,
  projectDomainName: undefined,
  projectDomainId: undefined,
  systemScope: undefined,
};
const password: KeystoneIdentity = {
  kind: 'password',
  username: 'backup',
  userId: undefined,
  password: 'secret',
  userDomainName: 'Users',
  userDomainId: undefined,
  scope: { ...noScope, projectName: 'backups' },
};
const v3Answer = {
  status: 201,
  headers: { 'x-subject-token': 'gAAAA' },
  body: JSON.stringify({
    token: {
      expires_at: '2026-11-22T12:00:00.000000Z',
      catalog: [
        { type: 'object-store', name: 'swift', endpoints: [{ interface: 'public', url: 'http://s' }] },
      ],
    },
  }),
};
const bodyOf = (body: unknown): unknown => (typeof body === 'string' ? JSON.parse(body) : body);

describe('Keystone v3', () => {
  test('is asked for a token of the project, and gives its end and its catalog', async () => {
    const http = createFakeHttp(() => v3Answer);
    const token = await keystoneV3(http, 'http://keystone:5000/v3', password)(live);
    expect(token).toMatchObject({ id: 'gAAAA', expiresAtMs: Date.UTC(2026, 10, 22, 12), storageUrl: null });
    expect(token.catalog).toHaveLength(1);
    expect(http.asked[0]).toMatchObject({ method: 'POST', url: 'http://keystone:5000/v3/auth/tokens' });
    expect(bodyOf(http.asked[0]?.body)).toEqual({
      auth: {
        identity: {
          methods: ['password'],
          password: { user: { name: 'backup', domain: { name: 'Users' }, password: 'secret' } },
        },
        scope: { project: { name: 'backups', domain: { id: 'default' } } },
      },
    });
  });

  test.each([
    ['http://keystone:5000', 'http://keystone:5000/v3/auth/tokens'],
    ['http://keystone/identity/', 'http://keystone/identity/v3/auth/tokens'],
    ['http://keystone/identity/v3/', 'http://keystone/identity/v3/auth/tokens'],
  ])('at %s is asked at %s', async (authUrl, url) => {
    const http = createFakeHttp(() => v3Answer);
    await keystoneV3(http, authUrl, password)(live);
    expect(http.asked[0]?.url).toBe(url);
  });

  test('takes ids, system scope and application credentials', async () => {
    const http = createFakeHttp(() => v3Answer);
    await keystoneV3(http, 'http://k', {
      ...password,
      userId: 'u1',
      scope: { ...noScope, systemScope: 'all' },
    })(live);
    await keystoneV3(http, 'http://k', {
      ...password,
      userDomainId: 'd1',
      scope: { ...noScope, projectId: 'p1', projectName: 'not this' },
    })(live);
    const credential = { kind: 'application-credential', secret: 's', username: 'backup' } as const;
    await keystoneV3(http, 'http://k', {
      ...credential,
      id: 'c1',
      name: undefined,
      userDomainName: undefined,
    })(live);
    await keystoneV3(http, 'http://k', { ...credential, id: undefined, name: 'n1', userDomainName: 'Users' })(
      live,
    );
    expect(http.asked.map(({ body }) => bodyOf(body))).toMatchObject([
      {
        auth: {
          identity: { password: { user: { id: 'u1', password: 'secret' } } },
          scope: { system: { all: true } },
        },
      },
      {
        auth: {
          identity: { password: { user: { domain: { id: 'd1' } } } },
          scope: { project: { id: 'p1' } },
        },
      },
      {
        auth: {
          identity: {
            methods: ['application_credential'],
            application_credential: { id: 'c1', secret: 's' },
          },
        },
      },
      {
        auth: {
          identity: {
            application_credential: { name: 'n1', user: { name: 'backup', domain: { name: 'Users' } } },
          },
        },
      },
    ]);
  });

  test.each([
    [401, '', 'store-denied', /refuses the user or the key/],
    [403, '', 'store-denied', /refuses the user or the key/],
    [404, 'Not Found', 'store-denied', /answers 404 .*Not Found.*check the URL/],
    [429, '', 'store-unavailable', /cannot log anybody in now/],
    [503, '', 'store-unavailable', /cannot log anybody in now/],
    [200, '<html>', 'store-denied', /not JSON/],
    [200, '{}', 'store-denied', /no X-Subject-Token/],
  ])('that answers %i %s is %s', async (status, body, code, message) => {
    const http = createFakeHttp(() => ({ status, body }));
    await expect(keystoneV3(http, 'http://k', password)(live)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });
});

describe('Keystone v2', () => {
  test('is asked with tenant and password, and gives token and catalog', async () => {
    const http = createFakeHttp(() => ({
      status: 200,
      body: JSON.stringify({
        access: {
          token: { id: 'abc', expires: '2026-11-22T12:00:00Z' },
          serviceCatalog: [
            { type: 'object-store', name: 'swift', endpoints: [{ publicURL: 'http://s/v1/AUTH_1' }] },
          ],
        },
      }),
    }));
    const token = await keystoneV2(http, 'http://k:5000/v2.0/', { user: 'u', password: 'p', tenant: 't' })(
      live,
    );
    expect(token).toMatchObject({ id: 'abc', expiresAtMs: Date.UTC(2026, 10, 22, 12) });
    expect(token.catalog[0]?.endpoints[0]).toEqual({
      interface: 'public',
      region: null,
      url: 'http://s/v1/AUTH_1',
    });
    expect(http.asked[0]?.url).toBe('http://k:5000/v2.0/tokens');
    expect(bodyOf(http.asked[0]?.body)).toEqual({
      auth: { passwordCredentials: { username: 'u', password: 'p' }, tenantName: 't' },
    });
  });

  test('that gives no token is store-denied', async () => {
    const http = createFakeHttp(() => ({ status: 200, body: '{"access": {"token": {}}}' }));
    await expect(
      keystoneV2(http, 'http://k', { user: 'u', password: 'p', tenant: undefined })(live),
    ).rejects.toMatchObject({ code: 'store-denied' });
  });
});

describe('TempAuth', () => {
  const identity = { user: 'test:tester', key: 'testing' };

  test('gives the storage URL, and the end of the token from the time that is left', async () => {
    const headers = {
      'x-auth-token': 'tk',
      'x-storage-url': 'http://s/v1/AUTH_test',
      'x-auth-token-expires': '60',
    };
    const http = createFakeHttp(() => ({ status: 204, headers }));
    const token = await tempAuthV1(http, 'http://s/auth/v1.0', identity, () => 1000)(live);
    expect(token).toEqual({
      id: 'tk',
      expiresAtMs: 61_000,
      catalog: [],
      storageUrl: 'http://s/v1/AUTH_test',
    });
    expect(http.asked[0]?.headers).toEqual({ 'x-auth-user': 'test:tester', 'x-auth-key': 'testing' });
  });

  test('that does not say when the token ends gives one without an end', async () => {
    const headers = { 'x-storage-token': 'tk', 'x-storage-url': 'http://s/v1/AUTH_test' };
    const http = createFakeHttp(() => ({ status: 200, headers }));
    expect((await tempAuthV1(http, 'http://s', identity, () => 0)(live)).expiresAtMs).toBeNull();
  });

  test('that gives no storage URL is store-denied', async () => {
    const http = createFakeHttp(() => ({ status: 200, headers: { 'x-auth-token': 'tk' } }));
    await expect(tempAuthV1(http, 'http://s', identity, () => 0)(live)).rejects.toMatchObject({
      code: 'store-denied',
    });
  });
});
