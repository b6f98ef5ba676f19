/**
 * Requests as a real Cinder sent them, where things went wrong: the store was away, a cinder-backup was replaced in the middle,
 * a backup of another driver was imported. The rows are compared with those that Cinder left.
 */
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { createCloudRig, type CloudRig } from '../../support/cloud-rig.ts';
import { startRabbitMq, type RabbitServer } from '../../support/rabbitmq-server.ts';
import { expectRecordedRows, sendRecorded } from '../../support/recorded-life.ts';
import { putRows, readRow, recordedRows, type RecordedTables } from '../../support/recorded-rows.ts';

const patience = { timeout: 30_000, interval: 50 };
const answered = 'just after the API answered';
const volumeBytes = 6 * 2 ** 20;
const source = 'bdbc1081-d9a5-444f-b987-3886923383d9';
const [full, increment, fromSnapshot] = [
  '64543244-d974-4570-8647-08adbcd5828a',
  '6b7a8f14-8f01-4f46-8f19-efceccb012fe',
  'e8c6652d-dedd-4011-8794-f0b099b6bd1f',
];

let broker: RabbitServer;
let rig: CloudRig;

beforeAll(async () => {
  broker = await startRabbitMq();
});
afterAll(async () => {
  await broker?.stop();
});
beforeEach(async () => {
  rig = await createCloudRig({ brokerUrl: broker.url });
  await rig.start();
  await rig.writeVolume(source, volumeBytes, 1);
});
afterEach(() => rig.close());

const statusOf = async (id: string) => (await rig.row(id)).status;

async function setBackup(
  id: string,
  columns: Readonly<Record<string, string | number | null>>,
): Promise<void> {
  await rig.database.sql.updateTable('backups').set(columns).where('id', '=', id).execute();
}

/** The rows as cinder-api left them, sent to this host. */
async function take(recording: string, id: string, rows = recordedRows(recording, answered)): Promise<void> {
  await putRows(rig.database.sql, rows);
  await setBackup(id, { host: 'refhost' });
}

/** A recorded row of a backup as it was before the request that the recording is of. */
function before(recorded: RecordedTables, backup: object, volume: object): RecordedTables {
  const { backups = [], volumes = [], quota_usages: usages = [] } = recorded;
  return {
    backups: backups.map((row) => ({ ...row, fail_reason: null, ...backup })),
    volumes: volumes.map((row) => ({ ...row, ...volume })),
    quota_usages: usages,
  };
}

const store = () => join(rig.directory, 'backups');
const takeStoreAway = () => rename(store(), `${store()}.away`);

async function messageEvents(): Promise<readonly (string | null)[]> {
  const rows = await rig.database.sql.selectFrom('messages').select('event_id').execute();
  return rows.map((row) => row.event_id);
}

const recordedEvents = (recorded: RecordedTables) =>
  (recorded['messages'] ?? []).map(({ event_id: event }) => event);

async function makeFull(): Promise<void> {
  await take('backup-full', full);
  await sendRecorded(rig, 'create_backup.full');
  await expect.poll(() => statusOf(full), patience).toBe('available');
}

test.each([
  ['full', full],
  ['incremental', increment],
  ['from-snapshot', fromSnapshot],
])('a continue_backup.%s makes the backup that cinder-backup began', async (kind, id) => {
  if (kind !== 'full') await makeFull();
  const recording = `backup-${kind}`;
  const rows = recordedRows(recording, answered);
  const snapshotId = rows['snapshots']?.[0]?.['id'];
  if (kind === 'from-snapshot') await rig.snapshot(source, `snapshot-${snapshotId}`);
  await rig.changeVolume(source, 2 ** 20, 32_768, 2);
  await take(recording, id, rows);
  await sendRecorded(rig, `continue_backup.${kind}`);
  await expect.poll(() => statusOf(id), patience).toBe('available');
  const after = recordedRows(recording, 'after');
  const ofIt = (after['backups'] ?? []).filter((row) => row['id'] === id);
  await expectRecordedRows(rig, { backups: ofIt }, 'backups', kind === 'from-snapshot' ? ['parent_id'] : []);
  await expectRecordedRows(rig, after, 'volumes');
});

