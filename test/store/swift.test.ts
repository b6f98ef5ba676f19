/** The store in front of a Swift that a function plays: answers that no test cluster gives, and what becomes of them. */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createSwiftStore } from '../../src/store/swift.ts';
import { quickRetries, swiftDefaults } from '../support/cloud-stores.ts';
import { createFakeHttp, type FakeAnswer } from '../support/fake-http.ts';
import { collect, inRecycledPieces, patternBytes } from '../support/pattern.ts';

const live = new AbortController().signal;
const options = { signal: live };
const key = 'volume_1/20260102030405/az_nova_backup_2_sha256file';
const md5Of = (bytes: Buffer) => createHash('md5').update(bytes).digest('hex');

/** What `answer` leaves undefined is stored if it is a put, and absent otherwise. `timesAsked` counts requests by method and path. */
function open(answer: (line: string) => FakeAnswer | undefined) {
  const lines: string[] = [];
  const asked: string[] = [];
  const http = createFakeHttp(({ method, url, headers }) => {
    const line = `${method} ${url.slice('http://swift'.length)}`;
    asked.push(line);
    return answer(line) ?? (method === 'PUT' ? { status: 201, headers } : { status: 404 });
  });
  const store = createSwiftStore({
    options: { ...swiftDefaults, url: 'http://swift/v1/AUTH_' },
    serviceUser: undefined,
    shared: { http, service: null, close: () => http.close() },
    tuning: { timeoutMs: 1000, segmentBytes: 1000 },
    caller: { authToken: 'user', projectId: 'p', serviceCatalog: [] },
    retryPolicy: quickRetries,
    now: () => 0,
    log: createLogger({ level: 'warn', destination: { write: (line: string) => void lines.push(line) } }),
  });
  const timesAsked = (pattern: RegExp) => asked.filter((line) => pattern.test(line)).length;
  const putStream = async (lengthBytes: number) =>
    await store.putStream('c', key, inRecycledPieces(patternBytes(lengthBytes, 1), 700), options);
  return { store, lines, timesAsked, putStream };
}

const read = async ({ store }: ReturnType<typeof open>) =>
  await collect((await store.get('c', key, options)).body);

test.each([202, 409])('a put that somebody else overtakes (%s) is one to be tried again', async (status) => {
  const { store } = open((line) => (line.startsWith('PUT') ? { status } : undefined));
  await expect(store.put('c', key, Buffer.from('x'), options)).rejects.toMatchObject({
    code: 'store-unavailable',
    retryable: true,
  });
});

describe('a large object', () => {
  const parts = [500, 150].map((length, at) => Buffer.from(patternBytes(length, at).toString('hex')));
  const bytes = Buffer.concat(parts);
  const object: FakeAnswer = {
    status: 200,
    headers: { 'content-length': '1300', etag: '"0-2"', 'x-static-large-object': 'True' },
    body: bytes.toString(),
  };
  const openWith = (manifest: FakeAnswer) =>
    open((line) =>
      line.startsWith('GET') ? (line.endsWith('?multipart-manifest=get') ? manifest : object) : undefined,
    );
  const forms: readonly (readonly [string, (bytes: number, md5: string) => object])[] = [
    ['as Swift tells it', (size, md5) => ({ name: '/c/1', bytes: size, hash: md5 })],
    ['as it was put', (size, md5) => ({ path: '/c/1', size_bytes: size, etag: md5 })],
  ];

  test.each(forms)('is checked by its manifest, %s', async (_, form) => {
    const answerOf = (md5s: readonly string[]) => ({
      status: 200,
      body: JSON.stringify(parts.map((part, at) => form(part.length, md5s[at] ?? ''))),
    });
    const whole = openWith(answerOf(parts.map(md5Of)));
    expect((await read(whole)).equals(bytes)).toBe(true);
    expect(whole.lines).toEqual([]);
    await expect(read(openWith(answerOf(parts.map(md5Of).toReversed())))).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining('segment 1'),
    });
  });

  test.each(['', '[]', '[{"bytes": 1, "hash": "a', '<html>', '{}', '[{"bytes": "1"}]'])(
    'whose manifest reads %j is read without that check, and the first one is logged',
    async (body) => {
      const opened = openWith({ status: 200, body });
      expect((await read(opened)).equals(bytes)).toBe(true);
      expect((await read(opened)).equals(bytes)).toBe(true);
      expect(opened.lines).toEqual([expect.stringContaining(key)]);
    },
  );

  test('whose manifest the server cannot give now is unavailable, and worth another try', async () => {
    await expect(read(openWith({ status: 503 }))).rejects.toMatchObject({ retryable: true });
  });
});

describe('a stream of one segment', () => {
  test('is put again when the server fails', async () => {
    let failures = 2;
    const opened = open((line) => (line.startsWith('PUT') && failures-- > 0 ? { status: 503 } : undefined));
    await opened.putStream(900);
    expect(opened.timesAsked(/^PUT/)).toBe(3);
  });

  test('that fails for good is tried as often as the policy says', async () => {
    const opened = open((line) => (line.startsWith('PUT') ? { status: 503 } : undefined));
    await expect(opened.putStream(900)).rejects.toMatchObject({ code: 'store-unavailable' });
    expect(opened.timesAsked(/^PUT/)).toBe(quickRetries.attempts);
  });

  test.each([
    ['asked for', /^HEAD \S+c_segments/],
    ['listed', /^GET \S+c_segments\?/],
  ])('stays stored when older segments cannot be %s', async (_, broken) => {
    const opened = open((line) =>
      broken.test(line) ? { status: 503 } : line.startsWith('HEAD') ? { status: 204 } : undefined,
    );
    await opened.putStream(900);
    expect(opened.timesAsked(broken)).toBe(1);
    expect(opened.lines).toEqual([expect.stringContaining('could not be removed')]);
  });
});

describe.each([429, 503])('an /info that is answered with %i', (status) => {
  const names = Array.from({ length: 3 }, (_, at) => `volume_1/a-${at + 1}`);
  const page = JSON.stringify(names.map((name) => ({ name, bytes: 1 })));
  const openWithout = () =>
    open((line) => {
      if (line === 'GET /info') return { status };
      if (line.startsWith('DELETE')) return { status: 204 };
      if (line.startsWith('HEAD')) return { status: 204 };
      return line.startsWith('GET')
        ? { status: 200, body: line.includes('marker=') ? '[]' : page }
        : undefined;
    });

  test('lets objects be removed one by one, and is asked for again', async () => {
    const opened = openWithout();
    expect(await opened.store.removePrefix?.('c', 'volume_1/a-', live)).toBe(3);
    const asked = opened.timesAsked(/info$/);
    await opened.store.remove('c', key, live);
    expect(opened.timesAsked(/info$/)).toBeGreaterThan(asked);
    expect(opened.timesAsked(/^POST/)).toBe(0);
  });

  test('lets a large object be stored', async () => {
    const opened = openWithout();
    await opened.putStream(1700);
    expect(opened.timesAsked(/^PUT \S+multipart-manifest=put$/)).toBe(1);
  });

  test('is an error of the self-test', async () => {
    await expect(openWithout().store.check('c', live)).rejects.toMatchObject({ code: 'store-unavailable' });
  });
});
