/** What must not lose, repeat or block a request: messages that come twice, are damaged or too new, and a broker that dies. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import {
  addBackup,
  askForRestore,
  createMessage,
  payloadOf,
  publishTo,
  type AskedBackup,
} from '../../support/cloud-requests.ts';
import { createCloudRig, type CloudRig } from '../../support/cloud-rig.ts';
import { startRabbitMq, type RabbitServer } from '../../support/rabbitmq-server.ts';
import { createStorageGate } from '../../support/storage-gate.ts';
import { wireFixture } from '../../support/wire-fixtures.ts';

const patience = { timeout: 60_000, interval: 50 };
const volumeBytes = 2 * 2 ** 20;
const recordedBackup = '64543244-d974-4570-8647-08adbcd5828a';
const key = 'cinder-backup.refhost';

let broker: RabbitServer;
let rig: CloudRig;
const gate = createStorageGate();

beforeAll(async () => {
  broker = await startRabbitMq();
  rig = await createCloudRig({ brokerUrl: broker.url, wrap: gate.wrap });
  await rig.start();
});
afterAll(async () => {
  await rig?.close();
  await broker?.stop();
});
beforeEach(() => {
  rig.lines.length = 0;
});

const publish = (payload: string) => publishTo(rig, payload);
const statusOf = async (id: string) => (await rig.row(id)).status;
const logged = (text: string) => rig.lines.filter(({ msg }) => msg === text).length;

async function makeBackup(): Promise<AskedBackup> {
  const made = await addBackup(rig, volumeBytes);
  await publish(createMessage(made));
  await expect.poll(() => statusOf(made.backupId), patience).toBe('available');
  return made;
}

async function callWith(change: (inner: Record<string, unknown>) => void): Promise<Record<string, unknown>> {
  const queue = `reply_${randomUUID().replaceAll('-', '')}`;
  await rig.take(queue);
  const { payload_raw: payload } = wireFixture('export_record');
  const outer = z.record(z.string(), z.string()).parse(JSON.parse(payload));
  const inner = z.record(z.string(), z.unknown()).parse(JSON.parse(outer['oslo.message'] ?? ''));
  inner['_unique_id'] = randomUUID().replaceAll('-', '');
  inner['_reply_q'] = queue;
  change(inner);
  await publish(JSON.stringify({ ...outer, 'oslo.message': JSON.stringify(inner) }));
  const found: Readonly<Record<string, unknown>>[] = [];
  await expect.poll(async () => found.push(...(await rig.take(queue))), patience).toBeGreaterThan(0);
  return z.record(z.string(), z.unknown()).parse(JSON.parse(z.string().parse(found[0]?.['failure'])));
}

test('a message that the broker delivers twice is done once', async () => {
  const asked = await addBackup(rig, volumeBytes);
  const payload = createMessage(asked);
  await publish(payload);
  await publish(payload);
  await expect.poll(() => statusOf(asked.backupId), patience).toBe('available');
  await expect
    .poll(() => logged('a request was delivered twice: the second one is dropped'), patience)
    .toBe(1);
  expect(logged('operation started')).toBe(1);
});

test('a request that is sent twice does not touch what the first has made', async () => {
  const asked = await makeBackup();
  const row = await rig.row(asked.backupId);
  await publish(createMessage(asked));
  await expect.poll(() => logged('operation failed'), patience).toBe(1);
  expect(await rig.row(asked.backupId)).toEqual(row);
});

test.each([
  ['no JSON', 'not JSON at all'],
  ['no envelope of ours', '{"oslo.version": "2.0", "oslo.message": "[1, 2]"}'],
  ['no method', '{"oslo.version": "2.0", "oslo.message": "{\\"args\\": {}}"}'],
  ['an envelope of another version', '{"oslo.version": "9.0", "oslo.message": "{}"}'],
])('%s is dropped, and the next request is done', async (_what, payload) => {
  await publish(payload);
  await makeBackup();
  expect(logged('a message is no request: it is dropped')).toBe(1);
});

test.each([
  ['without a backup', (payload: string) => payload.replace('\\"backup\\":', '\\"other\\":')],
  ['with an id that is no id', (payload: string) => payload.replaceAll(recordedBackup, '../../etc/passwd')],
])('a cast %s is refused in the log, and the next request is done', async (_what, change) => {
  await publish(change(payloadOf('create_backup.full', {})));
  await expect.poll(() => logged('a request has failed'), patience).toBe(1);
  await makeBackup();
});

test('a call of a newer interface is answered with UnsupportedVersion', async () => {
  const failure = await callWith((inner) => (inner['version'] = '2.9'));
  expect(failure).toMatchObject({ class: 'UnsupportedVersion', module: 'oslo_messaging.rpc.dispatcher' });
});

test('a call with an object of a later major version is answered with IncompatibleObjectVersion', async () => {
  const failure = await callWith((inner) => {
    const args = z.object({ backup: z.record(z.string(), z.unknown()) }).parse(inner['args']);
    inner['args'] = { backup: { ...args.backup, 'versioned_object.version': '2.0' } };
  });
  expect(failure).toMatchObject({
    class: 'IncompatibleObjectVersion',
    module: 'oslo_versionedobjects.exception',
    kwargs: { objname: 'Backup', objver: '2.0' },
  });
});

test('a cast of a newer interface is refused in the log, and the next request is done', async () => {
  await publish(payloadOf('create_backup.full', { '\\"version\\": \\"2.0\\"': '\\"version\\": \\"3.0\\"' }));
  await expect
    .poll(() => logged('a request of a version that is not served: it is refused'), patience)
    .toBe(1);
  await makeBackup();
});

test('a backup object with fields of a newer minor version is taken', async () => {
  const asked = await addBackup(rig, volumeBytes);
  const payload = createMessage(asked, {
    '\\"versioned_object.version\\": \\"1.7\\"': '\\"versioned_object.version\\": \\"1.8\\"',
    '\\"fail_reason\\": null': '\\"fail_reason\\": null, \\"of_tomorrow\\": {\\"a\\": 1}',
  });
  expect(payload).toContain('of_tomorrow');
  await publish(payload);
  await expect.poll(() => statusOf(asked.backupId), patience).toBe('available');
});

test('a broker that is killed and started again while a backup is made does not stop it', async () => {
  const asked = await addBackup(rig, volumeBytes);
  const hold = gate.hold('createSnapshot');
  await publish(createMessage(asked));
  await hold.reached;
  await broker.kill();
  hold.open();
  await expect.poll(() => statusOf(asked.backupId), patience).toBe('available');
  await broker.restart();
  await rig.waitUntilServed();
  await makeBackup();
});

test('a broker that is killed and started again while a backup is restored does not stop it', async () => {
  const { backupId, volumeId } = await makeBackup();
  const hold = gate.hold('openTarget');
  const target = await askForRestore(rig, backupId, volumeBytes);
  await hold.reached;
  await broker.kill();
  await broker.restart();
  hold.open();
  await expect.poll(() => statusOf(backupId), patience).toBe('available');
  expect((await rig.readVolume(target)).equals(await rig.readVolume(volumeId))).toBe(true);
  await rig.waitUntilServed();
  await makeBackup();
});

test('a stop lets the running backup end; what was sent meanwhile is done after the next start', async () => {
  const running = await addBackup(rig, volumeBytes);
  const hold = gate.hold('createSnapshot');
  await publish(createMessage(running));
  await hold.reached;
  const stopping = rig.stop();
  await expect.poll(async () => (await broker.queues()).get(key)?.consumers, patience).toBe(0);
  const late = await addBackup(rig, volumeBytes);
  await publish(createMessage(late));
  hold.open();
  await stopping;
  expect(await statusOf(running.backupId)).toBe('available');
  expect(await statusOf(late.backupId)).toBe('creating');
  await rig.start();
  await expect.poll(() => statusOf(late.backupId), patience).toBe('available');
});
