import { expect, test } from 'vitest';
import { createBarbican, type BarbicanDeps } from '../../src/openstack/barbican.ts';
import { BackupError } from '../../src/model/errors.ts';
import { createFixedToken } from '../../src/openstack/token-source.ts';
import { createFakeHttp, type FakeAnswer } from '../support/fake-http.ts';

const { signal } = new AbortController();
const keyId = 'd152fa13-2b41-42ca-a934-6c21566c0f40';
const copyId = 'e263fb24-3c52-53db-ba45-7d32677d1f51';
const url = 'http://barbican:9311';

const described = {
  name: 'volume key',
  algorithm: 'aes',
  bit_length: 256,
  mode: 'cbc',
  secret_type: 'symmetric',
  created: '2026-11-22T10:00:00',
  expiration: '2027-01-01T00:00:00',
  creator_id: 'somebody',
  status: 'ACTIVE',
  content_types: { default: 'application/octet-stream' },
  secret_ref: `${url}/v1/secrets/${keyId}`,
};

const catalog = [
  {
    type: 'key-manager',
    name: 'barbican',
    endpoints: [{ region: 'RegionOne', publicURL: `${url}/`, internalURL: 'http://inside:9311/v1' }],
  },
];

/** Answers by `METHOD path`; what is not listed is not found. */
function keeper(
  answers: Readonly<Record<string, FakeAnswer | readonly FakeAnswer[]>>,
  changes: Partial<BarbicanDeps> = {},
) {
  const counts = new Map<string, number>();
  const http = createFakeHttp(({ method, url: asked }) => {
    const name = `${method} ${new URL(asked).pathname}`;
    const count = counts.get(name) ?? 0;
    counts.set(name, count + 1);
    const listed = answers[name] ?? { status: 404, body: '{"description": "Secret not found."}' };
    const inTurn = 'status' in listed ? [listed] : listed;
    return inTurn[count] ?? inTurn.at(-1) ?? { status: 500 };
  });
  const barbican = createBarbican({
    options: { endpoint: undefined, endpointType: 'public', regionName: undefined, apiVersion: undefined },
    http,
    caller: { authToken: 'user token', serviceCatalog: catalog },
    serviceUser: null,
    ownCredentials: null,
    retryPolicy: { attempts: 3, firstDelayMs: 1, maxDelayMs: 1 },
    ...changes,
  });
  return { barbican, http };
}

const secret: FakeAnswer = { status: 200, body: JSON.stringify(described) };
const created: FakeAnswer = {
  status: 201,
  body: JSON.stringify({ secret_ref: `${url}/v1/secrets/${copyId}` }),
};

const whole = {
  [`GET /v1/secrets/${keyId}`]: secret,
  [`GET /v1/secrets/${keyId}/payload`]: { status: 200, body: 'the bytes of a key' },
  'POST /v1/secrets': created,
};

function ownToken(endpoint = url) {
  const endpoints = [{ interface: 'public', region: null, url: endpoint }];
  return createFixedToken({
    id: 'service token',
    expiresAtMs: null,
    storageUrl: null,
    catalog: [{ type: 'key-manager', name: 'barbican', endpoints }],
  });
}

test('a copy has bytes, name, algorithm, length, mode and type of the key, and no expiry', async () => {
  const { barbican, http } = keeper(whole);
  expect(await barbican.clone(keyId, signal)).toBe(copyId);
  expect(http.asked.map(({ method, url: asked, headers }) => [method, asked, headers['accept']])).toEqual([
    ['GET', `${url}/v1/secrets/${keyId}`, 'application/json'],
    ['GET', `${url}/v1/secrets/${keyId}/payload`, 'application/octet-stream'],
    ['POST', `${url}/v1/secrets`, 'application/json'],
  ]);
  expect(JSON.parse(String(http.asked[2]?.body))).toEqual({
    name: 'volume key',
    algorithm: 'aes',
    bit_length: 256,
    mode: 'cbc',
    secret_type: 'symmetric',
    payload: Buffer.from('the bytes of a key').toString('base64'),
    payload_content_type: 'application/octet-stream',
    payload_content_encoding: 'base64',
  });
  expect(http.asked.every(({ headers }) => headers['x-auth-token'] === 'user token')).toBe(true);
});

