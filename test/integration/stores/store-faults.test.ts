/** What networks and servers do wrong between us and a real Swift, and what becomes of it: through Swift's API and through s3api. */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { isBackupError } from '../../../src/model/errors.ts';
import type { ObjectStore } from '../../../src/store/object-store.ts';
import { s3ApiOptions, s3Store, swiftStore, tempAuthOptions } from '../../support/cloud-stores.ts';
import { startFaultProxy, type FaultProxy } from '../../support/fault-proxy.ts';
import { collect, inRecycledPieces, patternBytes } from '../../support/pattern.ts';
import { startSwift, type SwiftServer } from '../../support/swift-server.ts';
import { listedKeys } from '../../support/listed-keys.ts';

const MiB = 1024 * 1024;
/** Of the store behind the proxy: how long a silence lasts. */
const timeoutMs = 4000;
/** Of the store that checks. */
const directTimeoutMs = 60_000;
const live = new AbortController().signal;
const options = { signal: live };

type Kind = {
  readonly name: string;
  readonly make: (url: string, timeoutMs: number) => ObjectStore;
  /** The request lines of puts of objects, parts or segments, and of gets of objects. */
  readonly put: RegExp;
  readonly get: RegExp;
  readonly list: RegExp;
  /** What makes one object of segments or parts. */
  readonly finish: RegExp;
};

const kinds: readonly Kind[] = [
  {
    name: 'swift',
    make: (url, waitMs) => swiftStore(tempAuthOptions(`${url}/auth/v1.0`), { tuning: { timeoutMs: waitMs } }),
    put: /^PUT \/v1\/\S+\/volume_/,
    get: /^GET \/v1\/\S+\/volume_[^?]*$/,
    list: /^GET \/v1\/\S+\?format=json/,
    finish: /^PUT \S+multipart-manifest=put/,
  },
  {
    name: 's3',
    make: (url, waitMs) => s3Store(s3ApiOptions(url, { timeoutMs: waitMs })),
    put: /^PUT \/\S+\/volume_/,
    get: /^GET \/\S+\/volume_/,
    list: /^GET \/\S+list-type=2/,
    finish: /^POST \S+uploadId=/,
  },
];

let server: SwiftServer;
let proxy: FaultProxy;
/** Sees the segments of both: those of s3api are in the account of the same user. */
let swift: ObjectStore;

beforeAll(async () => {
  server = await startSwift();
  swift = swiftStore(tempAuthOptions(server.authUrl));
});
afterAll(async () => {
  await swift.close();
  await server.stop();
});

async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'none';
  } catch (error) {
    return isBackupError(error) ? error.code : `foreign: ${String(error)}`;
  }
}

