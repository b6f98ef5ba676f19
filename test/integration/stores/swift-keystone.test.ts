/** Swift behind a real Keystone v3: both modes, regions, roles, tokens that expire, service tokens. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { KeystoneCredentials } from '../../../src/config/keystone-config.ts';
import type { ObjectStore } from '../../../src/store/object-store.ts';
import { removePrefix } from '../../../src/store/remove-prefix.ts';
import type { SwiftCaller, SwiftStoreOptions } from '../../../src/store/swift-options.ts';
import { objectStoreContract } from '../../contract/object-store.ts';
import { swiftDefaults, swiftStore } from '../../support/cloud-stores.ts';
import { freePorts } from '../../support/free-ports.ts';
import { listedKeys } from '../../support/listed-keys.ts';
import { startKeystone, type KeystoneServer } from '../../support/keystone-server.ts';
import { collect, inRecycledPieces, patternBytes } from '../../support/pattern.ts';
import { startSwift, type SwiftServer } from '../../support/swift-server.ts';

const live = new AbortController().signal;
const options = { signal: live };

type Cloud = { readonly swift: SwiftServer; readonly keystone: KeystoneServer; stop(): Promise<void> };

async function startCloud(tokens: { tokenLifeSeconds?: number; tokenCacheSeconds?: number }): Promise<Cloud> {
  const [port = 0, ...ports] = await freePorts(6);
  const swift = await startSwift({ keystone: `http://127.0.0.1:${port}`, ports, ...tokens });
  const keystone = await startKeystone({ swiftUrl: swift.url, port, ...tokens });
  return {
    swift,
    keystone,
    stop: async () => {
      await Promise.all([swift.stop(), keystone.stop()]);
    },
  };
}

function singleUser(cloud: Cloud, changes: Partial<SwiftStoreOptions> = {}): SwiftStoreOptions {
  return {
    ...swiftDefaults,
    auth: 'single_user',
    authVersion: 3,
    authUrl: `${cloud.keystone.url}/v3`,
    user: 'backup',
    key: 'backup',
    project: 'backups',
    userDomainName: 'Default',
    projectDomainName: 'Default',
    ...changes,
  };
}

const tokenSchema = z.object({
  token: z.object({ project: z.object({ id: z.string() }), catalog: z.array(z.unknown()) }),
});

/** Logs `user` in as a client of Cinder's would, and gives what Cinder's API puts into the request's context. In the region Elsewhere nothing listens. */
async function logIn(cloud: Cloud, user: string, project: string): Promise<SwiftCaller> {
  const answer = await fetch(`${cloud.keystone.url}/v3/auth/tokens`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      auth: {
        identity: {
          methods: ['password'],
          password: { user: { name: user, domain: { id: 'default' }, password: user } },
        },
        scope: { project: { name: project, domain: { id: 'default' } } },
      },
    }),
  });
  const { token } = tokenSchema.parse(await answer.json());
  const publicUrl = `${cloud.swift.url}/v1/AUTH_${token.project.id}`;
  return {
    authToken: answer.headers.get('x-subject-token') ?? '',
    projectId: token.project.id,
    serviceCatalog: [
      {
        type: 'identity',
        name: 'keystone',
        endpoints: [{ region: 'RegionOne', publicURL: `${cloud.keystone.url}/v3` }],
      },
      {
        type: 'object-store',
        name: 'swift',
        endpoints: [
          { region: 'RegionOne', publicURL: publicUrl, internalURL: publicUrl },
          { region: 'Elsewhere', publicURL: 'http://127.0.0.1:1/v1', internalURL: 'http://127.0.0.1:1/v1' },
        ],
      },
    ],
  };
}

objectStoreContract('Swift, Keystone v3', async () => {
  const cloud = await startCloud({});
  return {
    store: swiftStore(singleUser(cloud)),
    freshContainer: () => `volumebackups-${randomUUID()}`,
    dispose: () => cloud.stop(),
    listedObjects: 60,
  };
});

