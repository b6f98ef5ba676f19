/** The bus against real oslo.messaging clients and servers, over a real RabbitMQ. */
import { fileURLToPath } from 'node:url';
import { connect } from 'amqplib';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { adminContext, type BusContext } from '../../../src/bus/bus-context.ts';
import { cinderError } from '../../../src/bus/cinder-exceptions.ts';
import { readBackup } from '../../../src/bus/cinder-objects.ts';
import type { MessageBus } from '../../../src/bus/message-bus.ts';
import type { Dispatch } from '../../../src/bus/rpc-server.ts';
import type { EntityMap } from '../../../src/bus/versioned-object.ts';
import type { Backup } from '../../../src/model/backup.ts';
import { BackupError } from '../../../src/model/errors.ts';
import { openTestBus } from '../../support/message-bus.ts';
import { startPythonPeer, type PythonPeer } from '../../support/python-peer.ts';
import { startRabbitMq, type RabbitServer } from '../../support/rabbitmq-server.ts';

const remote = z.strictObject({
  crash: z.string().optional(),
  result: z.unknown().optional(),
  error: z
    .object({
      class: z.string(),
      module: z.string().optional(),
      text: z.string().optional(),
      bases: z.array(z.string()).optional(),
      kwargs: z.record(z.string(), z.unknown()).nullish(),
      msg: z.string().nullish(),
    })
    .optional(),
});

type Seen = { readonly method: string; readonly args: EntityMap; readonly context: BusContext };

let broker: RabbitServer;
let peer: PythonPeer;
const open: MessageBus[] = [];

beforeAll(async () => {
  broker = await startRabbitMq();
  peer = startPeer(broker.url, {}, true);
});

afterEach(async () => {
  for (const bus of open.splice(0)) await bus.close();
});

afterAll(async () => {
  await peer.close();
  await broker.stop();
});

function startPeer(url: string, options: Readonly<Record<string, unknown>> = {}, cinder = false): PythonPeer {
  const script = fileURLToPath(new URL('oslo_peer.py', import.meta.url));
  return startPythonPeer(script, JSON.stringify({ url, options, cinder }));
}

function openBus(host: string, rabbit = '', url = broker.url): MessageBus {
  const bus = openTestBus({ url, host, rabbit });
  open.push(bus);
  return bus;
}

/** A bus that serves `dispatch`, and notes what it was asked. Returns when its queues are there. */
async function serve(
  host: string,
  dispatch: Dispatch = () => Promise.resolve(null),
  options = '',
  url = broker.url,
) {
  const bus = openBus(host, options, url);
  const seen: Seen[] = [];
  bus.serve((method, args, context) => {
    seen.push({ method, args, context });
    return dispatch(method, args, context);
  });
  await expect.poll(() => bus.isConnected, patience).toBe(true);
  return { bus, seen };
}

const patience = { timeout: 30_000 };

async function ask(request: Readonly<Record<string, unknown>>, from = peer) {
  const { crash, ...answer } = remote.parse(await from.ask({ topic: 'cinder-backup', ...request }));
  if (crash !== undefined) throw new Error(crash);
  return answer;
}

const call = (server: string, method: string, more: Readonly<Record<string, unknown>> = {}) =>
  ask({ op: 'call', server, method, timeout: 20, ...more });

test('a call gets the result, and the context comes with it', async () => {
  const { seen } = await serve('call', (_method, args) =>
    Promise.resolve({ got: args['number'] ?? null, list: [1, 'é'] }),
  );
  const answer = await ask({
    op: 'call',
    server: 'call',
    method: 'export_record',
    args: { number: 7 },
    timeout: 20,
  });
  expect(answer).toEqual({ result: { got: 7, list: [1, 'é'] } });
  expect(seen).toMatchObject([
    {
      method: 'export_record',
      context: {
        requestId: 'req-7f1a1b0e-0000-4000-8000-000000000001',
        projectId: 'b879f831e52c450dafd959b27d64fdee',
        authToken: 'a-secret-token',
      },
    },
  ]);
});

