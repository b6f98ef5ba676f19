/**
 * Each status and each way of networks to fail, at each call of a store inside its wrappers: which error it is, how often it
 * is tried, and that nothing is left. On real servers behind a proxy: Swift, its s3api, and radosgw.
 */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { isBackupError, messageOf } from '../../../src/model/errors.ts';
import { createLimitStore, createStoreLimits } from '../../../src/store/limit-store.ts';
import type { ObjectStore } from '../../../src/store/object-store.ts';
import { removePrefix } from '../../../src/store/remove-prefix.ts';
import type { S3StoreOptions } from '../../../src/store/s3-options.ts';
import { createRetryStore } from '../../../src/store/retry-store.ts';
import {
  quickRetries,
  s3ApiOptions,
  s3Store,
  silentLog,
  swiftStore,
  tempAuthOptions,
} from '../../support/cloud-stores.ts';
import { startFaultProxy, type Act, type FaultProxy } from '../../support/fault-proxy.ts';
import { listedKeys } from '../../support/listed-keys.ts';
import { collect, patternBytes } from '../../support/pattern.ts';
import { startRadosgw } from '../../support/radosgw-server.ts';
import { startSwift } from '../../support/swift-server.ts';

/** Of the store behind the proxy: how long a silence lasts. */
const faultTimeoutMs = 500;
/** Of the store that checks, which has no wrapper that tries again. */
const directTimeoutMs = 60_000;
const live = new AbortController().signal;
const options = { signal: live };
const prefix = 'volume_1/20260102030405/az_nova_backup_2-';
const key = `${prefix}00001`;
const bytes = patternBytes(300_000, 7);
const { attempts } = quickRetries;

const calls = ['put', 'get', 'remove', 'removePrefix'] as const;
type Call = (typeof calls)[number];
type Outcome = { readonly code: string; readonly tries: number };

type Kind = {
  readonly name: string;
  readonly start: () => Promise<{
    readonly port: number;
    readonly open: (url: string, timeoutMs: number) => ObjectStore;
    readonly stop: () => Promise<void>;
  }>;
  /** What differs from the table below. */
  readonly otherwise: Readonly<Record<string, Partial<Record<Call, Outcome>>>>;
};

const denied = (tries: number): Outcome => ({ code: 'store-denied', tries });
const renewed = { put: denied(2), get: denied(2), remove: denied(2), removePrefix: denied(2) };
const nothingThere = { removePrefix: { code: 'none', tries: 1 } };

function openSwift(url: string, timeoutMs: number): ObjectStore {
  return swiftStore(tempAuthOptions(`${url}/auth/v1.0`), { tuning: { timeoutMs } });
}

function openS3(url: string, timeoutMs: number, keys: Partial<S3StoreOptions> = {}): ObjectStore {
  return s3Store(s3ApiOptions(url, { ...keys, timeoutMs }));
}

const kinds: readonly Kind[] = [
  {
    name: 'Swift',
    start: async () => {
      const server = await startSwift();
      return { port: server.port, open: openSwift, stop: () => server.stop() };
    },
    // A refused token is renewed once.
    otherwise: { '401': renewed },
  },
  {
    name: 's3api',
    start: async () => {
      const server = await startSwift();
      return { port: server.port, open: openS3, stop: () => server.stop() };
    },
    otherwise: { '404': nothingThere },
  },
  {
    name: 'radosgw',
    start: async () => {
      const server = await startRadosgw();
      const open = (url: string, timeoutMs: number) => openS3(url, timeoutMs, server.keys.tester);
      return { port: server.port, open, stop: () => server.stop() };
    },
    otherwise: { '404': nothingThere },
  },
];

const missing = { code: 'object-missing', tries: 1 };
const away = { code: 'store-unavailable', tries: attempts };
const all = (outcome: Outcome): Record<Call, Outcome> => ({
  put: outcome,
  get: outcome,
  remove: outcome,
  removePrefix: outcome,
});

/** What each fault is when it befalls every request of a call. */
const table: readonly {
  readonly fault: string;
  readonly act: Act;
  readonly outcomes: Record<Call, Outcome>;
}[] = [
  {
    fault: '404',
    act: { do: 'answer', status: 404 },
    outcomes: { ...all(missing), remove: { code: 'none', tries: 1 } },
  },
  { fault: '401', act: { do: 'answer', status: 401 }, outcomes: all(denied(1)) },
  { fault: '403', act: { do: 'answer', status: 403 }, outcomes: all(denied(1)) },
  { fault: '409', act: { do: 'answer', status: 409 }, outcomes: all(away) },
  { fault: '413', act: { do: 'answer', status: 413 }, outcomes: all({ code: 'limit-exceeded', tries: 1 }) },
  { fault: '429', act: { do: 'answer', status: 429 }, outcomes: all(away) },
  { fault: '500', act: { do: 'answer', status: 500 }, outcomes: all(away) },
  { fault: '503', act: { do: 'answer', status: 503 }, outcomes: all(away) },
  { fault: 'a reset', act: { do: 'reset', afterBytes: 0 }, outcomes: all(away) },
  { fault: 'silence', act: { do: 'blackhole' }, outcomes: all(away) },
  {
    // The objects are gone when a bulk removal is asked for again.
    fault: 'a short answer',
    act: { do: 'truncate', afterBytes: 20 },
    outcomes: { ...all(away), ...nothingThere },
  },
];

