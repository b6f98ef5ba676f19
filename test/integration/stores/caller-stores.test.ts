/** The stores of callers on a real Swift: what is tested before one comes, and what they share. */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { parseConfigFile } from '../../../src/config/config-files.ts';
import { serviceConfigOf } from '../../../src/config/service-config.ts';
import { openCloudStore, type CloudStore } from '../../../src/main/open-cloud-store.ts';
import type { SwiftCaller } from '../../../src/store/swift-options.ts';
import { silentLog } from '../../support/cloud-stores.ts';
import { startFaultProxy, type FaultProxy } from '../../support/fault-proxy.ts';
import { listedKeys } from '../../support/listed-keys.ts';
import { patternBytes } from '../../support/pattern.ts';
import { startSwift, type SwiftServer } from '../../support/swift-server.ts';

const { signal } = new AbortController();
let server: SwiftServer;
let proxy: FaultProxy;
let opened: CloudStore;

beforeAll(async () => {
  server = await startSwift();
});
afterAll(async () => {
  await server.stop();
});
beforeEach(async () => {
  proxy = await startFaultProxy(server.port);
  const text = `[DEFAULT]
transport_url = rabbit://cinder@broker
backup_driver = cinder.backup.drivers.swift.SwiftBackupDriver
backup_swift_url = ${proxy.url}/v1/TEMPAUTH_
[database]
connection = mysql+pymysql://cinder@db/cinder
`;
  const files = [parseConfigFile('/etc/cinder.conf', text, [])];
  opened = openCloudStore(serviceConfigOf({ files, problems: [] }).config, silentLog);
});
afterEach(async () => {
  await opened.store.close();
  await proxy.close();
});

async function logIn(): Promise<SwiftCaller> {
  const headers = { 'x-auth-user': 'test:tester', 'x-auth-key': 'testing' };
  const answer = await fetch(server.authUrl, { headers });
  return { authToken: answer.headers.get('x-auth-token') ?? '', projectId: 'test', serviceCatalog: [] };
}

test('a Swift that answers is ready before a caller comes', async () => {
  expect(await opened.check(signal)).toEqual({ ready: true, findings: [] });
  expect(proxy.seen).toEqual(['GET /info HTTP/1.1']);
});

test('a Swift that does not tell what it can do is ready', async () => {
  proxy.plan({ act: { do: 'answer', status: 403 }, on: /^GET \/info/ });
  expect((await opened.check(signal)).ready).toBe(true);
  expect(proxy.fired).toBe(1);
});

test('a Swift in trouble is not, and is again when that is over', async () => {
  proxy.plan({ act: { do: 'answer', status: 503 }, on: /^GET \/info/ });
  expect(await opened.check(signal)).toEqual({
    ready: false,
    findings: [expect.stringContaining('/info (503)')],
  });
  expect((await opened.check(signal)).ready).toBe(true);
});

test('a Swift that is away is not, in plain words', async () => {
  await proxy.refuse();
  expect(await opened.check(signal)).toEqual({
    ready: false,
    findings: [expect.stringContaining('refuses connections')],
  });
});

test('the store of one caller outlives that of another', async () => {
  const container = `callers-${randomUUID()}`;
  const [first, second] = [opened.openFor?.(await logIn()).store, opened.openFor?.(await logIn()).store];
  await first?.ensureContainer(container, signal);
  await second?.put(container, 'a-00001', patternBytes(10, 1), { signal });
  await first?.close();
  await second?.put(container, 'a-00002', patternBytes(10, 2), { signal });
  expect(second === undefined ? [] : await listedKeys(second, container)).toEqual(['a-00001', 'a-00002']);
  await second?.close();
});