test('a call without a result gets None', async () => {
  await serve('none');
  expect(await ask({ op: 'call', server: 'none', method: 'reset_status', timeout: 20 })).toEqual({
    result: null,
  });
});

test('casts reach one host, or any, or by fanout all', async () => {
  const one = await serve('one');
  const two = await serve('two');
  await ask({ op: 'cast', server: 'one', method: 'delete_backup', args: { n: 1 } });
  await expect.poll(() => one.seen.length, patience).toBe(1);
  await ask({ op: 'cast', method: 'delete_backup', args: { n: 2 } });
  await expect.poll(() => one.seen.length + two.seen.length, patience).toBe(2);
  await ask({ op: 'cast', fanout: true, method: 'publish_service_capabilities', version: '2.2' });
  await expect.poll(() => one.seen.length + two.seen.length, patience).toBe(4);
  expect([one.seen.at(-1)?.method, two.seen.at(-1)?.method]).toEqual([
    'publish_service_capabilities',
    'publish_service_capabilities',
  ]);
});

test("our exceptions are raised as Cinder's own classes, with text, code and arguments", async () => {
  await serve('failing', (method) => {
    if (method === 'export_record') throw cinderError('InvalidBackup', { reason: 'it is not available' });
    if (method === 'delete_backup') throw cinderError('BackupNotFound', { backup_id: 'b1' });
    throw new BackupError('store-unavailable', 'the store at swift:8080 does not answer');
  });
  const invalid = await call('failing', 'export_record');
  expect(invalid.error).toMatchObject({
    class: 'InvalidBackup_Remote',
    module: 'cinder.exception_Remote',
    msg: 'Invalid backup: it is not available',
    kwargs: { reason: 'it is not available', code: 400 },
  });
  expect(invalid.error?.bases).toEqual(
    expect.arrayContaining(['InvalidBackup', 'Invalid', 'CinderException']),
  );
  expect((await call('failing', 'delete_backup')).error).toMatchObject({
    msg: 'Backup b1 could not be found.',
    kwargs: { code: 404 },
  });
  expect((await call('failing', 'restore_backup')).error).toMatchObject({
    class: 'BackupDriverException_Remote',
    msg: 'Backup driver reported an error: the store at swift:8080 does not answer',
  });
});

const refusal = async (more: Readonly<Record<string, unknown>>) =>
  (await call('versions', 'export_record', more)).error?.text ?? '';

test('a newer version, another major version, a namespace and an unknown method are refused as oslo refuses them', async () => {
  const { seen } = await serve('versions');
  expect(await refusal({ version: '2.5' })).toContain(
    'UnsupportedVersion Endpoint does not support RPC version 2.5',
  );
  expect(await refusal({ version: '1.3' })).toContain('UnsupportedVersion');
  expect(await refusal({ namespace: 'other' })).toContain('UnsupportedVersion');
  expect(await refusal({ method: 'no_such' })).toContain(
    'NoSuchMethod Endpoint does not support RPC method no_such',
  );
  expect(seen).toEqual([]);
});

test('a caller that watches for signs of life waits as long as they come', async () => {
  const release = Promise.withResolvers<null>();
  await serve('monitored', () => release.promise);
  const id = 'monitored';
  await ask({
    op: 'start_call',
    id,
    server: 'monitored',
    method: 'export_record',
    timeout: 60,
    call_monitor_timeout: 6,
  });
  expect((await ask({ op: 'wait_call', id, seconds: 14 })).error?.class).toBe('StillWaiting');
  release.resolve(null);
  expect(await ask({ op: 'wait_call', id })).toEqual({ result: null });
});

