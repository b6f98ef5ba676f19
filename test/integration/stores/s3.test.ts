/** What only S3 has: multipart uploads, removal of many, regions, signatures, proxies, host names. On Swift's s3api. */
import { randomUUID } from 'node:crypto';
import { CreateMultipartUploadCommand, ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { checkStore } from '../../../src/store/check-store.ts';
import type { ObjectStore } from '../../../src/store/object-store.ts';
import { removePrefix } from '../../../src/store/remove-prefix.ts';
import { s3ApiOptions, s3Store } from '../../support/cloud-stores.ts';
import { startFaultProxy, type FaultProxy } from '../../support/fault-proxy.ts';
import { startForwardProxy, type ForwardProxy } from '../../support/forward-proxy.ts';
import { collect, inRecycledPieces, patternBytes } from '../../support/pattern.ts';
import { startSwift, type SwiftServer } from '../../support/swift-server.ts';
import { listedKeys } from '../../support/listed-keys.ts';

const MiB = 1024 * 1024;
const live = new AbortController().signal;
const options = { signal: live };
const prefix = 'volume_1/20260102030405/az_nova_backup_2';

let server: SwiftServer;
let faults: FaultProxy;
let forward: ForwardProxy;
let store: ObjectStore;
let bucket: string;
const opened: { close(): Promise<void> }[] = [];

beforeAll(async () => {
  server = await startSwift({ storageDomain: 's3.test' });
});
afterAll(async () => {
  await server.stop();
});
beforeEach(async () => {
  faults = await startFaultProxy(server.port);
  forward = await startForwardProxy(server.port);
  store = open();
  bucket = `backups-${randomUUID()}`;
  await store.ensureContainer(bucket, live);
});
afterEach(async () => {
  vi.useRealTimers();
  await Promise.all(opened.splice(0).map((one) => one.close()));
  await faults.close();
  await forward.close();
});

function open(...[changes = {}, tuning = {}]: Partial<Changes>) {
  const made = s3Store(s3ApiOptions(faults.url, changes), tuning);
  opened.push(made);
  return made;
}
type Changes = [Parameters<typeof s3ApiOptions>[1], Parameters<typeof s3Store>[1]];

function openThroughForwardProxy(...[changes = {}, tuning = {}]: Partial<Changes>) {
  const proxied = {
    endpointUrl: 'http://s3.test',
    httpProxy: forward.url.replace('http://', ''),
    ...changes,
  };
  return open(proxied, tuning);
}

const listed = () => listedKeys(store, bucket);

async function uploads(): Promise<string[]> {
  const client = plainClient();
  const page = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }));
  client.destroy();
  return (page.Uploads ?? []).map(({ Key }) => Key ?? '');
}

function plainClient(): S3Client {
  return new S3Client({
    endpoint: server.url,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: 'test:tester', secretAccessKey: 'testing' },
  });
}

async function* failing(): AsyncGenerator<Buffer> {
  yield* inRecycledPieces(patternBytes(11 * MiB, 2), MiB);
  throw new Error('the source broke');
}

async function fill(count: number): Promise<void> {
  for (let n = 1; n <= count; n += 1) await store.put(bucket, `${prefix}-${n}`, patternBytes(n, n), options);
  await store.put(bucket, 'volume_1/other', patternBytes(4, 1), options);
}

describe('a stream of many parts', () => {
  const key = `${prefix}_sha256file`;

  test('is one object, checked by the MD5s of its parts', async () => {
    const bytes = patternBytes(12 * MiB + 3, 1);
    await store.putStream(bucket, key, inRecycledPieces(bytes, 900_000), options);
    expect(await listed()).toEqual([key]);
    expect((await collect((await store.get(bucket, key, options)).body)).equals(bytes)).toBe(true);
    faults.plan({ act: { do: 'flip', side: 'answer', atByte: 7 * MiB }, on: /^GET \S+_sha256file/ });
    await expect(collect((await store.get(bucket, key, options)).body)).rejects.toMatchObject({
      code: 'corrupt',
    });
  });

  const finish = /^POST \S+uploadId=/;
  const forgotten = {
    act: { do: 'answer', status: 404, body: '<Error><Code>NoSuchUpload</Code></Error>' } as const,
    on: finish,
    times: 99,
  };

  test('is stored though the answer to its last request is lost and the server has forgotten the upload', async () => {
    const bytes = patternBytes(12 * MiB, 1);
    faults.plan([{ act: { do: 'truncate', afterBytes: 0 }, on: finish }, forgotten]);
    await store.putStream(bucket, key, inRecycledPieces(bytes, MiB), options);
    expect(faults.fired).toBe(2);
    expect((await collect((await store.get(bucket, key, options)).body)).equals(bytes)).toBe(true);
  });

  test('is not taken for the earlier object of its key when the server has forgotten the upload', async () => {
    await store.putStream(bucket, key, inRecycledPieces(patternBytes(12 * MiB, 2), MiB), options);
    faults.plan(forgotten);
    await expect(
      store.putStream(bucket, key, inRecycledPieces(patternBytes(12 * MiB, 1), MiB), options),
    ).rejects.toMatchObject({ code: 'store-unavailable' });
    expect(await uploads()).toEqual([]);
  });

  test('leaves no upload behind when its body fails', async () => {
    await expect(store.putStream(bucket, key, failing(), options)).rejects.toThrow('the source broke');
    expect(await uploads()).toEqual([]);
    expect(await listed()).toEqual([]);
  });

  test('that a killed process left unfinished goes with the backup', async () => {
    const client = plainClient();
    for (const name of [key, `${prefix}_metadata`, 'volume_1/other']) {
      await client.send(new CreateMultipartUploadCommand({ Bucket: bucket, Key: name }));
    }
    client.destroy();
    await store.put(bucket, `${prefix}-00001`, patternBytes(9, 1), options);
    expect(await removePrefix(store, bucket, prefix, live)).toBe(1);
    expect(await uploads()).toEqual(['volume_1/other']);
  });
});

