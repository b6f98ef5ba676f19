/** Backups of encrypted volumes: requests over a real RabbitMQ, keys in a real Barbican, looked at with castellan. */
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import type { BusContext } from '../../../src/bus/bus-context.ts';
import { renderContext } from '../../../src/bus/rpc-message.ts';
import { getVolume } from '../../../src/database/volumes.ts';
import { startBarbican, type BarbicanServer } from '../../support/barbican-server.ts';
import { createCloudRig, type CloudRig } from '../../support/cloud-rig.ts';
import { freePorts } from '../../support/free-ports.ts';
import { startKeystone, type KeystoneServer } from '../../support/keystone-server.ts';
import { startPythonPeer, type PythonPeer } from '../../support/python-peer.ts';
import { startRabbitMq, type RabbitServer } from '../../support/rabbitmq-server.ts';
import { userContext } from '../../support/user-context.ts';
import { wireFixture } from '../../support/wire-fixtures.ts';

const recordedBackup = /"id":"[0-9a-f-]{36}"/u;
const volumeBytes = 1_000_000;
const luks = 'aaaaaaaa-0000-4000-8000-00000000000a';
const plain = 'aaaaaaaa-0000-4000-8000-00000000000b';
const keyBytes = (seed: number) =>
  Buffer.from(Array.from({ length: 32 }, (_, index) => (index * 37 + seed) % 256)).toString('hex');
const patience = { timeout: 30_000 };

let broker: RabbitServer;
let keystone: KeystoneServer;
let barbican: BarbicanServer;
let castellan: PythonPeer;
let rig: CloudRig;
let user: BusContext;

beforeAll(async () => {
  const [keystonePort = 0, barbicanPort = 0] = await freePorts(2);
  const services = [{ type: 'key-manager', name: 'barbican', url: `http://127.0.0.1:${barbicanPort}` }];
  broker = await startRabbitMq();
  keystone = await startKeystone({ swiftUrl: 'http://127.0.0.1:1', port: keystonePort, services });
  barbican = await startBarbican(keystone.url, barbicanPort);
  castellan = startPythonPeer(
    fileURLToPath(new URL('castellan_peer.py', import.meta.url)),
    JSON.stringify({ endpoint: barbican.url, auth_url: `${keystone.url}/v3` }),
  );
  user = await userContext(keystone.url, 'demo', 'demo');
  rig = await createCloudRig({ brokerUrl: broker.url });
  for (const id of [luks, plain]) {
    await rig.database.sql.insertInto('volume_types').values({ id, name: id, deleted: false }).execute();
  }
  await rig.start();
});

afterAll(async () => {
  await rig.close();
  await castellan.close();
  await barbican.stop();
  await keystone.stop();
  await broker.stop();
});

async function askCastellan(request: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
  const answer = await castellan.ask({
    ...request,
    token: user.authToken,
    project: user.projectId,
    catalog: user.items['service_catalog'],
  });
  const { error, ...rest } = z.record(z.string(), z.unknown()).parse(answer);
  if (error !== undefined) throw new Error(z.string().parse(error));
  return rest;
}

async function storeKey(seed: number): Promise<string> {
  const { id } = await askCastellan({ op: 'store', bytes: keyBytes(seed), name: 'k' });
  return z.string().parse(id);
}

/** The bytes of a key as castellan reads them; null if it is gone. */
async function readKey(id: string | null): Promise<unknown> {
  const { key } = await askCastellan({ op: 'get', id });
  return key === null ? null : z.record(z.string(), z.unknown()).parse(key)['bytes'];
}

/** Sends a recorded request for this backup, with the user's context. */
async function send(name: string, backupId: string, changes: Readonly<Record<string, unknown>> = {}) {
  const { exchange, routing_keys: keys, payload_raw: recorded } = wireFixture(name);
  const outer = z.record(z.string(), z.string()).parse(JSON.parse(recorded));
  const inner = z.looseObject({ args: z.unknown() }).parse(JSON.parse(outer['oslo.message'] ?? ''));
  const args = z
    .looseObject({})
    .parse(JSON.parse(JSON.stringify(inner.args).replace(recordedBackup, `"id":"${backupId}"`)));
  const message = {
    ...inner,
    args: { ...args, ...changes },
    ...renderContext(user.items),
    _unique_id: randomUUID().replaceAll('-', ''),
  };
  const payload = JSON.stringify({ ...outer, 'oslo.message': JSON.stringify(message) });
  await rig.publish({ exchange, routingKey: keys[0] ?? '', payload });
}

async function addVolume(values: {
  readonly status: string;
  readonly keyId: string | null;
  readonly typeId: string;
  readonly generation: number;
}): Promise<string> {
  const id = randomUUID();
  await rig.writeVolume(id, volumeBytes, values.generation);
  await rig.database.sql
    .insertInto('volumes')
    .values({
      id,
      created_at: new Date(),
      deleted: false,
      project_id: user.projectId,
      user_id: user.userId,
      host: 'refhost@ceph#ceph',
      size: 1,
      status: values.status,
      previous_status: 'available',
      encryption_key_id: values.keyId,
      volume_type_id: values.typeId,
    })
    .execute();
  return id;
}

