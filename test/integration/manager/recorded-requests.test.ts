/** Messages recorded from a real Cinder, put on a real RabbitMQ: what they do to the rows. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { getVolume } from '../../../src/database/volumes.ts';
import { createCloudRig, type CloudRig } from '../../support/cloud-rig.ts';
import { startRabbitMq, type RabbitServer } from '../../support/rabbitmq-server.ts';
import { wireFixture } from '../../support/wire-fixtures.ts';

const patience = { timeout: 30_000, interval: 50 };
let broker: RabbitServer;
let rig: CloudRig;

beforeAll(async () => {
  broker = await startRabbitMq();
  rig = await createCloudRig({ brokerUrl: broker.url });
  await rig.start();
});
afterAll(async () => {
  await rig?.close();
  await broker?.stop();
});

const send = async (name: string): Promise<void> => {
  const {
    exchange,
    routing_keys: [routingKey = ''],
    payload_raw: payload,
  } = wireFixture(name);
  await rig.publish({ exchange, routingKey, payload });
};

const source = 'bdbc1081-d9a5-444f-b987-3886923383d9';
const full = '64543244-d974-4570-8647-08adbcd5828a';

test('a full backup', async () => {
  const now = new Date();
  await rig.writeVolume(source, 4 * 2 ** 20, 1);
  const row = {
    created_at: now,
    deleted: false,
    user_id: 'u',
    project_id: 'b879f831e52c450dafd959b27d64fdee',
  };
  await rig.database.sql
    .insertInto('volumes')
    .values({
      ...row,
      id: source,
      host: 'refhost@ceph#ceph',
      size: 1,
      status: 'backing-up',
      previous_status: 'available',
    })
    .execute();
  await rig.database.sql
    .insertInto('backups')
    .values({
      ...row,
      id: full,
      volume_id: source,
      host: 'refhost',
      status: 'creating',
      size: 1,
      data_timestamp: now,
    })
    .execute();
  await send('create_backup.full');
  await expect.poll(async () => (await rig.row(full)).status, patience).toBe('available');
  expect(await getVolume(rig.database.sql, source)).toMatchObject({
    status: 'available',
    previousStatus: 'backing-up',
  });
});
