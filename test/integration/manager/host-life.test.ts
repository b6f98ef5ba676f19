/** The life of the host as Cinder's real scheduler and its real clients see it, over a real RabbitMQ. */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import type { MessageBus } from '../../../src/bus/message-bus.ts';
import { insertBackup } from '../../../src/database/backups.ts';
import type { Database } from '../../../src/database/database.ts';
import { openSqliteDatabase } from '../../../src/database/sqlite/sqlite-database.ts';
import { createLogger } from '../../../src/log.ts';
import { createHostEndpoints } from '../../../src/manager/host-endpoints.ts';
import { createHostLife, type HostLife } from '../../../src/manager/host-life.ts';
import { createNamedLoggers } from '../../../src/manager/named-loggers.ts';
import { cancelledBy } from '../../../src/model/errors.ts';
import { newBackup } from '../../database/rows.ts';
import { openTestBus } from '../../support/message-bus.ts';
import { startPythonPeer, type PythonPeer } from '../../support/python-peer.ts';
import { startRabbitMq, type RabbitServer } from '../../support/rabbitmq-server.ts';

const driverName = 'cinder.backup.drivers.posix.PosixBackupDriver';
const patience = { timeout: 30_000 };
const now = new Date('2026-11-22T10:00:00Z');

let broker: RabbitServer;
let peer: PythonPeer;
const open: Host[] = [];

type Host = {
  readonly bus: MessageBus;
  readonly life: HostLife;
  readonly database: Database;
  isStoreReady: boolean;
  stop(): Promise<void>;
};

beforeAll(async () => {
  broker = await startRabbitMq();
  const script = fileURLToPath(new URL('scheduler_peer.py', import.meta.url));
  peer = startPythonPeer(script, JSON.stringify({ url: broker.url, directory: broker.directory }));
  await ask({ op: 'serve' });
});

afterEach(async () => {
  for (const host of open.splice(0)) await host.stop();
});

afterAll(async () => {
  await peer.close();
  await broker.stop();
});

async function ask(request: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
  const answer = z.record(z.string(), z.unknown()).parse(await peer.ask(request));
  if (answer['crash'] !== undefined) throw new Error(z.string().parse(answer['crash']));
  return answer;
}

/** A host that answers what is about the host; what is about data it has not. */
async function startHost(name: string, driver = driverName): Promise<Host> {
  const log = createLogger({ level: 'silent' });
  const loggers = createNamedLoggers(createLogger({ level: 'info', destination: { write: () => {} } }));
  loggers.named('cinder.backup.manager');
  loggers.named('oslo_messaging');
  const database = openSqliteDatabase(':memory:');
  const bus = openTestBus({ url: broker.url, host: name });
  const clock = { now: () => new Date() };
  const common = {
    database,
    host: name,
    availabilityZone: 'nova',
    enableNewServices: true,
    driverName: driver,
    clock,
    log,
  };
  const life = createHostLife({
    ...common,
    bus,
    checkStore: async () => await Promise.resolve({ ready: host.isStoreReady, findings: [] }),
    reportIntervalMs: 60_000,
    capabilitiesIntervalMs: 60_000,
    driverCheckIntervalMs: 5000,
    wait,
  });
  const endpoints = new Map(
    Object.entries(
      createHostEndpoints({ ...common, cast: (request, signal) => bus.cast(request, signal), life, loggers }),
    ),
  );
  const host: Host = {
    bus,
    life,
    database,
    isStoreReady: true,
    async stop() {
      await life.stop();
      await bus.close();
      await database.close();
    },
  };
  open.push(host);
  bus.serve(async (method, args, context) => {
    const endpoint = endpoints.get(method);
    if (endpoint === undefined) throw new Error(`${method} is not served here`);
    return await endpoint(args, context);
  });
  await expect.poll(() => bus.isConnected, patience).toBe(true);
  return host;
}

async function wait(delayMs: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(delayMs, undefined, { signal });
  } catch {
    throw cancelledBy(signal);
  }
}

async function begin(host: Host): Promise<void> {
  await host.life.register();
  await host.life.examine(new AbortController().signal);
  host.life.start();
}

