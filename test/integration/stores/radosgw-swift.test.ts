/** A second Swift: that of Ceph's radosgw. The contract, and what it does otherwise than Swift itself. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createLogger } from '../../../src/log.ts';
import type { ObjectStore } from '../../../src/store/object-store.ts';
import { removePrefix } from '../../../src/store/remove-prefix.ts';
import { objectStoreContract } from '../../contract/object-store.ts';
import { swiftStore, tempAuthOptions } from '../../support/cloud-stores.ts';
import { startFaultProxy } from '../../support/fault-proxy.ts';
import { listedKeys } from '../../support/listed-keys.ts';
import { collect, inRecycledPieces, patternBytes } from '../../support/pattern.ts';
import { startRadosgw, type RadosgwServer } from '../../support/radosgw-server.ts';

const MiB = 1024 * 1024;
const live = new AbortController().signal;
const options = { signal: live };
const prefix = 'volume_1/20260102030405/az_nova_backup_2';
const user = { user: 'tester:swift' };
let server: RadosgwServer;

beforeAll(async () => {
  server = await startRadosgw();
});
afterAll(async () => {
  await server.stop();
});

/** radosgw lists a large object with the size of its manifest, so that of hash lists is not looked at. */
function withoutListSizes(store: ObjectStore): ObjectStore {
  return {
    ...store,
    async *list(container, under, signal) {
      for await (const page of store.list(container, under, signal)) {
        yield page.map(({ key, sizeBytes }) => ({
          key,
          sizeBytes: key.endsWith('_sha256file') ? null : sizeBytes,
        }));
      }
    },
  };
}

objectStoreContract(
  'Swift, radosgw',
  async () =>
    await Promise.resolve({
      store: withoutListSizes(swiftStore(tempAuthOptions(server.authUrl, user))),
      freshContainer: () => `volumebackups-${randomUUID()}`,
      dispose: async () => {
        await Promise.resolve();
      },
    }),
);

describe('radosgw', () => {
  test('gives large objects, and no manifests of them, which is logged once', async () => {
    const lines: string[] = [];
    const log = createLogger({
      level: 'warn',
      destination: { write: (line: string) => void lines.push(line) },
    });
    const store = swiftStore(tempAuthOptions(server.authUrl, user), { log });
    const container = `large-${randomUUID()}`;
    await store.ensureContainer(container, live);
    const names = [`${prefix}_sha256file`, `${prefix}_metadata`];
    for (const [at, name] of names.entries()) {
      const bytes = patternBytes(9 * MiB + at, at);
      await store.putStream(container, name, inRecycledPieces(bytes, MiB), options);
      expect((await collect((await store.get(container, name, options)).body)).equals(bytes)).toBe(true);
    }
    expect(lines).toEqual([expect.stringContaining('does not tell the segments')]);
    await store.close();
  });

  test('gives a large object to its end when the connection is cut', async () => {
    const proxy = await startFaultProxy(server.port);
    const store = swiftStore(tempAuthOptions(`${proxy.url}/auth/v1.0`, user));
    const container = `cut-${randomUUID()}`;
    await store.ensureContainer(container, live);
    const bytes = patternBytes(9 * MiB + 5, 1);
    await store.putStream(container, `${prefix}_sha256file`, inRecycledPieces(bytes, MiB), options);
    proxy.plan({ act: { do: 'truncate', afterBytes: 6 * MiB }, on: /^GET \S+_sha256file HTTP/ });
    const { body } = await store.get(container, `${prefix}_sha256file`, options);
    expect((await collect(body)).equals(bytes)).toBe(true);
    expect(proxy.fired).toBe(1);
    await store.close();
    await proxy.close();
  });

  test('tells beside its accounts what it can do, and removes a backup with its segments in bulk', async () => {
    const proxy = await startFaultProxy(server.port);
    const store = swiftStore(tempAuthOptions(`${proxy.url}/auth/v1.0`, user));
    const container = `bulk-${randomUUID()}`;
    await store.ensureContainer(container, live);
    for (let n = 1; n <= 23; n += 1) {
      await store.put(container, `${prefix}-${String(n).padStart(5, '0')}`, patternBytes(n, n), options);
    }
    const bytes = patternBytes(9 * MiB, 1);
    await store.putStream(container, `${prefix}_sha256file`, inRecycledPieces(bytes, MiB), options);
    expect(proxy.seen.filter((line) => line.includes('/info '))).toEqual(['GET /swift/info HTTP/1.1']);
    proxy.plan(null);
    expect(await removePrefix(store, container, prefix, live)).toBe(24);
    expect(proxy.seen.filter((line) => line.startsWith('DELETE'))).toEqual([]);
    expect(await listedKeys(store, container)).toEqual([]);
    expect(await listedKeys(store, `${container}_segments`)).toEqual([]);
    await store.close();
    await proxy.close();
  });
});