/** Returns when the request has been done, however it ended. */
async function askForBackup(volumeId: string): Promise<string> {
  const id = randomUUID();
  const now = new Date();
  await rig.database.sql
    .insertInto('backups')
    .values({
      id,
      created_at: now,
      data_timestamp: now,
      deleted: false,
      project_id: user.projectId,
      user_id: user.userId,
      volume_id: volumeId,
      host: 'refhost',
      size: 1,
      status: 'creating',
    })
    .execute();
  await send('create_backup.full', id);
  await expect.poll(async () => (await rig.row(id)).status, patience).not.toBe('creating');
  return id;
}

async function makeBackup(volumeId: string): Promise<string> {
  const id = await askForBackup(volumeId);
  expect(await rig.row(id)).toMatchObject({ status: 'available', failReason: null });
  return id;
}

async function restore(backupId: string, volumeId: string): Promise<void> {
  await rig.database.sql
    .updateTable('backups')
    .set({ status: 'restoring', restore_volume_id: volumeId })
    .where('id', '=', backupId)
    .execute();
  await send('restore_backup.existing-volume', backupId, { volume_id: volumeId });
  await expect
    .poll(async () => (await getVolume(rig.database.sql, volumeId)).status, patience)
    .not.toBe('restoring-backup');
}

test('a backup gets a key of its own, a restored volume another, and both go with them', async () => {
  const key = await storeKey(1);
  const volumeId = await addVolume({ status: 'backing-up', keyId: key, typeId: luks, generation: 1 });
  const backupId = await makeBackup(volumeId);
  const { encryptionKeyId: copy } = await rig.row(backupId);
  expect(copy).not.toBe(key);
  expect(await readKey(copy)).toBe(keyBytes(1));

  const ownKey = await storeKey(2);
  const target = await addVolume({ status: 'restoring-backup', keyId: ownKey, typeId: luks, generation: 2 });
  await restore(backupId, target);
  const restored = await getVolume(rig.database.sql, target);
  expect(restored.status).toBe('available');
  expect([key, copy, ownKey]).not.toContain(restored.encryptionKeyId);
  expect(await readKey(restored.encryptionKeyId)).toBe(keyBytes(1));
  expect(await readKey(ownKey)).toBeNull();
  expect((await rig.readVolume(target)).equals(await rig.readVolume(volumeId))).toBe(true);

  await rig.database.sql
    .updateTable('backups')
    .set({ status: 'deleting' })
    .where('id', '=', backupId)
    .execute();
  await send('delete_backup', backupId);
  await expect.poll(async () => (await rig.row(backupId)).deleted, patience).toBe(true);
  expect(await readKey(copy)).toBeNull();
  expect(await readKey(key)).toBe(keyBytes(1));
});

test('restored in place, the volume keeps its key', async () => {
  const key = await storeKey(3);
  const volumeId = await addVolume({ status: 'backing-up', keyId: key, typeId: luks, generation: 1 });
  const backupId = await makeBackup(volumeId);
  await rig.database.sql
    .updateTable('volumes')
    .set({ status: 'restoring-backup' })
    .where('id', '=', volumeId)
    .execute();
  await restore(backupId, volumeId);
  expect(await getVolume(rig.database.sql, volumeId)).toMatchObject({
    status: 'available',
    encryptionKeyId: key,
  });
  expect(await readKey(key)).toBe(keyBytes(3));
});

test('a volume of another type is refused, and nothing is written to it', async () => {
  const volumeId = await addVolume({
    status: 'backing-up',
    keyId: await storeKey(4),
    typeId: luks,
    generation: 1,
  });
  const backupId = await makeBackup(volumeId);
  const target = await addVolume({ status: 'restoring-backup', keyId: null, typeId: plain, generation: 2 });
  const before = await rig.readVolume(target);
  await restore(backupId, target);
  expect(await getVolume(rig.database.sql, target)).toMatchObject({
    status: 'error_restoring',
    encryptionKeyId: null,
  });
  expect((await rig.readVolume(target)).equals(before)).toBe(true);
  await expect.poll(async () => (await rig.row(backupId)).status, patience).toBe('available');
});

test('a key that Barbican does not have fails the backup in words, and the volume is given back', async () => {
  const gone = randomUUID();
  const volumeId = await addVolume({ status: 'backing-up', keyId: gone, typeId: luks, generation: 1 });
  expect(await rig.row(await askForBackup(volumeId))).toMatchObject({
    status: 'error',
    failReason: expect.stringContaining(`key ${gone} is not in Barbican`),
  });
  expect((await getVolume(rig.database.sql, volumeId)).status).toBe('available');
});
