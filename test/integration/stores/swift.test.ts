/** What only Swift has: large objects, bulk delete, policies, quotas, tokens that expire. On a real cluster of one machine. */
import { randomUUID } from 'node:crypto';
import { execFile } from 'node:child_process';
import { connect } from 'node:net';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createHash } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ObjectStore } from '../../../src/store/object-store.ts';
import { removePrefix } from '../../../src/store/remove-prefix.ts';
import type { SwiftCaller, SwiftStoreOptions, SwiftTuning } from '../../../src/store/swift-options.ts';
import { swiftStore, tempAuthOptions } from '../../support/cloud-stores.ts';
import { startFaultProxy, type FaultProxy } from '../../support/fault-proxy.ts';
import { collect, inRecycledPieces, patternBytes } from '../../support/pattern.ts';
import { startSwift, type SwiftServer } from '../../support/swift-server.ts';
import { listedKeys } from '../../support/listed-keys.ts';

const MiB = 1024 * 1024;
const live = new AbortController().signal;
const options = { signal: live };
const prefix = 'volume_1/20260102030405/az_nova_backup_2';

let server: SwiftServer;
let proxy: FaultProxy;
let store: ObjectStore;
let container: string;

beforeAll(async () => {
  server = await startSwift();
});
afterAll(async () => {
  await server.stop();
});
beforeEach(async () => {
  proxy = await startFaultProxy(server.port);
  store = open();
  container = `backups-${randomUUID()}`;
  await store.ensureContainer(container, live);
});
afterEach(async () => {
  await store.close();
  await proxy.close();
});

function open(
  changes: Partial<SwiftStoreOptions> = {},
  more: { readonly caller?: SwiftCaller; readonly tuning?: Partial<SwiftTuning> } = {},
): ObjectStore {
  return swiftStore(tempAuthOptions(`${proxy.url}/auth/v1.0`, changes), more);
}

const listed = (where: string) => listedKeys(store, where);

/** A request of our own to Swift, as the admin of the account. */
async function raw(method: string, path: string, headers: Record<string, string> = {}): Promise<Response> {
  const login = await fetch(server.authUrl, {
    headers: { 'x-auth-user': 'test:tester', 'x-auth-key': 'testing' },
  });
  const token = login.headers.get('x-auth-token') ?? '';
  return await fetch(`${login.headers.get('x-storage-url') ?? ''}${path}`, {
    method,
    headers: { 'x-auth-token': token, ...headers },
  });
}

async function fill(): Promise<void> {
  for (let n = 1; n <= 23; n += 1) {
    await store.put(container, `${prefix}-${String(n).padStart(5, '0')}`, patternBytes(n, n), options);
  }
  await store.putStream(
    container,
    `${prefix}_sha256file`,
    inRecycledPieces(patternBytes(9 * MiB, 1), MiB),
    options,
  );
  await store.put(container, `${prefix}3-00001`, patternBytes(4, 1), options);
  await store.put(container, 'volume_1/20260102030406/other é%2F&?#-00001', patternBytes(4, 1), options);
}

async function forgetTokens(): Promise<void> {
  const conf = await readFile(join(server.directory, 'proxy.conf'), 'utf8');
  const port = Number(/memcache_servers = 127.0.0.1:(\d+)/.exec(conf)?.[1]);
  const socket = connect(port, '127.0.0.1');
  socket.write('flush_all\r\n');
  await once(socket, 'data');
  socket.destroy();
}

