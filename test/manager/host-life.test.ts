import { afterEach, beforeEach, expect, test } from 'vitest';
import { adminContext } from '../../src/bus/bus-context.ts';
import { backupRpcVersion } from '../../src/bus/message-bus.ts';
import type { OutgoingRequest } from '../../src/bus/rpc-client.ts';
import { decodeEnvelope } from '../../src/bus/envelope.ts';
import { parseRequest } from '../../src/bus/rpc-message.ts';
import type { Database } from '../../src/database/database.ts';
import { openSqliteDatabase } from '../../src/database/sqlite/sqlite-database.ts';
import { createLogger } from '../../src/log.ts';
import { createHostLife, type HostLife } from '../../src/manager/host-life.ts';
import { BackupError } from '../../src/model/errors.ts';
import { serviceRpcVersion } from '../../src/model/service-versions.ts';
import { createManualWait, type ManualWait } from '../support/manual-wait.ts';
import { wireFixture } from '../support/wire-fixtures.ts';

const driverName = 'cinder.backup.drivers.s3.S3BackupDriver';
const { signal } = new AbortController();

let database: Database;
let time: ManualWait;
let sent: OutgoingRequest[];
let storeAnswers: boolean[];
let checks: number;
let isConnected: boolean;
let life: HostLife;

beforeEach(() => {
  database = openSqliteDatabase(':memory:');
  time = createManualWait();
  sent = [];
  storeAnswers = [];
  checks = 0;
  isConnected = true;
  life = createLife(database);
});

afterEach(async () => {
  await life.stop();
  await database.close();
});

function createLife(of: Database, changes: { enableNewServices?: boolean } = {}): HostLife {
  return createHostLife({
    database: of,
    bus: {
      get isConnected() {
        return isConnected;
      },
      cast: async (request) => {
        await Promise.resolve();
        sent.push(request);
      },
    },
    checkStore: async () => {
      await Promise.resolve();
      const ready = storeAnswers[checks] ?? storeAnswers.at(-1) ?? true;
      checks += 1;
      return { ready, findings: [] };
    },
    host: 'refhost',
    availabilityZone: 'nova',
    enableNewServices: true,
    driverName,
    reportIntervalMs: 10_000,
    capabilitiesIntervalMs: 60_000,
    driverCheckIntervalMs: 60_000,
    wait: time.wait,
    clock: { now: () => time.now() },
    log: createLogger({ level: 'silent' }),
    ...changes,
  });
}

async function begin(): Promise<void> {
  await life.register();
  await life.examine(signal);
  life.start();
  await time.pass(0);
}

const states = () =>
  sent
    .filter(({ method }) => method === 'update_service_capabilities')
    .map(({ args }) => args['capabilities'])
    .map((capabilities) => JSON.parse(JSON.stringify(capabilities)).backend_state);

async function row() {
  return await database.sql.selectFrom('services').selectAll().executeTakeFirstOrThrow();
}

async function recorded(name: string) {
  const content = Buffer.from(wireFixture(name).payload_raw);
  return parseRequest(await decodeEnvelope({ content, properties: {} }));
}

test('the row says the version that the bus serves', () => {
  expect(serviceRpcVersion).toBe(backupRpcVersion);
});

test('both messages to the scheduler are those that Python sends', async () => {
  storeAnswers = [false];
  await begin();
  const [update, notify] = sent;
  const [oldUpdate, oldNotify] = [
    await recorded('update_service_capabilities'),
    await recorded('notify_service_capabilities'),
  ];
  const timestamp = '2026-11-22T10:00:00.000000';
  expect(update).toMatchObject({ method: oldUpdate.method, version: oldUpdate.version });
  expect(update?.target).toEqual({ kind: 'fanout', topic: 'cinder-scheduler' });
  expect(update?.args).toEqual({ ...oldUpdate.args, timestamp });
  expect(Object.keys(update?.args ?? {}).toSorted()).toEqual(Object.keys(oldUpdate.args).toSorted());
  expect(notify).toMatchObject({ method: oldNotify.method, version: oldNotify.version });
  expect(notify?.target).toEqual({ kind: 'topic', topic: 'cinder-scheduler' });
  expect(notify?.args).toEqual({ ...oldNotify.args, timestamp });
  const items = update?.context.items ?? {};
  expect(Object.keys(items)).toEqual(Object.keys(oldUpdate.context));
  expect({ ...items, request_id: '', timestamp: '' }).toEqual({
    ...adminContext('', time.now()).items,
    timestamp: '',
  });
});

test('a store that works is told to the schedulers at once, and every interval', async () => {
  await begin();
  expect(states()).toEqual([true]);
  await time.pass(59_000);
  expect(states()).toEqual([true]);
  await time.pass(62_000);
  expect(states()).toEqual([true, true, true]);
});

test('a store that comes later is found within seconds, and told at once', async () => {
  storeAnswers = [false, false, true];
  await begin();
  expect([states(), life.isWorking]).toEqual([[false], false]);
  await time.pass(1999);
  expect(checks).toBe(1);
  await time.pass(4001);
  expect([states(), life.isWorking, checks]).toEqual([[false, true], true, 3]);
});