test("a real Backup of Cinder's arrives with its fields, also at the version of an older peer", async () => {
  const { seen } = await serve('objects');
  const backup = {
    id: '64543244-d974-4570-8647-08adbcd5828a',
    user_id: 'u',
    project_id: 'p',
    volume_id: 'bdbc1081-d9a5-444f-b987-3886923383d9',
    host: 'objects',
    status: 'creating',
    size: 3,
    display_name: 'näme',
    parent_id: null,
    created_at: '2026-11-22T09:12:16+00:00',
    data_timestamp: '2026-11-22T09:12:16+00:00',
    metadata: { k: 'v' },
  };
  await ask({ op: 'cast', server: 'objects', method: 'create_backup', backup });
  await ask({ op: 'cast', server: 'objects', method: 'create_backup', backup, backup_version: '1.6' });
  await expect.poll(() => seen.length, patience).toBe(2);
  for (const { args } of seen) {
    const read = readBackup(args['backup']);
    expect(read.backup).toMatchObject({
      id: backup.id,
      sizeGiB: 3,
      name: 'näme',
      createdAt: new Date('2026-11-22T09:12:16Z'),
    });
    expect(read.metadata).toEqual({ k: 'v' });
  }
  expect(seen.map(({ args }) => args['backup'])).toMatchObject([{ version: '1.7' }, { version: '1.6' }]);
});

test('our calls and casts are served by oslo.messaging, and its exceptions become errors', async () => {
  await peer.ask({ op: 'serve', topic: 'cinder-volume.node@ceph', server: 'node', version: '3.17' });
  const bus = openBus('client');
  const context = adminContext('req-1', new Date('2026-11-22T10:00:00Z'));
  const target = { kind: 'server', topic: 'cinder-volume.node@ceph', server: 'node' } as const;
  const signal = AbortSignal.timeout(60_000);
  const callPeer = (method: string, args: EntityMap, seconds?: number) =>
    bus.call({ target, method, args, version: '3.0', context }, signal, seconds);
  expect(await callPeer('echo', { a: [1, { b: null }] })).toEqual({
    kwargs: { a: [1, { b: null }] },
    request_id: 'req-1',
    token: null,
  });
  await expect(callPeer('fail', { reason: 'broken' })).rejects.toMatchObject({
    code: 'state-invalid',
    message: 'fail failed at the other end: Invalid volume: broken',
  });
  await expect(callPeer('explode', {})).rejects.toMatchObject({
    code: 'peer-failed',
    details: { remoteClass: 'builtins.ZeroDivisionError' },
  });
  await expect(callPeer('missing', {})).rejects.toMatchObject({ code: 'version-unsupported' });
  await expect(callPeer('slow', { seconds: 3 }, 1)).rejects.toMatchObject({
    code: 'bus-unavailable',
    message: expect.stringContaining('did not answer slow within 1 s'),
  });
  await bus.cast({ target, method: 'note', args: { n: 1 }, version: '3.0', context }, signal);
  await bus.cast(
    {
      target: { kind: 'fanout', topic: target.topic },
      method: 'note',
      args: { n: 2 },
      version: '3.0',
      context,
    },
    signal,
  );
  await bus.cast(
    {
      target: { kind: 'topic', topic: target.topic },
      method: 'note',
      args: { n: 3 },
      version: '3.0',
      context,
    },
    signal,
  );
  const { received } = z
    .object({ received: z.array(z.object({ kwargs: z.object({ n: z.number() }) })) })
    .parse(await peer.ask({ op: 'wait_received', count: 3 }));
  expect(received.map(({ kwargs }) => kwargs.n)).toEqual(expect.arrayContaining([1, 2, 3]));
});

const usedBackup: Backup = {
  id: 'b1',
  projectId: 'p',
  userId: 'u',
  volumeId: 'v',
  snapshotId: null,
  parentId: null,
  restoreVolumeId: null,
  name: 'n',
  description: null,
  host: 'h',
  availabilityZone: null,
  status: 'creating',
  failReason: null,
  container: null,
  prefix: null,
  service: null,
  sizeGiB: 1,
  objectCount: null,
  dependents: 0,
  dataTimestamp: null,
  encryptionKeyId: null,
  createdAt: new Date('2026-11-22T09:12:16Z'),
  updatedAt: null,
  deleted: false,
};