describe('a stream of many segments', () => {
  const key = `${prefix}_sha256file`;
  const putStream = (bytes: Buffer) =>
    store.putStream(container, key, inRecycledPieces(bytes, 700_000), options);

  test('is one object, its segments are elsewhere and go with it', async () => {
    await putStream(patternBytes(9 * MiB, 1));
    expect(await listed(container)).toEqual([key]);
    expect((await listed(`${container}_segments`)).length).toBe(3);
    await store.remove(container, key, live);
    expect(await listed(container)).toEqual([]);
    expect(await listed(`${container}_segments`)).toEqual([]);
  });

  test('leaves no segments of the object that it replaces, whether that was longer or needs none now', async () => {
    await putStream(patternBytes(17 * MiB, 1));
    await putStream(patternBytes(9 * MiB, 2));
    expect((await listed(`${container}_segments`)).length).toBe(3);
    await putStream(patternBytes(MiB, 3));
    expect(await listed(`${container}_segments`)).toEqual([]);
    expect(
      (await collect((await store.get(container, key, options)).body)).equals(patternBytes(MiB, 3)),
    ).toBe(true);
  });

  test('is read as one object by python-swiftclient', async () => {
    const bytes = patternBytes(9 * MiB + 1, 4);
    await putStream(bytes);
    const script = `
import hashlib, sys
from swiftclient import client
url, container, key = sys.argv[1:]
conn = client.Connection(authurl=url, user='test:tester', key='testing', auth_version='1')
body = conn.get_object(container, key)[1]
print(len(body), hashlib.md5(body).hexdigest(), [o['bytes'] for o in conn.get_container(container)[1]])`;
    const { stdout } = await promisify(execFile)('/usr/bin/python3', [
      '-c',
      script,
      server.authUrl,
      container,
      key,
    ]);
    const md5 = createHash('md5').update(bytes).digest('hex');
    expect(stdout.trim()).toBe(`${bytes.length} ${md5} [${bytes.length}]`);
  });

  test('is corrupt to a reader when a segment was exchanged for one of the same length', async () => {
    await putStream(patternBytes(9 * MiB, 5));
    proxy.plan({ act: { do: 'flip', side: 'answer', atByte: 6 * MiB }, on: /^GET \S+_sha256file HTTP/ });
    const { body } = await store.get(container, key, options);
    await expect(collect(body)).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining('segment 2'),
    });
  });

  test('to an absent container is object-missing and leaves no segments', async () => {
    const absent = `absent-${randomUUID()}`;
    await expect(
      store.putStream(absent, key, inRecycledPieces(patternBytes(9 * MiB, 1), MiB), options),
    ).rejects.toMatchObject({ code: 'object-missing' });
    expect(await listed(`${absent}_segments`)).toEqual([]);
  });

  test('of more segments than the cluster allows is limit-exceeded and leaves none', async () => {
    await store.close();
    store = open({}, { tuning: { segmentBytes: 100 } });
    const info = '{"slo": {"max_manifest_segments": 7}, "bulk_delete": {"max_deletes_per_request": 100}}';
    proxy.plan({ act: { do: 'answer', status: 200, body: info }, on: /^GET \/info/ });
    await expect(
      store.putStream(container, key, inRecycledPieces(patternBytes(701, 1), 70), options),
    ).rejects.toMatchObject({ code: 'limit-exceeded', message: expect.stringContaining('7 segments') });
    expect(await listed(`${container}_segments`)).toEqual([]);
    await store.putStream(container, key, inRecycledPieces(patternBytes(700, 1), 70), options);
    expect((await listed(`${container}_segments`)).length).toBe(7);
  });
});

describe('removing a backup', () => {
  test('takes one bulk delete for objects and one for segments, and nothing of others', async () => {
    await fill();
    proxy.plan(null);
    expect(await removePrefix(store, container, `${prefix}-`, live)).toBe(23);
    expect(await removePrefix(store, container, `${prefix}_`, live)).toBe(1);
    expect(await listed(container)).toEqual([
      `${prefix}3-00001`,
      'volume_1/20260102030406/other é%2F&?#-00001',
    ]);
    expect(await listed(`${container}_segments`)).toEqual([]);
    expect(proxy.seen.filter((line) => line.startsWith('POST')).length).toBe(3);
    expect(proxy.seen.filter((line) => line.startsWith('DELETE'))).toEqual([]);
    expect(await removePrefix(store, container, 'volume_1/20260102030406/other', live)).toBe(1);
    expect(await removePrefix(store, container, 'volume_1/20260102030406/other', live)).toBe(0);
  });

  test('goes object by object where the cluster has no bulk delete', async () => {
    await fill();
    proxy.plan({ act: { do: 'answer', status: 200, body: '{"slo": {}}' }, on: /^GET \/info/ });
    await store.close();
    store = open();
    expect(await removePrefix(store, container, prefix, live)).toBe(25);
    expect(proxy.seen.filter((line) => line.startsWith('DELETE')).length).toBe(28);
    expect(await listed(container)).toEqual(['volume_1/20260102030406/other é%2F&?#-00001']);
    expect(await listed(`${container}_segments`)).toEqual([]);
  });

  test('fails if the bulk delete says so in its body', async () => {
    await fill();
    const body = JSON.stringify({
      'Response Status': '400 Bad Request',
      'Number Deleted': 0,
      Errors: [[`/${container}/${prefix}-00001`, '503 Internal Error']],
    });
    proxy.plan({ act: { do: 'answer', status: 200, body }, on: /^POST/ });
    await expect(removePrefix(store, container, prefix, live)).rejects.toMatchObject({
      code: 'store-unavailable',
      message: expect.stringContaining(`${prefix}-00001`),
    });
  });
});

