/**
 * The service beside Cinder as a process: killed as a power failure kills it, and told to stop. After the next start no
 * row is stuck, and the next request is done.
 */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { getVolume } from '../../../src/database/volumes.ts';
import {
  addBackup,
  askForDelete,
  askForRestore,
  createMessage,
  publishTo,
} from '../../support/cloud-requests.ts';
import { createCloudRig, type CloudProcess, type CloudRig } from '../../support/cloud-rig.ts';
import { startRabbitMq, type RabbitServer } from '../../support/rabbitmq-server.ts';
import { createStorageGate, type GatedCall } from '../../support/storage-gate.ts';

const patience = { timeout: 60_000, interval: 50 };
const volumeBytes = 2 * 2 ** 20;
const gate = createStorageGate();
let broker: RabbitServer;
let rig: CloudRig;
let service: CloudProcess;

beforeAll(async () => {
  broker = await startRabbitMq();
  rig = await createCloudRig({
    brokerUrl: broker.url,
    wrap: gate.wrap,
    general: 'graceful_shutdown_timeout = 20',
  });
});
afterAll(async () => {
  await rig?.close();
  await broker?.stop();
});
beforeEach(async () => {
  service = await rig.spawn();
});
afterEach(async () => {
  await service.kill();
});

const statusOf = async (id: string) => (await rig.row(id)).status;

async function makeBackup() {
  const asked = await addBackup(rig, volumeBytes);
  await publishTo(rig, createMessage(asked));
  await expect.poll(() => statusOf(asked.backupId), patience).toBe('available');
  return asked;
}

async function killAndStart(hold: { open(): void }): Promise<void> {
  await service.kill();
  hold.open();
  service = await rig.spawn();
}

test.each<GatedCall>(['createSnapshot', 'openSnapshot'])(
  'killed in %s of a backup: the backup is in error, its volume is free, the next one is made',
  async (call) => {
    const asked = await addBackup(rig, volumeBytes);
    const hold = gate.hold(call);
    await publishTo(rig, createMessage(asked));
    await hold.reached;
    await killAndStart(hold);
    await expect.poll(() => statusOf(asked.backupId), patience).toBe('error');
    expect((await rig.row(asked.backupId)).failReason).toBe('incomplete backup reset on manager restart');
    expect((await getVolume(rig.database.sql, asked.volumeId)).status).toBe('available');
    await makeBackup();
  },
);

test('killed in a restore: the volume is in error_restoring, the backup can be restored again', async () => {
  const { backupId, volumeId } = await makeBackup();
  const hold = gate.hold('openTarget');
  const target = await askForRestore(rig, backupId, volumeBytes);
  await hold.reached;
  await killAndStart(hold);
  await expect.poll(() => statusOf(backupId), patience).toBe('available');
  expect((await getVolume(rig.database.sql, target)).status).toBe('error_restoring');
  const again = await askForRestore(rig, backupId, volumeBytes);
  await expect
    .poll(async () => (await getVolume(rig.database.sql, again)).status, patience)
    .toBe('available');
  expect((await rig.readVolume(again)).equals(await rig.readVolume(volumeId))).toBe(true);
});

test('killed in a deletion: the deletion goes on', async () => {
  const { backupId } = await makeBackup();
  const hold = gate.hold('deleteSnapshot');
  await askForDelete(rig, backupId);
  await hold.reached;
  await killAndStart(hold);
  await expect.poll(() => statusOf(backupId), patience).toBe('deleted');
});

test('told to stop: the running backup ends, then the process, with 0', async () => {
  const asked = await addBackup(rig, volumeBytes);
  const hold = gate.hold('openSnapshot');
  await publishTo(rig, createMessage(asked));
  await hold.reached;
  service.signal('SIGTERM');
  await expect.poll(() => service.log(), patience).toContain('running operations get time to end');
  hold.open();
  expect(await service.ended()).toBe(0);
  expect(await statusOf(asked.backupId)).toBe('available');
});

test('told to stop twice: it ends at once, and the next start puts the backup right', async () => {
  const asked = await addBackup(rig, volumeBytes);
  const hold = gate.hold('openSnapshot');
  await publishTo(rig, createMessage(asked));
  await hold.reached;
  service.signal('SIGTERM');
  await expect.poll(() => service.log(), patience).toContain('running operations get time to end');
  service.signal('SIGTERM');
  expect(await service.ended()).toBe(1);
  expect(await statusOf(asked.backupId)).toBe('creating');
  hold.open();
  service = await rig.spawn();
  await expect.poll(() => statusOf(asked.backupId), patience).toBe('error');
});

test('a REST port that is taken keeps the service from starting, and its row from looking alive', async () => {
  service.signal('SIGTERM');
  await service.ended();
  const config = await readFile(rig.configFile, 'utf8');
  const port = Number(/^rest_port = (\d+)$/mu.exec(config)?.[1]);
  const taken = createServer().listen(port, '127.0.0.1');
  await once(taken, 'listening');
  const seen = async () =>
    (await rig.database.sql.selectFrom('services').selectAll().executeTakeFirstOrThrow()).updated_at;
  const before = await seen();
  await sleep(1100);
  await expect(rig.spawn()).rejects.toThrow(
    /ended with 2.*cannot listen.*choose another \[delta\] rest_port/su,
  );
  expect(await seen()).toEqual(before);
  taken.close();
  await once(taken, 'close');
  service = await rig.spawn();
});

test('every line about a request carries its id', async () => {
  const { backupId } = await makeBackup();
  await expect.poll(() => service.log(), patience).toContain('operation finished');
  const about = service
    .log()
    .split('\n')
    .filter((line) => line.includes(backupId));
  expect(about.length).toBeGreaterThan(2);
  for (const line of about) expect(line).toContain('"request_id":"req-23501d53-28d7-4f26-b7be-df7b87cc728a"');
  expect(service.log()).not.toContain('gAAAAA');
});
