/**
 * What the server can do with parallel raw requests, and what our store makes of it: puts and gets of 50 MiB, not compressed, and
 * puts of 32 KiB, which a scattered increment is made of: no client is faster than these.
 */
import { createHash, createHmac, hash, randomBytes } from 'node:crypto';
import { Agent, request } from 'undici';
import { textTable } from '../../src/main/text-table.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';
import { s3ApiOptions, s3Store, swiftStore, tempAuthOptions } from '../support/cloud-stores.ts';
import type { SwiftServer } from '../support/swift-server.ts';

type Load = { readonly objectBytes: number; readonly sideBySide: number; readonly objects: number };
const large: Load = { objectBytes: 52_428_800, sideBySide: 4, objects: 12 };
const small: Load = { objectBytes: 32_768, sideBySide: 16, objects: 480 };
const rounds = 3;
const container = 'limit';
const live = new AbortController().signal;

type Contender = {
  put(at: number): Promise<void>;
  get(at: number): Promise<void>;
};

/** Runs the rounds by turns, so that what else the machine does falls on both, and shows the best of each. */
export async function measureStoreLimit(kind: 'swift' | 's3', server: SwiftServer): Promise<string> {
  const bodies = [randomBytes(large.objectBytes), randomBytes(large.objectBytes)];
  const smallBodies = bodies.map((body) => body.subarray(0, small.objectBytes));
  const store =
    kind === 'swift' ? swiftStore(tempAuthOptions(server.authUrl)) : s3Store(s3ApiOptions(server.url));
  const agent = new Agent();
  try {
    await store.ensureContainer(container, live);
    const address = kind === 'swift' ? await swiftAddress(server, agent) : s3Address(server);
    const [raw, rawSmall] = [rawContender(agent, bodies, address), rawContender(agent, smallBodies, address)];
    const [ours, oursSmall] = [byStore(store, bodies), byStore(store, smallBodies)];
    const best = { rawPut: 0, ourPut: 0, rawGet: 0, ourGet: 0, rawSmall: 0, ourSmall: 0 };
    for (let round = 0; round < rounds; round += 1) {
      best.rawPut = Math.max(best.rawPut, await measure(large, (at) => raw.put(at)));
      best.ourPut = Math.max(best.ourPut, await measure(large, (at) => ours.put(at)));
      best.rawGet = Math.max(best.rawGet, await measure(large, (at) => raw.get(at)));
      best.ourGet = Math.max(best.ourGet, await measure(large, (at) => ours.get(at)));
      best.rawSmall = Math.max(best.rawSmall, await measure(small, (at) => rawSmall.put(at)));
      best.ourSmall = Math.max(best.ourSmall, await measure(small, (at) => oursSmall.put(at)));
    }
    const { sideBySide } = large;
    const rows = [
      row(`put ${sideBySide} x 50 MiB`, best.rawPut * large.objectBytes, best.ourPut * large.objectBytes),
      row(`get ${sideBySide} x 50 MiB`, best.rawGet * large.objectBytes, best.ourGet * large.objectBytes),
      countRow(`put ${small.sideBySide} x 32 KiB`, best.rawSmall, best.ourSmall),
    ];
    return textTable([`best of ${rounds}`, 'raw', 'our store', 'of raw'], rows);
  } finally {
    await agent.destroy();
    await store.close();
  }
}

/** Rates in bytes a second. */
function row(name: string, rawRate: number, ourRate: number): string[] {
  return [name, megabytes(rawRate), megabytes(ourRate), shareOf(rawRate, ourRate)];
}

/** Rates in objects a second. */
function countRow(name: string, rawRate: number, ourRate: number): string[] {
  return [
    name,
    `${rawRate.toFixed(0)} a second`,
    `${ourRate.toFixed(0)} a second`,
    shareOf(rawRate, ourRate),
  ];
}

function megabytes(rate: number): string {
  return `${(rate / 1e6).toFixed(0)} MB/s`;
}

