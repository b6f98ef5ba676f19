/** What must not lose, repeat or block a request: messages that come twice, are damaged or too new, and a broker that dies. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import type { VolumeBackend } from '../../../src/agent/volume-backend.ts';
import { createCloudRig, type CloudRig } from '../../support/cloud-rig.ts';
import { startRabbitMq, type RabbitServer } from '../../support/rabbitmq-server.ts';
import { wireFixture } from '../../support/wire-fixtures.ts';

const patience = { timeout: 60_000, interval: 50 };
const volumeBytes = 2 * 2 ** 20;
const recordedBackup = '64543244-d974-4570-8647-08adbcd5828a';
const recordedVolume = 'bdbc1081-d9a5-444f-b987-3886923383d9';
const recordedTarget = 'd604f2e2-9e80-40c5-8067-b432cdbf3104';
const key = 'cinder-backup.refhost';

let broker: RabbitServer;
let rig: CloudRig;
const gate = createGate();

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

/** Holds the storage: before a snapshot is made, before a target is opened. */
function createGate() {
  let held: Promise<void> | undefined;
  let onReached: (() => void) | undefined;
  const pass = async () => {
    onReached?.();
    await held;
  };
  return {
    wrap: (backend: VolumeBackend): VolumeBackend => ({
      ...backend,
      info: backend.info,
      async createSnapshot(volume, snapshot, signal) {
        await pass();
        return await backend.createSnapshot(volume, snapshot, signal);
      },
      async openTarget(volume) {
        await pass();
        return await backend.openTarget(volume);
      },
    }),
    hold() {
      const opened = Promise.withResolvers<void>();
      const reached = Promise.withResolvers<void>();
      held = opened.promise;
      onReached = reached.resolve;
      const open = () => {
        held = undefined;
        opened.resolve();
      };
      return { reached: reached.promise, open };
    },
  };
}

type Changes = { readonly [recorded: string]: string };

/** A recorded message about other rows, as a message that was never sent. */
function payloadOf(name: string, changes: Changes, unique = randomUUID().replaceAll('-', '')): string {
  let { payload_raw: payload } = wireFixture(name);
  for (const [recorded, other] of Object.entries(changes)) payload = payload.replaceAll(recorded, other);
  return payload.replace(/(_unique_id\\": \\")[0-9a-f]{32}/u, `$1${unique}`);
}

const publish = (payload: string) => rig.publish({ exchange: 'openstack', routingKey: key, payload });

/** The rows of a backup that cinder-api has asked for. */
async function addRows(): Promise<{ readonly backupId: string; readonly volumeId: string }> {
  const [backupId, volumeId, now] = [randomUUID(), randomUUID(), new Date()];
  const common = { created_at: now, deleted: false, user_id: 'u', project_id: 'p', size: 1 };
  await rig.writeVolume(volumeId, volumeBytes, 1);
  const { sql } = rig.database;
  await sql
    .insertInto('volumes')
    .values({
      ...common,
      id: volumeId,
      host: 'refhost@ceph#ceph',
      status: 'backing-up',
      previous_status: 'available',
    })
    .execute();
  await sql
    .insertInto('backups')
    .values({
      ...common,
      id: backupId,
      volume_id: volumeId,
      host: 'refhost',
      status: 'creating',
      data_timestamp: now,
    })
    .execute();
  return { backupId, volumeId };
}

const statusOf = async (id: string) => (await rig.row(id)).status;
const logged = (text: string) => rig.lines.filter(({ msg }) => msg === text).length;

async function makeBackup(): Promise<{ readonly backupId: string; readonly volumeId: string }> {
  const made = await addRows();
  await publish(
    payloadOf('create_backup.full', { [recordedBackup]: made.backupId, [recordedVolume]: made.volumeId }),
  );
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
  const { backupId, volumeId } = await addRows();
  const payload = payloadOf('create_backup.full', { [recordedBackup]: backupId, [recordedVolume]: volumeId });
  await publish(payload);
  await publish(payload);
  await expect.poll(() => statusOf(backupId), patience).toBe('available');
  await expect
    .poll(() => logged('a request was delivered twice: the second one is dropped'), patience)
    .toBe(1);
  expect(logged('operation started')).toBe(1);
});

test('a request that is sent twice does not touch what the first has made', async () => {
  const { backupId, volumeId } = await makeBackup();
  const row = await rig.row(backupId);
  await publish(payloadOf('create_backup.full', { [recordedBackup]: backupId, [recordedVolume]: volumeId }));
  await expect.poll(() => logged('operation failed'), patience).toBe(1);
  expect(await rig.row(backupId)).toEqual(row);
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
  const { backupId, volumeId } = await addRows();
  const newer = { '\\"versioned_object.version\\": \\"1.7\\"': '\\"versioned_object.version\\": \\"1.8\\"' };
  const payload = payloadOf('create_backup.full', {
    [recordedBackup]: backupId,
    [recordedVolume]: volumeId,
    ...newer,
    '\\"fail_reason\\": null': '\\"fail_reason\\": null, \\"of_tomorrow\\": {\\"a\\": 1}',
  });
  await publish(payload);
  await expect.poll(() => statusOf(backupId), patience).toBe('available');
});

test('a broker that is killed and started again while a backup is made does not stop it', async () => {
  const { backupId, volumeId } = await addRows();
  const hold = gate.hold();
  await publish(payloadOf('create_backup.full', { [recordedBackup]: backupId, [recordedVolume]: volumeId }));
  await hold.reached;
  await broker.kill();
  hold.open();
  await expect.poll(() => statusOf(backupId), patience).toBe('available');
  await broker.restart();
  await rig.waitUntilServed();
  await makeBackup();
});

test('a broker that is killed and started again while a backup is restored does not stop it', async () => {
  const { backupId, volumeId } = await makeBackup();
  const target = randomUUID();
  await rig.writeVolume(target, volumeBytes, 9);
  const { sql } = rig.database;
  await sql
    .insertInto('volumes')
    .values({
      id: target,
      created_at: new Date(),
      deleted: false,
      host: 'refhost@ceph#ceph',
      status: 'restoring-backup',
      size: 1,
    })
    .execute();
  const taken = { status: 'restoring', restore_volume_id: target };
  await sql.updateTable('backups').set(taken).where('id', '=', backupId).execute();
  const hold = gate.hold();
  await publish(
    payloadOf('restore_backup.existing-volume', { [recordedBackup]: backupId, [recordedTarget]: target }),
  );
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
  const running = await addRows();
  const hold = gate.hold();
  const changesOf = ({ backupId, volumeId }: typeof running): Changes => ({
    [recordedBackup]: backupId,
    [recordedVolume]: volumeId,
  });
  await publish(payloadOf('create_backup.full', changesOf(running)));
  await hold.reached;
  const stopping = rig.stop();
  await expect.poll(async () => (await broker.queues()).get(key)?.consumers, patience).toBe(0);
  const late = await addRows();
  await publish(payloadOf('create_backup.full', changesOf(late)));
  hold.open();
  await stopping;
  expect(await statusOf(running.backupId)).toBe('available');
  expect(await statusOf(late.backupId)).toBe('creating');
  await rig.start();
  await expect.poll(() => statusOf(late.backupId), patience).toBe('available');
});