describe.each(kinds)('faults between us and $name', (kind) => {
  let store: ObjectStore;
  let direct: ObjectStore;
  let container: string;
  const key = 'volume_1/20260102030405/az_nova_backup_2-00001';

  beforeAll(() => {
    direct = kind.make(server.url, directTimeoutMs);
  });
  afterAll(async () => {
    await direct.close();
  });
  beforeEach(async () => {
    proxy = await startFaultProxy(server.port);
    store = kind.make(proxy.url, timeoutMs);
    container = `backups-${randomUUID()}`;
    await store.ensureContainer(container, live);
  });
  afterEach(async () => {
    await store.close();
    await proxy.close();
  });

  const read = async (from: ObjectStore, name = key) =>
    await collect((await from.get(container, name, options)).body);
  const listed = (where = container, through = direct) => listedKeys(through, where);
  const put = (bytes: Buffer) => store.put(container, key, bytes, options);

  describe('a put', () => {
    const old = patternBytes(1000, 1);
    const bytes = patternBytes(3 * MiB, 2);

    test.each([
      ['that is reset midway', { do: 'reset', afterBytes: MiB } as const],
      ['that is never answered', { do: 'blackhole' } as const],
      ['whose answer is cut', { do: 'truncate', afterBytes: 20 } as const],
      ['whose answer stops midway', { do: 'stall', afterBytes: 20 } as const],
    ])(
      '%s is store-unavailable, leaves a whole object or the old one, and can be repeated',
      async (_, act) => {
        await put(old);
        proxy.plan({ act, on: kind.put });
        expect(await codeOf(put(bytes))).toBe('store-unavailable');
        expect(proxy.fired).toBe(1);
        const found = await read(direct);
        expect(found.equals(old) || found.equals(bytes)).toBe(true);
        await put(bytes);
        expect((await read(direct)).equals(bytes)).toBe(true);
      },
    );

    test('whose bytes are changed on the way is refused by the server, retryable, and the old object stays', async () => {
      await put(old);
      proxy.plan({ act: { do: 'flip', side: 'request', atByte: 2 * MiB }, on: kind.put });
      expect(await codeOf(put(bytes))).toBe('store-unavailable');
      expect(proxy.fired).toBe(1);
      expect((await read(direct)).equals(old)).toBe(true);
    });

    test('that is slow but moves takes longer than the time-out and succeeds', async () => {
      const large = patternBytes(30 * MiB, 6);
      proxy.plan({ act: { do: 'throttle', side: 'request', bytesPerSecond: 5 * MiB }, on: kind.put });
      const started = performance.now();
      await put(large);
      expect(performance.now() - started).toBeGreaterThan(timeoutMs);
      expect((await read(direct)).equals(large)).toBe(true);
    });

    test.each([
      [400, '', 'store-denied'],
      [403, '', 'store-denied'],
      [404, '', 'object-missing'],
      [408, '', 'store-unavailable'],
      [409, '', 'store-unavailable'],
      [413, 'Your request is too large.', 'limit-exceeded'],
      [429, '', 'store-unavailable'],
      [500, '<html>Internal Error</html>', 'store-unavailable'],
      [502, 'bad gateway', 'store-unavailable'],
      [503, '', 'store-unavailable'],
      [507, '', 'store-full'],
    ])('that is answered with %i %s is %s', async (status, body, code) => {
      proxy.plan({ act: { do: 'answer', status, body }, on: kind.put, times: 5 });
      expect(await codeOf(put(old))).toBe(code);
      expect(proxy.fired).toBe(1);
      expect(await listed()).toEqual([]);
    });

    test('that is always answered with 401 is store-denied', async () => {
      proxy.plan({ act: { do: 'answer', status: 401 }, on: kind.put, times: 5 });
      expect(await codeOf(put(old))).toBe('store-denied');
    });

    test('to a server that is gone is store-unavailable, and the sentence says so', async () => {
      const fresh = kind.make(proxy.url, timeoutMs);
      await proxy.refuse();
      await expect(fresh.put(container, key, old, options)).rejects.toMatchObject({
        code: 'store-unavailable',
        message: expect.stringContaining('refuses connections'),
      });
      await fresh.close();
    });
  });

  describe('a get', () => {
    const bytes = patternBytes(4 * MiB + 3, 3);
    beforeEach(async () => {
      await direct.put(container, key, bytes, options);
    });

    test.each([
      ['that is cut midway', { do: 'truncate', afterBytes: MiB } as const],
      ['that stops midway', { do: 'stall', afterBytes: MiB } as const],
    ])('%s is continued where it ended', async (_, act) => {
      proxy.plan({ act, on: kind.get });
      expect((await read(store)).equals(bytes)).toBe(true);
      expect(proxy.fired).toBe(1);
      expect(proxy.seen.filter((line) => kind.get.test(line)).length).toBe(2);
    });

    test('that is cut before the first byte every time is store-unavailable', async () => {
      proxy.plan({ act: { do: 'truncate', afterBytes: 100 }, on: kind.get, times: 9 });
      expect(await codeOf(read(store))).toBe('store-unavailable');
      expect(proxy.fired).toBe(1);
    });

    test('of bytes that were changed on the way is corrupt', async () => {
      proxy.plan({ act: { do: 'flip', side: 'answer', atByte: 2 * MiB }, on: kind.get });
      expect(await codeOf(read(store))).toBe('corrupt');
      expect(proxy.fired).toBe(1);
    });

    test('that is never answered is store-unavailable', async () => {
      proxy.plan({ act: { do: 'blackhole' }, on: kind.get });
      expect(await codeOf(read(store))).toBe('store-unavailable');
    });

    test('by a reader that rests longer than the time-out gets every byte', async () => {
      const { body } = await store.get(container, key, options);
      const pieces: Buffer[] = [];
      for await (const piece of body) {
        pieces.push(Buffer.from(piece));
        if (pieces.length === 3) await new Promise((resume) => setTimeout(resume, timeoutMs * 2));
      }
      expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
    });

    test('of an object that was replaced during the cut does not mix the two', async () => {
      proxy.plan({ act: { do: 'truncate', afterBytes: MiB }, on: kind.get });
      const { body } = await store.get(container, key, options);
      await direct.put(container, key, patternBytes(bytes.length, 4), options);
      expect(await codeOf(collect(body))).not.toBe('none');
    });
  });

  describe('a listing', () => {
    test('that is cut is store-unavailable, not a shorter list', async () => {
      await put(patternBytes(10, 1));
      proxy.plan({ act: { do: 'truncate', afterBytes: 700 }, on: kind.list, times: 9 });
      const names: string[] = [];
      const all = async () => {
        for await (const page of store.list(container, '', live)) names.push(...page.map((one) => one.key));
      };
      for (let n = 2; n < 40; n += 1) await direct.put(container, `${key}${n}`, patternBytes(9, n), options);
      expect(await codeOf(all())).toBe('store-unavailable');
      expect(names).toEqual([]);
    });
  });

  describe('a stream of one segment', () => {
    const bytes = patternBytes(2 * MiB + 11, 5);
    const putStream = () => store.putStream(container, key, inRecycledPieces(bytes, 300_000), options);

    test.each([
      ['503', { do: 'answer', status: 503 } as const],
      ['a reset', { do: 'reset', afterBytes: MiB } as const],
      ['a lost answer', { do: 'truncate', afterBytes: 0 } as const],
    ])('survives %s', async (_, act) => {
      proxy.plan({ act, on: kind.put, times: 2 });
      await putStream();
      expect(proxy.fired).toBe(2);
      expect((await read(direct)).equals(bytes)).toBe(true);
    });

    test('is given up when the server fails for good', async () => {
      proxy.plan({ act: { do: 'answer', status: 503 }, on: kind.put, times: 99 });
      expect(await codeOf(putStream())).toBe('store-unavailable');
      expect(proxy.fired).toBe(4);
      expect(await listed()).toEqual([]);
    });
  });

  describe('a stream of many segments', () => {
    const bytes = patternBytes(17 * MiB + 11, 5);
    const putStream = () => store.putStream(container, key, inRecycledPieces(bytes, 300_000), options);

    test.each([
      ['503', { do: 'answer', status: 503 } as const],
      ['a reset', { do: 'reset', afterBytes: MiB } as const],
    ])('survives %s of one of them', async (_, act) => {
      proxy.plan({ act, on: kind.put, times: 2 });
      await putStream();
      expect(proxy.fired).toBe(2);
      expect((await read(direct)).equals(bytes)).toBe(true);
    });

    test('is stored when the answer to its last request is lost', async () => {
      proxy.plan({ act: { do: 'truncate', afterBytes: 0 }, on: kind.finish });
      await putStream();
      expect(proxy.fired).toBe(1);
      expect((await read(direct)).equals(bytes)).toBe(true);
    });

    test('leaves the whole or nothing when all answers to its last request are lost', async () => {
      proxy.plan({ act: { do: 'truncate', afterBytes: 0 }, on: kind.finish, times: 99 });
      expect(await codeOf(putStream())).toBe('store-unavailable');
      expect(proxy.fired).toBe(4);
      if (kind.name === 's3') expect((await read(direct)).equals(bytes)).toBe(true);
      else {
        expect(await listed()).toEqual([]);
        expect(await listed(`${container}_segments`, swift)).toEqual([]);
      }
    });

    test('leaves the earlier object when its last request is refused', async () => {
      const old = patternBytes(1000, 1);
      await put(old);
      proxy.plan({ act: { do: 'answer', status: 403 }, on: kind.finish, times: 99 });
      expect(await codeOf(putStream())).toBe('store-denied');
      expect((await read(direct)).equals(old)).toBe(true);
    });

    test('leaves neither object nor segments when the server fails for good', async () => {
      proxy.plan({ act: { do: 'answer', status: 503 }, on: /^PUT \S+(00000003|partNumber=3)/, times: 99 });
      expect(await codeOf(putStream())).toBe('store-unavailable');
      expect(proxy.fired).toBe(4);
      expect(await listed()).toEqual([]);
      for (const home of ['_segments', '+segments']) {
        expect(await listed(`${container}${home}`, swift)).toEqual([]);
      }
    });
  });
});