test('an import', async () => {
  await putRows(rig.database.sql, recordedRows('import-record', answered));
  await sendRecorded(rig, 'import_record');
  await expect.poll(() => statusOf(fromSnapshot), patience).toBe('available');
  await expectRecordedRows(rig, recordedRows('import-record', 'after'), 'backups');
});

test('an import for a driver that no host has', async () => {
  const recorded = recordedRows('import-failure', 'after');
  const id = '11111111-2222-4333-8444-555555555555';
  await putRows(rig.database.sql, before(recorded, { status: 'creating' }, {}));
  await sendRecorded(rig, 'import_record.foreign-service');
  await expect.poll(() => statusOf(id), patience).toBe('error');
  // The size is the one difference: the quota that the API took is given back with it.
  await expectRecordedRows(rig, recorded, 'backups', ['size']);
});

test('a backup while the store is away', async () => {
  const recorded = recordedRows('failure-create', 'after');
  const id = String(recorded['backups']?.[0]?.['id']);
  const place = { service: null, container: null, service_metadata: null };
  const rows = before(
    recorded,
    { status: 'creating', ...place },
    { status: 'backing-up', previous_status: 'available' },
  );
  await putRows(rig.database.sql, rows);
  await takeStoreAway();
  await sendRecorded(rig, 'create_backup.full', (payload) => payload.replaceAll(full, id));
  await expect.poll(() => statusOf(id), patience).toBe('error');
  await expectRecordedRows(rig, recorded, 'backups', ['fail_reason']);
  await expectRecordedRows(rig, recorded, 'volumes');
  await expect.poll(messageEvents, patience).toEqual(recordedEvents(recorded));
});

test('a restore while the store is away', async () => {
  await makeFull();
  const recorded = recordedRows('failure-restore', 'after');
  const target = String(recorded['volumes']?.[0]?.['id']);
  await rig.writeVolume(target, volumeBytes, 9);
  await putRows(rig.database.sql, {
    volumes: before(recorded, {}, { status: 'restoring-backup' })['volumes'] ?? [],
  });
  await setBackup(full, { status: 'restoring', restore_volume_id: target, num_dependent_backups: 1 });
  await takeStoreAway();
  await sendRecorded(rig, 'restore_backup.existing-volume', (payload) =>
    payload.replaceAll('d604f2e2-9e80-40c5-8067-b432cdbf3104', target),
  );
  await expect.poll(() => statusOf(full), patience).toBe('available');
  await expectRecordedRows(rig, recorded, 'backups');
  await expectRecordedRows(rig, recorded, 'volumes');
  await expect.poll(messageEvents, patience).toEqual(recordedEvents(recorded));
});

test('a deletion while the store is away keeps the row, where Cinder leaves the objects to nobody', async () => {
  await makeFull();
  const [row] = recordedRows('failure-delete', 'after')['backups'] ?? [];
  expect(row).toMatchObject({ status: 'deleted' });
  await setBackup(full, { status: 'deleting' });
  await takeStoreAway();
  await sendRecorded(rig, 'delete_backup', (payload) => payload.replaceAll(increment, full));
  await expect.poll(() => statusOf(full), patience).toBe('error');
  await rename(`${store()}.away`, store());
  await setBackup(full, { status: 'deleting' });
  await sendRecorded(rig, 'delete_backup', (payload) =>
    payload.replaceAll(increment, full).replace(/(_unique_id\\": \\")[0-9a-f]{32}/u, `$1${'2'.repeat(32)}`),
  );
  await expect.poll(() => statusOf(full), patience).toBe('deleted');
  const ours = await readRow(rig.database.sql, 'backups', full);
  expect(ours).toMatchObject({ deleted: row?.['deleted'] });
});