describe('removing a backup', () => {
  test('takes one request for many objects, with a digest that old servers know', async () => {
    await fill(17);
    const proxied = openThroughForwardProxy();
    expect(await removePrefix(proxied, bucket, prefix, live)).toBe(17);
    expect(await listed()).toEqual(['volume_1/other']);
    const removals = forward.seen.filter(({ method }) => method === 'POST' || method === 'DELETE');
    expect(removals).toHaveLength(1);
    expect(removals[0]?.headers['content-md5']).toMatch(/^[\w+/]{22}==$/);
    expect(Object.keys(removals[0]?.headers ?? {}).filter((name) => name.includes('checksum'))).toEqual([]);
    expect(await removePrefix(proxied, bucket, prefix, live)).toBe(0);
  });

  test.each([
    ['501', { do: 'answer', status: 501 } as const],
    [
      'NotImplemented',
      { do: 'answer', status: 400, body: '<Error><Code>NotImplemented</Code></Error>' } as const,
    ],
    ['405', { do: 'answer', status: 405 } as const],
  ])('goes object by object where the server answers %s', async (_, act) => {
    await fill(5);
    faults.plan({ act, on: /^POST/, times: 9 });
    expect(await removePrefix(store, bucket, prefix, live)).toBe(5);
    expect(faults.seen.filter((line) => line.startsWith('DELETE')).length).toBe(5);
    expect(await listed()).toEqual(['volume_1/other']);
  });

  test('fails if one of many could not be removed', async () => {
    await fill(2);
    const body = `<DeleteResult><Error><Key>${prefix}-1</Key><Code>AccessDenied</Code></Error></DeleteResult>`;
    faults.plan({ act: { do: 'answer', status: 200, body }, on: /^POST/ });
    await expect(removePrefix(store, bucket, prefix, live)).rejects.toMatchObject({
      code: 'store-denied',
      message: expect.stringContaining(`${prefix}-1`),
    });
  });

  test.each(['ServiceUnavailable', 'Server Error'])(
    'is store-unavailable if one of many met %s',
    async (code) => {
      await fill(2);
      const body = `<DeleteResult><Error><Key>${prefix}-1</Key><Code>${code}</Code></Error></DeleteResult>`;
      faults.plan({ act: { do: 'answer', status: 200, body }, on: /^POST/ });
      await expect(removePrefix(store, bucket, prefix, live)).rejects.toMatchObject({
        code: 'store-unavailable',
        retryable: true,
      });
    },
  );

  test('asks again for what one of many met in words that nobody knows', async () => {
    await fill(2);
    const body = `<DeleteResult><Error><Key>${prefix}-1</Key><Code>Oddity</Code></Error></DeleteResult>`;
    faults.plan({ act: { do: 'answer', status: 200, body }, on: /^POST/ });
    expect(await removePrefix(store, bucket, prefix, live)).toBe(2);
    expect(faults.seen.filter((line) => line.startsWith('DELETE'))).toHaveLength(1);
    expect(await listed()).toEqual([`${prefix}-2`, 'volume_1/other']);
  });

  test('goes without the list of uploads where that is denied', async () => {
    await fill(2);
    faults.plan({ act: { do: 'answer', status: 403 }, on: /^GET \S+[?&]uploads/, times: 9 });
    expect(await removePrefix(store, bucket, prefix, live)).toBe(2);
    expect(faults.fired).toBe(1);
    expect(await listed()).toEqual(['volume_1/other']);
  });

  test('of an absent bucket has nothing to do', async () => {
    expect(await removePrefix(store, `absent-${randomUUID()}`, prefix, live)).toBe(0);
  });
});

