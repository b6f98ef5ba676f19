/** A second S3: Ceph's radosgw. The contract, and what it does otherwise than s3api. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkStore } from '../../../src/store/check-store.ts';
import { removePrefix } from '../../../src/store/remove-prefix.ts';
import { objectStoreContract } from '../../contract/object-store.ts';
import { s3ApiOptions, s3Store } from '../../support/cloud-stores.ts';
import { startFaultProxy } from '../../support/fault-proxy.ts';
import { startForwardProxy } from '../../support/forward-proxy.ts';
import { collect, inRecycledPieces, patternBytes } from '../../support/pattern.ts';
import { startRadosgw, type RadosgwServer } from '../../support/radosgw-server.ts';

const MiB = 1024 * 1024;
const live = new AbortController().signal;
const options = { signal: live };
const prefix = 'volume_1/20260102030405/az_nova_backup_2';
let server: RadosgwServer;

beforeAll(async () => {
  server = await startRadosgw();
});
afterAll(async () => {
  await server.stop();
});

objectStoreContract(
  'S3, radosgw',
  async () =>
    await Promise.resolve({
      store: s3Store(s3ApiOptions(server.url, server.keys.tester)),
      freshContainer: () => `volumebackups-${randomUUID()}`,
      dispose: async () => {
        await Promise.resolve();
      },
    }),
);

describe('radosgw', () => {
  test('removes a backup of many pages with its unfinished uploads', async () => {
    const proxy = await startFaultProxy(server.port);
    const store = s3Store(s3ApiOptions(proxy.url, server.keys.tester));
    const bucket = `pages-${randomUUID()}`;
    await store.ensureContainer(bucket, live);
    const names = Array.from({ length: 1203 }, (_, at) => `${prefix}-${String(at + 1).padStart(5, '0')}`);
    const putNext = async (): Promise<void> => {
      for (let name = names.pop(); name !== undefined; name = names.pop()) {
        await store.put(bucket, name, patternBytes(5, 1), options);
      }
    };
    await Promise.all(Array.from({ length: 8 }, putNext));
    await store.putStream(
      bucket,
      `${prefix}_sha256file`,
      inRecycledPieces(patternBytes(11 * MiB, 2), MiB),
      options,
    );
    proxy.plan(null);
    expect(await removePrefix(store, bucket, prefix, live)).toBe(1204);
    expect(proxy.seen.filter((line) => line.startsWith('DELETE'))).toEqual([]);
    await store.close();
    await proxy.close();
  });

  test('encrypts with the key of the customer, and gives nothing without it', async () => {
    const encryption = { sseCustomerAlgorithm: 'AES256', sseCustomerKey: '0123456789abcdef0123456789ABCDEF' };
    const withKey = s3Store(s3ApiOptions(server.url, { ...server.keys.tester, ...encryption }));
    const without = s3Store(s3ApiOptions(server.url, server.keys.tester));
    const bucket = `secret-${randomUUID()}`;
    await withKey.ensureContainer(bucket, live);
    const small = patternBytes(70_000, 1);
    const large = patternBytes(12 * MiB + 9, 2);
    await withKey.put(bucket, 'small', small, options);
    await withKey.putStream(bucket, 'large', inRecycledPieces(large, MiB), options);
    expect((await collect((await withKey.get(bucket, 'small', options)).body)).equals(small)).toBe(true);
    expect((await collect((await withKey.get(bucket, 'large', options)).body)).equals(large)).toBe(true);
    await expect(without.get(bucket, 'small', options)).rejects.toMatchObject({ code: 'store-denied' });
    await Promise.all([withKey.close(), without.close()]);
  });

  test('keeps one user from the bucket of another', async () => {
    const mine = s3Store(s3ApiOptions(server.url, server.keys.tester));
    const theirs = s3Store(s3ApiOptions(server.url, server.keys.other));
    const bucket = `mine-${randomUUID()}`;
    await mine.ensureContainer(bucket, live);
    await expect(theirs.put(bucket, 'a', patternBytes(9, 1), options)).rejects.toMatchObject({
      code: 'store-denied',
    });
    expect((await checkStore(theirs, bucket, live)).ready).toBe(false);
    await Promise.all([mine.close(), theirs.close()]);
  });

  test.each([
    ['an unknown access key', { accessKey: 'nobody' }, 'backup_s3_store_access_key'],
    ['a wrong secret key', { secretKey: 'wrong' }, 'backup_s3_store_secret_key'],
  ])('is told about in plain words with %s', async (_, changes, words) => {
    const store = s3Store(s3ApiOptions(server.url, { ...server.keys.tester, ...changes }));
    const found = await checkStore(store, 'any-bucket', live);
    expect(found).toEqual({ ready: false, findings: [expect.stringContaining(words)] });
    await store.close();
  });

  test('is reached with the bucket in the host name', async () => {
    const proxy = await startForwardProxy(server.port);
    const through = { ...server.keys.tester, endpointUrl: 'http://s3.test', httpProxy: proxy.url };
    const store = s3Store(s3ApiOptions('', through), { addressing: 'virtual-host' });
    const bucket = `host-${randomUUID()}`;
    await store.ensureContainer(bucket, live);
    const bytes = patternBytes(5000, 1);
    await store.put(bucket, `${prefix}-00001`, bytes, options);
    expect((await collect((await store.get(bucket, `${prefix}-00001`, options)).body)).equals(bytes)).toBe(
      true,
    );
    expect(proxy.seen.every(({ url }) => url.startsWith(`http://${bucket}.s3.test/`))).toBe(true);
    await store.close();
    await proxy.close();
  });
});