const requests: Record<Call, RegExp> = {
  put: /^PUT \S+\/volume_/,
  get: /^GET \S+\/volume_/,
  remove: /^DELETE /,
  removePrefix: /^POST /,
};

describe.each(kinds)('faults of $name', ({ start, otherwise }) => {
  let server: Awaited<ReturnType<Kind['start']>>;
  let direct: ObjectStore;
  let proxy: FaultProxy;
  let plain: ObjectStore;
  let store: ObjectStore;
  let container: string;

  beforeAll(async () => {
    server = await start();
    direct = server.open(`http://127.0.0.1:${server.port}`, directTimeoutMs);
  });
  afterAll(async () => {
    await direct.close();
    await server.stop();
  });
  beforeEach(async () => {
    proxy = await startFaultProxy(server.port);
    plain = server.open(proxy.url, faultTimeoutMs);
    store = createRetryStore(createLimitStore(plain, createStoreLimits({ puts: 4, gets: 4 })), {
      policy: quickRetries,
      log: silentLog,
    });
    container = `faults-${randomUUID()}`;
    await store.ensureContainer(container, live);
  });
  afterEach(async () => {
    await store.close();
    await proxy.close();
  });

  const listed = () => listedKeys(direct, container);
  const readAll = async (from: ObjectStore) => await collect((await from.get(container, key, options)).body);
  const run: Record<Call, () => Promise<unknown>> = {
    put: () => store.put(container, key, bytes, options),
    get: () => readAll(store),
    remove: () => store.remove(container, key, live),
    removePrefix: () => removePrefix(store, container, prefix, live),
  };
  const codeOf = async (call: Call): Promise<string> =>
    await run[call]().then(
      () => 'none',
      (error: unknown) => (isBackupError(error) ? error.code : `foreign: ${messageOf(error)}`),
    );
  const prepare = async (call: Call) => {
    if (call !== 'put') await direct.put(container, key, bytes, options);
  };

  /** Whatever happened: the whole object or none, and the same call does its work without a fault. */
  const expectNothingHalf = async (call: Call) => {
    const names = await listed();
    if (names.length > 0) {
      expect(names).toEqual([key]);
      expect((await readAll(direct)).equals(bytes)).toBe(true);
    }
    proxy.plan(null);
    expect(await codeOf(call)).toBe('none');
    expect(await listed()).toEqual(call === 'put' || call === 'get' ? [key] : []);
  };

  describe.each(table)('$fault', ({ fault, act, outcomes }) => {
    test.each(calls)('at each request of %s', async (call) => {
      await prepare(call);
      const { code, tries } = otherwise[fault]?.[call] ?? outcomes[call];
      proxy.plan({ act, on: requests[call], times: 99 });
      expect({ code: await codeOf(call), tries: proxy.fired }).toEqual({ code, tries });
      await expectNothingHalf(call);
    });

    test.each(calls.filter((call) => outcomes[call].tries > 1))(
      'at one request of %s passes',
      async (call) => {
        await prepare(call);
        proxy.plan({ act, on: requests[call] });
        expect(await codeOf(call)).toBe('none');
        expect(proxy.fired).toBe(1);
        await expectNothingHalf(call);
      },
    );
  });

  test('an answer that asks for patience says for how long', async () => {
    proxy.plan({ act: { do: 'answer', status: 429, headers: 'retry-after: 3\r\n' }, on: requests.put });
    await expect(plain.put(container, key, bytes, options)).rejects.toMatchObject({
      code: 'store-unavailable',
      details: { retryAfterMs: 3000 },
    });
  });

  test('a wrong ETag in the answer to a put is corrupt, tried once, and the object is removed', async () => {
    const what = /^(etag: "?)[0-9a-f]{32}/im;
    proxy.plan({ act: { do: 'replace', what, by: `$1${'0'.repeat(32)}` }, on: requests.put, times: 99 });
    expect(await codeOf('put')).toBe('corrupt');
    expect(proxy.fired).toBe(1);
    expect(await listed()).toEqual([]);
    await expectNothingHalf('put');
  });
});