describe('requests', () => {
  test('go through the proxy, plain and signed, with MD5, over few connections', async () => {
    const proxied = openThroughForwardProxy();
    const bytes = patternBytes(700_000, 1);
    for (let n = 0; n < 12; n += 3) {
      await Promise.all(
        [n, n + 1, n + 2].map((at) => proxied.put(bucket, `${prefix}-${at}`, bytes, options)),
      );
    }
    expect((await collect((await proxied.get(bucket, `${prefix}-3`, options)).body)).equals(bytes)).toBe(
      true,
    );
    const puts = forward.seen.filter(({ method }) => method === 'PUT');
    expect(puts).toHaveLength(12);
    for (const { headers, url } of puts) {
      expect(url).toMatch(/^http:\/\/s3\.test\/backups-/);
      expect(headers['content-length']).toBe('700000');
      expect(headers['content-md5']).toMatch(/^[\w+/]{22}==$/);
      expect(headers['x-amz-content-sha256']).toMatch(/^[0-9a-f]{64}$/);
      expect(headers['content-encoding']).toBeUndefined();
      expect(headers['expect']).toBeUndefined();
      expect(
        Object.keys(headers).filter((name) => name.includes('checksum') || name.includes('trailer')),
      ).toEqual([]);
    }
    // Three side by side, and what opens because an answered connection is not yet back in the pool.
    expect(forward.connections).toBeLessThanOrEqual(6);
  });

  test('go without MD5 where backup_s3_md5_validation is false', async () => {
    await openThroughForwardProxy({ md5Validation: false }).put(bucket, 'a', patternBytes(10, 1), options);
    expect(forward.seen.at(-1)?.headers['content-md5']).toBeUndefined();
    expect(forward.seen.at(-1)?.headers['x-amz-content-sha256']).toMatch(/^[0-9a-f]{64}$/);
  });

  test('have the bucket in the host name if that is wanted', async () => {
    const virtual = openThroughForwardProxy({}, { addressing: 'virtual-host' });
    const bytes = patternBytes(5000, 1);
    await virtual.ensureContainer(bucket, live);
    await virtual.put(bucket, `${prefix}-00001`, bytes, options);
    expect((await collect((await virtual.get(bucket, `${prefix}-00001`, options)).body)).equals(bytes)).toBe(
      true,
    );
    expect(forward.seen.at(-1)?.url).toBe(`http://${bucket}.s3.test/${prefix}-00001?x-id=GetObject`);
    expect((await collect((await store.get(bucket, `${prefix}-00001`, options)).body)).equals(bytes)).toBe(
      true,
    );
  });

  test('are signed for the region that the server names, once it has named it', async () => {
    const far = open({}, { region: 'eu-central-1' });
    await far.put(bucket, 'a', patternBytes(10, 1), options);
    faults.plan(null);
    await far.put(bucket, 'b', patternBytes(10, 1), options);
    expect(faults.seen).toHaveLength(1);
    expect(await checkStore(far, bucket, live)).toEqual({
      ready: true,
      findings: [expect.stringContaining('in region us-east-1, not eu-central-1')],
    });
  });

  test('that learn the region side by side are all signed anew', async () => {
    const far = open({}, { region: 'eu-central-1' });
    const names = ['a', 'b', 'c', 'd'];
    await Promise.all(names.map((name) => far.put(bucket, name, patternBytes(10, 1), options)));
    expect(await listed()).toEqual(names);
  });
});

describe('the self-test', () => {
  test('finds nothing where nothing is wrong, and changes nothing', async () => {
    expect(await checkStore(open(), bucket, live)).toEqual({ ready: true, findings: [] });
    expect(await listed()).toEqual([]);
  });

  test('tells of a bucket that will be made, and does not make it', async () => {
    const name = `absent-${randomUUID()}`;
    const found = { ready: true, findings: [expect.stringContaining('the first backup will create it')] };
    expect(await checkStore(open(), name, live)).toEqual(found);
    expect(await checkStore(open(), name, live)).toEqual(found);
    expect((await checkStore(open({ createContainers: false }), name, live)).ready).toBe(false);
  });

  test.each([
    ['a wrong secret key', { secretKey: 'wrong' }, 'backup_s3_store_secret_key'],
    ['an unknown access key', { accessKey: 'nobody:here' }, 'backup_s3_store_access_key'],
    ['a port where nothing listens', { endpointUrl: 'http://127.0.0.1:1' }, 'refuses connections'],
    ['a name that does not resolve', { endpointUrl: 'http://no-such-host.invalid:80' }, 'does not resolve'],
    ['TLS where there is none', { tls: true }, 'does not speak TLS'],
  ])('says what is wrong with %s', async (_, changes, words) => {
    const endpoint = 'tls' in changes ? { endpointUrl: faults.url.replace('http:', 'https:') } : changes;
    const found = await checkStore(open(endpoint), bucket, live);
    expect(found).toEqual({ ready: false, findings: [expect.stringContaining(words)] });
  });

  test('says so when the clocks are too far apart, and by how much when only a little', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 3_600_000 });
    const far = await checkStore(open(), bucket, live);
    expect(far).toEqual({ ready: false, findings: [expect.stringContaining('clocks')] });
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() - 3_600_000 + 300_000 });
    const near = await checkStore(open(), bucket, live);
    expect(near.ready).toBe(true);
    expect(near.findings[0]).toMatch(/(29|30)\d s ahead of/);
  });
});