function shareOf(rawRate: number, ourRate: number): string {
  return `${((100 * ourRate) / rawRate).toFixed(0)} %`;
}

/** Calls a second. */
async function measure({ objects, sideBySide }: Load, work: (at: number) => Promise<void>): Promise<number> {
  let next = 0;
  const started = performance.now();
  const takeTurns = async () => {
    for (let at = next++; at < objects; at = next++) await work(at);
  };
  await Promise.all(Array.from({ length: sideBySide }, takeTurns));
  return (objects * 1000) / (performance.now() - started);
}

/** The MD5 is known, as it is of an object that the sealer leaves as it is. */
function byStore(store: ObjectStore, bodies: readonly Buffer[]): Contender {
  const known = bodies.map((body) => ({ body, md5: hash('md5', body, 'hex') }));
  return {
    async put(at) {
      const { body, md5 } = pick(known, at);
      await store.put(container, `ours-${at}`, body, { signal: live, md5 });
    },
    async get(at) {
      const { body } = await store.get(container, `ours-${at}`, { signal: live });
      for await (const piece of body) requireBytes(piece.length);
    },
  };
}

type Address = (method: 'PUT' | 'GET', path: string) => { url: string; headers: Record<string, string> };

async function swiftAddress(server: SwiftServer, agent: Agent): Promise<Address> {
  const user = { 'x-auth-user': 'test:tester', 'x-auth-key': 'testing' };
  const login = await request(server.authUrl, { dispatcher: agent, headers: user });
  await login.body.dump();
  const token = { 'x-auth-token': String(login.headers['x-auth-token']) };
  const base = String(login.headers['x-storage-url']);
  return (_, path) => ({ url: base + path, headers: token });
}

function s3Address(server: SwiftServer): Address {
  return (method, path) => ({
    url: server.url + path,
    headers: signature(method, new URL(server.url + path)),
  });
}

function rawContender(agent: Agent, bodies: readonly Buffer[], address: Address): Contender {
  return {
    async put(at) {
      const { url, headers } = address('PUT', `/${container}/raw-${at}`);
      const body = pick(bodies, at);
      const answer = await request(url, { dispatcher: agent, method: 'PUT', headers, body });
      await answer.body.dump();
      if (answer.statusCode >= 300) throw new Error(`a raw put was answered with ${answer.statusCode}`);
    },
    async get(at) {
      const { url, headers } = address('GET', `/${container}/raw-${at}`);
      const answer = await request(url, { dispatcher: agent, headers });
      for await (const piece of answer.body) requireBytes(Buffer.byteLength(piece));
    },
  };
}

/** AWS signature version 4 over host, date and an unsigned payload: the cheapest that a server takes. */
function signature(method: string, url: URL): Record<string, string> {
  const time = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const day = time.slice(0, 8);
  const headers = { host: url.host, 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD', 'x-amz-date': time };
  const names = Object.keys(headers).join(';');
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
  const canonical = [method, url.pathname, '', lines.join(''), names, 'UNSIGNED-PAYLOAD'].join('\n');
  const scope = `${day}/us-east-1/s3/aws4_request`;
  const digest = createHash('sha256').update(canonical).digest('hex');
  const text = ['AWS4-HMAC-SHA256', time, scope, digest].join('\n');
  let key: string | Buffer = 'AWS4testing';
  for (const part of [day, 'us-east-1', 's3', 'aws4_request', text]) {
    key = createHmac('sha256', key).update(part).digest();
  }
  const credential = `Credential=test:tester/${scope}, SignedHeaders=${names}, Signature=${key.toString('hex')}`;
  return { ...headers, authorization: `AWS4-HMAC-SHA256 ${credential}` };
}

function pick<T>(from: readonly T[], at: number): T {
  const found = from[at % from.length];
  if (found === undefined) throw new Error('nothing to pick from');
  return found;
}

function requireBytes(count: number): void {
  if (count === 0) throw new Error('an empty piece');
}