test('a text secret stays text', async () => {
  const text = { ...described, secret_type: 'passphrase', content_types: { default: 'text/plain' } };
  const { barbican, http } = keeper({
    ...whole,
    [`GET /v1/secrets/${keyId}`]: { status: 200, body: JSON.stringify(text) },
  });
  await barbican.clone(keyId, signal);
  const stored = JSON.parse(String(http.asked[2]?.body)) as Record<string, unknown>;
  expect(stored).toMatchObject({ payload: 'the bytes of a key', payload_content_type: 'text/plain' });
  expect(stored).not.toHaveProperty('payload_content_encoding');
});

test('a key that is not there is not-found, by its id', async () => {
  await expect(keeper({}).barbican.clone(keyId, signal)).rejects.toMatchObject({
    code: 'not-found',
    message: `key ${keyId} is not in Barbican: Secret not found.`,
  });
});

test('what the user may not do says what he lacks, and is not tried again', async () => {
  const { barbican, http } = keeper({
    ...whole,
    'POST /v1/secrets': { status: 403, body: '{"description": "no role"}' },
  });
  await expect(barbican.clone(keyId, signal)).rejects.toMatchObject({
    code: 'store-denied',
    message: expect.stringContaining('needs a role in the project'),
  });
  expect(http.asked).toHaveLength(3);
});

test('a Barbican that is overloaded is asked again for what can be asked twice', async () => {
  const { barbican, http } = keeper({ ...whole, [`GET /v1/secrets/${keyId}`]: [{ status: 503 }, secret] });
  expect(await barbican.clone(keyId, signal)).toBe(copyId);
  expect(http.asked).toHaveLength(4);
});

test('a copy is not stored twice', async () => {
  const { barbican, http } = keeper({ ...whole, 'POST /v1/secrets': [{ status: 503 }, created] });
  await expect(barbican.clone(keyId, signal)).rejects.toMatchObject({ code: 'store-unavailable' });
  expect(http.asked.filter(({ method }) => method === 'POST')).toHaveLength(1);
});

test('a copy that never arrived is sent again', async () => {
  let posts = 0;
  const http = createFakeHttp(({ method, url: asked }) => {
    if (method === 'POST') {
      posts += 1;
      if (posts === 1) {
        throw new BackupError('store-unavailable', 'refused', { details: { network: 'ECONNREFUSED' } });
      }
      return created;
    }
    return asked.endsWith('/payload') ? { status: 200, body: 'k' } : secret;
  });
  expect(await keeper({}, { http }).barbican.clone(keyId, signal)).toBe(copyId);
});

test('an id that is none of Barbican goes nowhere near a URL', async () => {
  const { barbican, http } = keeper(whole);
  for (const id of ['../orders', '', 'D152FA13-2B41-42CA-A934-6C21566C0F40', `${keyId}/payload`]) {
    await expect(barbican.clone(id, signal)).rejects.toMatchObject({ code: 'message-invalid' });
    await expect(barbican.remove(id, signal)).rejects.toMatchObject({ code: 'message-invalid' });
  }
  expect(http.asked).toEqual([]);
});

test('a catalog without Barbican is told with the remedy', async () => {
  const { barbican } = keeper(whole, {
    caller: { authToken: 't', serviceCatalog: [{ type: 'identity', endpoints: [] }] },
  });
  await expect(barbican.clone(keyId, signal)).rejects.toMatchObject({
    code: 'config-invalid',
    message: expect.stringContaining('no key-manager at all'),
  });
});