const backup = {
  id: '11111111-2222-4333-8444-555555555555',
  user_id: 'u',
  project_id: 'p',
  volume_id: '22222222-2222-4333-8444-555555555555',
  host: 'exporter',
  availability_zone: 'nova',
  container: '11/11/11111111-2222-4333-8444-555555555555',
  parent_id: null,
  parent: null,
  status: 'available',
  fail_reason: null,
  size: 3,
  display_name: 'näme',
  display_description: null,
  service_metadata: 'volume_2_backup_1',
  service: driverName,
  object_count: 4,
  temp_volume_id: null,
  temp_snapshot_id: null,
  num_dependent_backups: 0,
  snapshot_id: null,
  data_timestamp: null,
  restore_volume_id: null,
  metadata: { owner: 'a' },
  encryption_key_id: null,
  created_at: '2026-11-22T09:13:02Z',
  updated_at: null,
  deleted_at: null,
  deleted: false,
};

test("Cinder's scheduler picks the host, by zone and driver, as soon as it has started", async () => {
  const host = await startHost('alive');
  await begin(host);
  expect(await ask({ op: 'pick', az: 'nova', driver: driverName })).toEqual({ host: 'alive' });
  expect(await ask({ op: 'pick', az: 'elsewhere', seconds: 0 })).toMatchObject({ host: null });
});

test('a host whose store does not work is not picked, and is picked when the store is back', async () => {
  const host = await startHost('recovering');
  host.isStoreReady = false;
  await begin(host);
  await ask({ op: 'wait_gone' });
  expect(await ask({ op: 'pick', known: 'recovering', seconds: 1 })).toEqual({
    host: null,
    states: expect.objectContaining({
      recovering: { backend_state: false, driver_name: driverName, availability_zone: 'nova' },
    }),
  });
  host.isStoreReady = true;
  expect(await ask({ op: 'pick' })).toEqual({ host: 'recovering' });
});

test('a scheduler that has forgotten everything asks, and knows the host again', async () => {
  const host = await startHost('remembered');
  await begin(host);
  expect(await ask({ op: 'pick' })).toEqual({ host: 'remembered' });
  await ask({ op: 'forget' });
  expect(await ask({ op: 'pick' })).toEqual({ host: 'remembered' });
});

test('a host that stops is not picked any more', async () => {
  const host = await startHost('leaving');
  await begin(host);
  expect(await ask({ op: 'pick' })).toEqual({ host: 'leaving' });
  await host.life.stop();
  expect(await ask({ op: 'wait_gone' })).toEqual({ left: [] });
});

test("Cinder's client asks for force delete, sets levels and reads them", async () => {
  await startHost('asked');
  expect(await ask({ op: 'force_delete', host: 'asked' })).toEqual({ result: true });
  await ask({ op: 'set_levels', host: 'asked', prefix: 'cinder', level: 'debug' });
  const levels = async () => await ask({ op: 'get_levels', host: 'asked', prefix: '' });
  await expect
    .poll(levels, patience)
    .toEqual({ levels: { 'cinder.backup.manager': 'DEBUG', oslo_messaging: 'INFO' } });
});

test("what Cinder's client exports, it can decode", async () => {
  await startHost('exporter');
  const { record, decoded } = await ask({ op: 'export', backup });
  expect(record).toMatchObject({ backup_service: driverName });
  const { parent: _parent, ...fields } = backup;
  expect(decoded).toEqual({ driver_info: {}, ...fields });
});

test('an export that fails raises the exception of Cinder in its client', async () => {
  await startHost('exporter');
  expect(await ask({ op: 'export', backup: { ...backup, status: 'error' } })).toEqual({
    error: 'InvalidBackup',
    text: 'Invalid backup: Export backup aborted, expected backup status available but got error.',
  });
});

test('an import goes from host to host until one has the driver', async () => {
  const [first, second] = [
    await startHost('first', 'cinder.backup.drivers.s3.S3BackupDriver'),
    await startHost('second'),
  ];
  await startHost('exporter');
  const { record } = await ask({ op: 'export', backup });
  const { backup_service: service, backup_url: url } = z
    .object({ backup_service: z.string(), backup_url: z.string() })
    .parse(record);
  const row = newBackup({ id: backup.id });
  await insertBackup(second.database.sql, row, now);
  const { parent: _parent, ...sent } = { ...backup, status: 'creating', service: null, size: 0 };
  await ask({ op: 'import_record', backup: sent, host: 'first', service, url, hosts: ['second'] });
  const found = async () =>
    await second.database.sql
      .selectFrom('backups')
      .select(['status', 'host', 'service', 'size', 'display_name'])
      .executeTakeFirst();
  await expect.poll(found, patience).toEqual({
    status: 'available',
    host: 'second',
    service: driverName,
    size: 3,
    display_name: 'näme',
  });
  expect(await first.database.sql.selectFrom('backups').selectAll().execute()).toEqual([]);
});