describe('containers', () => {
  test('are made with the storage policy', async () => {
    const name = `silver-${randomUUID()}`;
    const silver = open({ storagePolicy: 'silver' });
    await silver.ensureContainer(name, live);
    await silver.putStream(name, 'a_sha256file', inRecycledPieces(patternBytes(9 * MiB, 1), MiB), options);
    await silver.close();
    expect((await raw('HEAD', `/${name}`)).headers.get('x-storage-policy')).toBe('silver');
    expect((await raw('HEAD', `/${name}_segments`)).headers.get('x-storage-policy')).toBe('silver');
    expect((await raw('HEAD', `/${container}`)).headers.get('x-storage-policy')).toBe('gold');
  });

  test('are not made with a policy that the cluster does not have', async () => {
    const bronze = open({ storagePolicy: 'bronze' });
    await expect(bronze.ensureContainer(`bronze-${randomUUID()}`, live)).rejects.toMatchObject({
      code: 'store-denied',
      message: expect.stringContaining('bronze'),
    });
    await bronze.close();
  });

  test('are not made where backup_create_containers is false', async () => {
    const strict = open({ createContainers: false });
    const name = `strict-${randomUUID()}`;
    await expect(strict.ensureContainer(name, live)).rejects.toMatchObject({
      code: 'object-missing',
      message: expect.stringContaining('backup_create_containers'),
    });
    await strict.ensureContainer(container, live);
    await strict.close();
    expect((await raw('HEAD', `/${name}`)).status).toBe(404);
  });
});

describe('limits of the account', () => {
  test('a quota is store-full, and names the remedy', async () => {
    await raw('POST', `/${container}`, { 'x-container-meta-quota-bytes': '1000' });
    await expect(
      store.put(container, `${prefix}-00001`, patternBytes(2000, 1), options),
    ).rejects.toMatchObject({
      code: 'store-full',
      message: expect.stringContaining('quota'),
    });
  });

  test('a user without a role is store-denied', async () => {
    const reader = open({ user: 'test:reader', key: 'reading' });
    await expect(reader.put(container, `${prefix}-00001`, patternBytes(9, 1), options)).rejects.toMatchObject(
      {
        code: 'store-denied',
        message: expect.stringContaining('403'),
      },
    );
    await reader.close();
  });

  test('a user whom only the ACL of the container lets in stores and removes', async () => {
    const acl = { 'x-container-read': 'test:reader', 'x-container-write': 'test:reader' };
    await raw('POST', `/${container}`, acl);
    const guest = open({ user: 'test:reader', key: 'reading' });
    await guest.ensureContainer(container, live);
    const names = ['-00001', '_sha256file', '_metadata'].map((end) => `${prefix}${end}`);
    for (const name of names) {
      await guest.putStream(container, name, inRecycledPieces(patternBytes(2000, 1), 700), options);
    }
    expect(await listed(container)).toEqual(names.toSorted());
    await guest.remove(container, `${prefix}_metadata`, live);
    expect(await removePrefix(guest, container, prefix, live)).toBe(2);
    expect(await listed(container)).toEqual([]);
    await guest.close();
  });

  test('a wrong key is store-denied, and is not sent again and again', async () => {
    const wrong = open({ key: 'wrong' });
    await expect(wrong.ensureContainer(container, live)).rejects.toMatchObject({
      code: 'store-denied',
      message: expect.stringContaining('refuses the user or the key'),
    });
    await wrong.close();
  });
});

describe('tokens', () => {
  test('that expire in the middle of a job are renewed once for all requests that run', async () => {
    const bytes = patternBytes(2 * MiB, 7);
    await store.put(container, `${prefix}-00001`, bytes, options);
    await forgetTokens();
    proxy.plan(null);
    const numbers = [2, 3, 4, 5, 6];
    await Promise.all(numbers.map((n) => store.put(container, `${prefix}-0000${n}`, bytes, options)));
    expect((await listed(container)).length).toBe(6);
    expect(proxy.seen.filter((line) => line.includes('/auth/')).length).toBe(1);
    await forgetTokens();
    expect((await collect((await store.get(container, `${prefix}-00003`, options)).body)).equals(bytes)).toBe(
      true,
    );
  });

  test('of a user are used as they come, and refused with a remedy when they have expired', async () => {
    const login = await fetch(server.authUrl, {
      headers: { 'x-auth-user': 'test:tester', 'x-auth-key': 'testing' },
    });
    const caller: SwiftCaller = {
      authToken: login.headers.get('x-auth-token') ?? '',
      projectId: 'test',
      serviceCatalog: [
        {
          type: 'object-store',
          name: 'swift',
          endpoints: [{ publicURL: login.headers.get('x-storage-url') }],
        },
      ],
    };
    const perUser: ObjectStore[] = [
      open({ auth: 'per_user', authUrl: undefined }, { caller }),
      open(
        { auth: 'per_user', url: `${proxy.url}/v1/TEMPAUTH_` },
        { caller: { ...caller, serviceCatalog: [] } },
      ),
    ];
    for (const [at, user] of perUser.entries()) {
      await user.put(container, `${prefix}-0000${at + 1}`, patternBytes(9, 1), options);
    }
    expect((await listed(container)).length).toBe(2);
    await forgetTokens();
    for (const user of perUser) {
      await expect(user.put(container, `${prefix}-00001`, patternBytes(9, 1), options)).rejects.toMatchObject(
        {
          code: 'store-denied',
          message: expect.stringContaining('backup_swift_service_auth'),
        },
      );
      await user.close();
    }
  });
});