test('notifications are kept for a listener that comes later, without the token', async () => {
  const bus = openBus('notifier');
  const context = {
    ...adminContext('req-2', new Date(0)),
    items: { request_id: 'req-2', auth_token: 'a-secret-token' },
  };
  bus.notifier.notifyBackup(context, usedBackup, 'create.start');
  bus.notifier.notifyBackup(context, usedBackup, 'createprogress', { backup_percent: 12.5 });
  await bus.notifier.settle();
  expect((await broker.queues()).get('notifications.info')?.messages).toBe(2);
  await peer.ask({ op: 'listen' });
  const { notified } = z
    .object({ notified: z.array(z.record(z.string(), z.unknown())) })
    .parse(await peer.ask({ op: 'wait_notified', count: 2 }));
  expect(notified).toMatchObject([
    {
      publisher_id: 'backup.notifier',
      event_type: 'backup.create.start',
      payload: { backup_id: 'b1', tenant_id: 'p', created_at: '2026-11-22T09:12:16+00:00' },
    },
    { event_type: 'backup.createprogress', payload: { backup_percent: 12.5 }, context: { auth_token: null } },
  ]);
});

test('a notification queue that others have declared otherwise takes no reply and no connection with it', async () => {
  const connection = await connect(broker.url.replace('rabbit:', 'amqp:'));
  const channel = await connection.createChannel();
  await channel.assertQueue('elsewhere.info', {
    durable: false,
    autoDelete: true,
    arguments: { 'x-expires': 60_000 },
  });
  const bus = openTestBus({ url: broker.url, host: 'refused', notifications: 'topics = elsewhere' });
  open.push(bus);
  bus.serve((_method, args) => Promise.resolve(args['n'] ?? null));
  await expect.poll(() => bus.isConnected, patience).toBe(true);
  const context = adminContext('req-4', new Date(0));
  let away = 0;
  const watch = setInterval(() => {
    away += Number(!bus.isConnected);
  }, 5);
  for (let n = 0; n < 20; n += 1) {
    bus.notifier.notifyBackup(context, usedBackup, 'createprogress', { backup_percent: n });
    expect(await call('refused', 'export_record', { args: { n } })).toEqual({ result: n });
  }
  clearInterval(watch);
  await connection.close();
  expect(away).toBe(0);
});

test('requests that came while no host was there are handled at the next start', async () => {
  const first = await serve('absent');
  await first.bus.drain(AbortSignal.timeout(5000));
  await first.bus.close();
  await ask({ op: 'cast', server: 'absent', method: 'delete_backup', args: { n: 1 } });
  const second = await serve('absent');
  await expect.poll(() => second.seen.length, patience).toBe(1);
  expect(first.seen).toEqual([]);
});

test('a drain lets requests finish and answer, and takes no new ones', async () => {
  const release = Promise.withResolvers<null>();
  const { bus, seen } = await serve('drained', () => release.promise);
  await ask({ op: 'start_call', id: 'drained', server: 'drained', method: 'export_record', timeout: 60 });
  await expect.poll(() => seen.length, patience).toBe(1);
  const drained = bus.drain(AbortSignal.timeout(60_000));
  await expect
    .poll(async () => (await broker.queues()).get('cinder-backup.drained')?.consumers, patience)
    .toBe(0);
  await ask({ op: 'cast', server: 'drained', method: 'delete_backup' });
  release.resolve(null);
  await drained;
  expect(await ask({ op: 'wait_call', id: 'drained' })).toEqual({ result: null });
  expect(seen).toHaveLength(1);
});