test('a request without a token cannot copy a key', async () => {
  await expect(keeper(whole, { caller: null }).barbican.clone(keyId, signal)).rejects.toMatchObject({
    code: 'store-denied',
  });
});

const endpoints: readonly [string, Partial<BarbicanDeps['options']>, string][] = [
  ['the catalog', {}, `${url}/v1`],
  ['another interface, with a version', { endpointType: 'internal' }, 'http://inside:9311/v1'],
  ['the configuration', { endpoint: 'https://keys.example/barbican/' }, 'https://keys.example/barbican/v1'],
  [
    'the configuration, with a version',
    { endpoint: 'https://keys.example', apiVersion: 'v1.2' },
    'https://keys.example/v1.2',
  ],
];

test.each(endpoints)('Barbican is where %s says', async (_where, options, base) => {
  const all = {
    endpoint: undefined,
    endpointType: 'public',
    regionName: undefined,
    apiVersion: undefined,
  } as const;
  const { barbican, http } = keeper({}, { options: { ...all, ...options } });
  await barbican.clone(keyId, signal).catch(() => undefined);
  expect(http.asked[0]?.url).toBe(`${base}/secrets/${keyId}`);
});

test("the service's token goes beside the user's", async () => {
  const { barbican, http } = keeper(whole, { serviceUser: ownToken() });
  await barbican.clone(keyId, signal);
  expect(http.asked[0]?.headers).toMatchObject({
    'x-auth-token': 'user token',
    'x-service-token': 'service token',
  });
});

test('a removed key stays removed: gone is done', async () => {
  const { barbican, http } = keeper({ [`DELETE /v1/secrets/${keyId}`]: { status: 204 } });
  await barbican.remove(keyId, signal);
  await keeper({}).barbican.remove(keyId, signal);
  expect(http.asked.map(({ method, url: asked }) => `${method} ${asked}`)).toEqual([
    `DELETE ${url}/v1/secrets/${keyId}`,
  ]);
});

test('what the user may not remove, the service removes', async () => {
  const { barbican, http } = keeper(
    { [`DELETE /v1/secrets/${keyId}`]: [{ status: 403 }, { status: 204 }] },
    { ownCredentials: ownToken() },
  );
  await barbican.remove(keyId, signal);
  expect(http.asked.map(({ headers }) => headers['x-auth-token'])).toEqual(['user token', 'service token']);
});

test('without a user the service removes the key', async () => {
  const { barbican, http } = keeper(
    { [`DELETE /v1/secrets/${keyId}`]: { status: 204 } },
    { caller: null, ownCredentials: ownToken('http://elsewhere:1') },
  );
  await barbican.remove(keyId, signal);
  expect(http.asked.map(({ url: asked }) => asked)).toEqual([`http://elsewhere:1/v1/secrets/${keyId}`]);
});

test('a key that nobody may remove is an error', async () => {
  const { barbican } = keeper({ [`DELETE /v1/secrets/${keyId}`]: { status: 403 } });
  await expect(barbican.remove(keyId, signal)).rejects.toMatchObject({ code: 'store-denied' });
});

const strange: readonly [string, Readonly<Record<string, FakeAnswer>>][] = [
  ['no JSON', { [`GET /v1/secrets/${keyId}`]: { status: 200, body: '<html>' } }],
  ['no payload', { [`GET /v1/secrets/${keyId}`]: { status: 200, body: '{"content_types": {}}' } }],
  ['an empty payload', { [`GET /v1/secrets/${keyId}/payload`]: { status: 200, body: '' } }],
  ['no reference', { 'POST /v1/secrets': { status: 201, body: '{}' } }],
];

test.each(strange)('an answer with %s is refused', async (_what, answer) => {
  await expect(keeper({ ...whole, ...answer }).barbican.clone(keyId, signal)).rejects.toMatchObject({
    code: 'store-denied',
    message: expect.stringContaining('not understood'),
  });
});