describe('Swift behind Keystone', () => {
  let cloud: Cloud;
  const opened: ObjectStore[] = [];
  const open = (...how: Parameters<typeof swiftStore>): ObjectStore => {
    const store = swiftStore(...how);
    opened.push(store);
    return store;
  };
  const bytes = patternBytes(100_000, 1);

  beforeAll(async () => {
    cloud = await startCloud({});
  });
  afterAll(async () => {
    await Promise.all(opened.map((store) => store.close()));
    await cloud.stop();
  });

  test('per_user stores into the account of the caller, found in the catalog of the request', async () => {
    const caller = await logIn(cloud, 'demo', 'demo');
    const mine = open(swiftDefaults, { caller });
    await mine.ensureContainer('volumebackups', live);
    await mine.put('volumebackups', 'a-00001', bytes, options);
    const byUrl = open({ ...swiftDefaults, url: `${cloud.swift.url}/v1/AUTH_` }, { caller });
    expect((await collect((await byUrl.get('volumebackups', 'a-00001', options)).body)).equals(bytes)).toBe(
      true,
    );
    const other = open(singleUser(cloud));
    await other.ensureContainer('volumebackups', live);
    await expect(other.get('volumebackups', 'a-00001', options)).rejects.toMatchObject({
      code: 'object-missing',
    });
  });

  test('single_user finds Keystone in the catalog of the request if no URL is configured', async () => {
    const caller = await logIn(cloud, 'demo', 'demo');
    const store = open(singleUser(cloud, { authUrl: undefined }), { caller });
    await store.ensureContainer('found', live);
    await store.put('found', 'a-00001', bytes, options);
  });

  test('an auth URL without its version is completed', async () => {
    await open(singleUser(cloud, { authUrl: `${cloud.keystone.url}/` })).ensureContainer('versioned', live);
  });

  test.each([
    ['a wrong key', { key: 'wrong' }, 'store-denied', 'refuses the user or the key'],
    ['an unknown project', { project: 'nowhere' }, 'store-denied', 'refuses the user or the key'],
    ['an unknown domain', { userDomainName: 'Nowhere' }, 'store-denied', 'refuses the user or the key'],
    [
      'a user without an operator role',
      { user: 'stranger', key: 'stranger', project: 'demo' },
      'store-denied',
      '403',
    ],
  ] as const)('%s is %s in plain words', async (_, changes, code, words) => {
    await expect(open(singleUser(cloud, changes)).ensureContainer('any', live)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(words),
    });
  });

  test.each(['RegionOne', 'Mars'])(
    'per_user stores in region %s, or the first where it is unknown',
    async (regionName) => {
      const caller = await logIn(cloud, 'demo', 'demo');
      await open({ ...swiftDefaults, regionName }, { caller }).ensureContainer('in-region', live);
    },
  );

  test('per_user goes to the region that is configured', async () => {
    const caller = await logIn(cloud, 'demo', 'demo');
    const store = open({ ...swiftDefaults, regionName: 'Elsewhere' }, { caller });
    await expect(store.ensureContainer('any', live)).rejects.toMatchObject({
      code: 'store-unavailable',
      message: expect.stringContaining('refuses connections'),
    });
  });

  test("single_user goes to the public Swift of Keystone's answer, whatever the catalog options say", async () => {
    const catalogInfo = { serviceType: 'none', serviceName: 'none', endpointType: 'adminURL' };
    await open(singleUser(cloud, { catalogInfo, regionName: 'Mars' })).ensureContainer('public', live);
  });

  test('a token that the request does not carry is store-denied', () => {
    expect(() => open(swiftDefaults)).toThrow(/carries no user token/);
  });
});

describe('tokens that live for seconds', () => {
  let cloud: Cloud;
  const lifeMs = 6000;

  beforeAll(async () => {
    cloud = await startCloud({ tokenLifeSeconds: lifeMs / 1000, tokenCacheSeconds: -1 });
  });
  afterAll(async () => {
    await cloud.stop();
  });

  const serviceUser: () => KeystoneCredentials = () => ({
    authUrl: cloud.keystone.url,
    identity: {
      kind: 'password',
      username: 'cinder',
      userId: undefined,
      password: 'cinder',
      userDomainName: 'Default',
      userDomainId: undefined,
      scope: {
        projectName: 'service',
        projectId: undefined,
        projectDomainName: 'Default',
        projectDomainId: undefined,
        systemScope: undefined,
      },
    },
    caFile: undefined,
    certFile: undefined,
    keyFile: undefined,
    insecure: false,
    timeoutMs: undefined,
  });

  test('a stream outlives the token of single_user', async () => {
    const store = swiftStore(singleUser(cloud), { tuning: { segmentBytes: 1_000_000 } });
    await store.ensureContainer('long', live);
    const bytes = patternBytes(3_000_000, 2);
    async function* slowly(): AsyncGenerator<Buffer> {
      for await (const piece of inRecycledPieces(bytes, 1_000_000)) {
        yield piece;
        await sleep(lifeMs / 2);
      }
    }
    const started = performance.now();
    await store.putStream('long', 'a_sha256file', slowly(), options);
    expect(performance.now() - started).toBeGreaterThan(lifeMs);
    expect((await collect((await store.get('long', 'a_sha256file', options)).body)).equals(bytes)).toBe(true);
    await store.close();
  });

  test('a backup outlives the token of its user with a service token, and only with it', async () => {
    const caller = await logIn(cloud, 'demo', 'demo');
    const without = swiftStore(swiftDefaults, { caller, serviceUser: serviceUser() });
    const withService = swiftStore(
      { ...swiftDefaults, serviceAuth: true },
      { caller, serviceUser: serviceUser() },
    );
    await without.ensureContainer('outlived', live);
    const bytes = patternBytes(50_000, 3);
    await withService.put('outlived', 'a-00001', bytes, options);
    await sleep(lifeMs + 1500);
    await withService.put('outlived', 'a-00002', bytes, options);
    await expect(without.put('outlived', 'a-00003', bytes, options)).rejects.toMatchObject({
      code: 'store-denied',
      message: expect.stringContaining('backup_swift_service_auth'),
    });
    expect(await removePrefix(withService, 'outlived', 'a-', live)).toBe(2);
    expect(await listedKeys(withService, 'outlived')).toEqual([]);
    await Promise.all([without.close(), withService.close()]);
  });
});