test('our fanout queue is gone after a close, our own queue stays', async () => {
  const { bus } = await serve('leaving');
  const fanoutQueues = async () =>
    [...(await broker.queues()).keys()].filter((name) => name.startsWith('cinder-backup_fanout_'));
  expect(await fanoutQueues()).toHaveLength(1);
  await bus.close();
  expect(await fanoutQueues()).toEqual([]);
  expect((await broker.queues()).has('cinder-backup.leaving')).toBe(true);
});

test('a queue that is deleted under us is declared again', async () => {
  const { seen } = await serve('deleted');
  await broker.ctl('delete_queue', 'cinder-backup.deleted');
  await expect
    .poll(async () => (await broker.queues()).get('cinder-backup.deleted')?.consumers, patience)
    .toBe(1);
  await ask({ op: 'cast', server: 'deleted', method: 'delete_backup' });
  await expect.poll(() => seen.length, patience).toBe(1);
});

test.each([
  ['amqp_durable_queues', { amqp_durable_queues: true }],
  ['rabbit_quorum_queue', { rabbit_quorum_queue: true }],
  ['amqp_auto_delete', { amqp_auto_delete: true }],
  ['rabbit_ha_queues', { rabbit_ha_queues: true }],
])('with %s our queues are those that oslo.messaging declares', async (name, options) => {
  const vhost = `vhost-${name}`;
  await broker.ctl('add_vhost', vhost);
  await broker.ctl('set_permissions', '-p', vhost, 'guest', '.*', '.*', '.*');
  const url = `${broker.url}${vhost}`;
  const other = startPeer(url, options);
  try {
    // Python declares first; a difference would be refused by the broker.
    await other.ask({ op: 'serve', topic: 'cinder-backup', server: 'same', version: '2.3' });
    const { bus } = await serve('same', () => Promise.resolve('ours'), `${name} = true`, url);
    const listed = await broker.ctl('list_consumers', '-p', vhost, 'queue_name');
    const consumersOf = (queue: string) => listed.split('\n').filter((line) => line === queue).length;
    expect([consumersOf('cinder-backup.same'), consumersOf('cinder-backup')]).toEqual([2, 2]);
    await bus.close();
  } finally {
    await other.close();
  }
});

test('a connection that is cut in the middle of a call is made again, and the reply still comes', async () => {
  const release = Promise.withResolvers<null>();
  const { seen } = await serve('cut', () => release.promise);
  await ask({ op: 'start_call', id: 'cut', server: 'cut', method: 'export_record', timeout: 60 });
  await expect.poll(() => seen.length, patience).toBe(1);
  await broker.ctl('close_all_connections', 'test');
  release.resolve(null);
  expect(await ask({ op: 'wait_call', id: 'cut', seconds: 60 })).toEqual({ result: null });
});

test('a broker that is killed and started again finds us, at the next host of the list too', async () => {
  // The first host refuses every connection.
  const url = broker.url.replace('rabbit://', 'rabbit://guest:guest@127.0.0.1:1,');
  const { bus, seen } = await serve('killed', () => Promise.resolve('back'), '', url);
  expect((await ask({ op: 'call', server: 'killed', method: 'export_record', timeout: 20 })).result).toBe(
    'back',
  );
  await broker.kill();
  await expect.poll(() => bus.isConnected, patience).toBe(false);
  bus.notifier.notifyBackup(adminContext('req-3', new Date(0)), usedBackup, 'create.end');
  const target = { kind: 'server', topic: 'cinder-backup', server: 'killed' } as const;
  const sent = bus.cast(
    {
      target,
      method: 'delete_backup',
      args: {},
      version: '2.0',
      context: adminContext('req-4', new Date(0)),
    },
    AbortSignal.timeout(120_000),
  );
  await broker.restart();
  await expect.poll(() => bus.isConnected, patience).toBe(true);
  await sent;
  await expect.poll(() => seen.some(({ context }) => context.requestId === 'req-4'), patience).toBe(true);
  await bus.notifier.settle();
  const answer = await ask({ op: 'call', server: 'killed', method: 'export_record', timeout: 60 });
  expect(answer.result).toBe('back');
});