test('a store that stays away is tested ever more rarely', async () => {
  storeAnswers = [false];
  await begin();
  await time.pass(2000 + 4000 + 8000 + 16_000 + 32_000);
  expect(checks).toBe(6);
  await time.pass(59_000);
  expect(checks).toBe(6);
  await time.pass(1000);
  expect(checks).toBe(7);
});

test('one failed test does not give up a store that worked, two do', async () => {
  storeAnswers = [true, false, true, false, false];
  await begin();
  await time.pass(60_000 + 2000);
  expect([checks, life.isWorking]).toEqual([3, true]);
  await time.pass(60_000 + 2000);
  expect([checks, life.isWorking, states().at(-1)]).toEqual([5, false, false]);
});

test('a scheduler that asks is answered', async () => {
  await begin();
  life.publish();
  await time.pass(0);
  expect(states()).toEqual([true, true]);
});

test('nothing is told before the start, nor before this host has its queue', async () => {
  await life.register();
  await life.examine(signal);
  await time.pass(1000);
  expect([sent, life.isWorking]).toEqual([[], true]);
  isConnected = false;
  life.start();
  await time.pass(1000);
  expect(sent).toEqual([]);
  isConnected = true;
  await time.pass(100);
  expect(states()).toEqual([true]);
});

test('a broker that was away for hours is told once what is true then', async () => {
  await begin();
  isConnected = false;
  await time.pass(4 * 3_600_000);
  sent.length = 0;
  isConnected = true;
  await time.pass(100);
  expect(states()).toEqual([true]);
});

test('the heartbeat counts every interval', async () => {
  await begin();
  expect(await row()).toMatchObject({ report_count: 0, updated_at: '2026-11-22 10:00:00.000' });
  await time.pass(31_000);
  expect(await row()).toMatchObject({ report_count: 3, updated_at: '2026-11-22 10:00:30.000' });
});

test('without the store there is no heartbeat, and with it there is one again', async () => {
  storeAnswers = [false, false, false, false, true];
  await begin();
  await time.pass(25_000);
  expect(await row()).toMatchObject({ report_count: 0, updated_at: '2026-11-22 10:00:00.000' });
  await time.pass(20_000);
  expect(await row()).toMatchObject({ report_count: 2 });
});

test('without the broker there is no heartbeat', async () => {
  await begin();
  isConnected = false;
  await time.pass(30_000);
  expect((await row()).report_count).toBe(0);
  isConnected = true;
  await time.pass(10_000);
  expect((await row()).report_count).toBe(1);
});

test('a row that was removed is made anew', async () => {
  await begin();
  await database.sql.updateTable('services').set({ deleted: true }).execute();
  await time.pass(20_000);
  const rows = await database.sql.selectFrom('services').select(['deleted', 'report_count']).execute();
  expect(rows).toEqual([
    { deleted: 1, report_count: 0 },
    { deleted: 0, report_count: 1 },
  ]);
});

test('where new services are not enabled the row is disabled, also one that is made anew', async () => {
  life = createLife(database, { enableNewServices: false });
  await begin();
  await database.sql.updateTable('services').set({ deleted: true }).execute();
  await time.pass(20_000);
  const rows = await database.sql.selectFrom('services').select(['deleted', 'disabled']).execute();
  expect(rows).toEqual([
    { deleted: 1, disabled: 1 },
    { deleted: 0, disabled: 1 },
  ]);
});

test('a database that is away for a while does not end the heartbeat', async () => {
  let isAway = false;
  const sql = new Proxy(database.sql, {
    get(target, name) {
      if (isAway) throw new BackupError('database-unavailable', 'away');
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  life = createLife({ ...database, sql });
  await begin();
  isAway = true;
  await time.pass(20_000);
  isAway = false;
  await time.pass(10_000);
  expect((await row()).report_count).toBe(1);
});

test('a service that stops takes its word back from the schedulers, and beats no more', async () => {
  await begin();
  await life.stop();
  await time.pass(120_000);
  expect([states(), (await row()).report_count]).toEqual([[true, false], 0]);
});

test('a scheduler that cannot be told does not stop the heartbeat', async () => {
  life = createHostLife({
    database,
    bus: { isConnected: true, cast: () => Promise.reject(new BackupError('bus-unavailable', 'no queue')) },
    checkStore: () => Promise.resolve({ ready: true, findings: [] }),
    host: 'refhost',
    availabilityZone: 'nova',
    enableNewServices: true,
    driverName,
    reportIntervalMs: 10_000,
    capabilitiesIntervalMs: 60_000,
    driverCheckIntervalMs: 60_000,
    wait: time.wait,
    clock: { now: () => time.now() },
    log: createLogger({ level: 'silent' }),
  });
  await begin();
  await time.pass(120_000);
  expect((await row()).report_count).toBe(12);
});
