/**
 * The life of backups as a real Cinder had it: its recorded messages are put on a real RabbitMQ one after the other, over
 * the rows that its API had left; the rows and replies of ours are compared with those that its cinder-backup left. The
 * store is a directory where the recording had Swift, so driver, container and prefix differ; times and new ids do too.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { createCloudRig, type CloudRig } from '../../support/cloud-rig.ts';
import {
  makeCinderDatabase,
  openTestDatabase,
  startDatabaseServer,
  type DatabaseServer,
} from '../../support/database-server.ts';
import { expectRecordedRows, ourDriver, sendRecorded, swiftDriver } from '../../support/recorded-life.ts';
import { startRabbitMq, type RabbitServer } from '../../support/rabbitmq-server.ts';
import { putRows, readRow, recordedRows, type RecordedTables } from '../../support/recorded-rows.ts';
import { wireFixture } from '../../support/wire-fixtures.ts';

const patience = { timeout: 30_000, interval: 50 };
const answered = 'just after the API answered';
const host = { host: 'refhost' };
const volumeBytes = 6 * 2 ** 20;
const [source, target] = ['bdbc1081-d9a5-444f-b987-3886923383d9', 'd604f2e2-9e80-40c5-8067-b432cdbf3104'];
const [full, increment, fromSnapshot, inUse] = [
  '64543244-d974-4570-8647-08adbcd5828a',
  '6b7a8f14-8f01-4f46-8f19-efceccb012fe',
  'e8c6652d-dedd-4011-8794-f0b099b6bd1f',
  'd223e445-20c3-4b6c-8c29-00f3ed037c54',
];
const replies = 'reply_34a289027f6f4b07acf92940335b50d1';

const databases = ['sqlite', 'mariadb', 'postgresql'] as const;

let broker: RabbitServer;
let rig: CloudRig;
let server: DatabaseServer | undefined;

beforeAll(async () => {
  broker = await startRabbitMq();
});
afterAll(async () => {
  await broker?.stop();
});

/** A database as Cinder's own migrations make it, or SQLite. */
async function openRig(kind: (typeof databases)[number]): Promise<CloudRig> {
  if (kind === 'sqlite') return await createCloudRig({ brokerUrl: broker.url });
  server = await startDatabaseServer(kind);
  await makeCinderDatabase(server, 'cinder');
  const url = server.url('cinder');
  const opened = await openTestDatabase(url);
  return await createCloudRig({ brokerUrl: broker.url, database: { opened, url } });
}

const send = (name: string, change?: (payload: string) => string) => sendRecorded(rig, name, change);

async function ask(name: string): Promise<Readonly<Record<string, unknown>>> {
  await rig.take(replies);
  await send(name);
  const found: Readonly<Record<string, unknown>>[] = [];
  await expect.poll(async () => found.push(...(await rig.take(replies))), { ...patience }).toBeGreaterThan(0);
  const [reply] = found;
  return reply ?? {};
}

const recordedReply = (name: string) => {
  const body = z.object({ 'oslo.message': z.string() }).parse(JSON.parse(wireFixture(name).payload_raw));
  return z.record(z.string(), z.unknown()).parse(JSON.parse(body['oslo.message']));
};

const statusOf = async (id: string) => (await rig.row(id)).status;

const expectRows = (recorded: RecordedTables, table: string) => expectRecordedRows(rig, recorded, table);

/** Notifications since the last `forgetEvents`: the queue has each only once. */
const told: Readonly<Record<string, unknown>>[] = [];

async function forgetEvents(): Promise<void> {
  await rig.take('notifications.info');
  told.length = 0;
}

async function eventsOf(backupId: string): Promise<readonly string[]> {
  told.push(...(await rig.take('notifications.info')));
  const event = z.object({ event_type: z.string(), payload: z.object({ backup_id: z.string() }) });
  return told
    .map((message) => event.parse(message))
    .filter(({ payload }) => payload.backup_id === backupId)
    .map(({ event_type: type }) => type);
}

describe.each(databases)('on %s', (kind) => {
  beforeAll(async () => {
    rig = await openRig(kind);
    await forgetEvents();
    await rig.start();
  });
  afterAll(async () => {
    await rig?.close();
    await server?.stop();
    server = undefined;
  });

  test('a full backup', async () => {
    await rig.writeVolume(source, volumeBytes, 1);
    await putRows(rig.database.sql, recordedRows('backup-full', answered));
    await rig.database.sql.updateTable('backups').set(host).where('id', '=', full).execute();
    await send('create_backup.full');
    await expect.poll(() => statusOf(full), patience).toBe('available');
    const after = recordedRows('backup-full', 'after');
    await expectRows(after, 'backups');
    await expectRows(after, 'volumes');
    await expectRows(after, 'quota_usages');
    expect(await rig.row(full)).toMatchObject({ service: ourDriver, objectCount: 6 });
    await expect
      .poll(() => eventsOf(full), patience)
      .toEqual([
        'backup.create.start',
        'backup.createprogress',
        'backup.createprogress',
        'backup.create.end',
      ]);
  });

  test('an increment', async () => {
    await rig.changeVolume(source, 2 ** 20, 32_768, 2);
    await putRows(rig.database.sql, recordedRows('backup-incremental', answered));
    await rig.database.sql.updateTable('backups').set(host).where('id', '=', increment).execute();
    await send('create_backup.incremental');
    await expect.poll(() => statusOf(increment), patience).toBe('available');
    const after = recordedRows('backup-incremental', 'after');
    await expectRows(after, 'backups');
    await expectRows(after, 'volumes');
    expect(await rig.row(increment)).toMatchObject({ objectCount: 1, parentId: full });
    expect((await rig.row(full)).dependents).toBe(1);
  });

  test('a restore to a new volume', async () => {
    await rig.writeVolume(target, volumeBytes, 9);
    await putRows(rig.database.sql, recordedRows('restore', answered));
    await send('restore_backup.new-volume');
    await expect.poll(() => statusOf(increment), patience).toBe('available');
    const after = recordedRows('restore', 'after');
    await expectRows(after, 'backups');
    await expectRows(after, 'volumes');
    const metadata = await rig.database.sql
      .selectFrom('volume_metadata')
      .select(['key', 'value'])
      .where('volume_id', '=', target)
      .where('deleted', '=', false)
      .orderBy('id')
      .execute();
    expect(metadata).toEqual((after['volume_metadata'] ?? []).map(({ key, value }) => ({ key, value })));
    expect((await rig.readVolume(target)).equals(await rig.readVolume(source))).toBe(true);
  });

  test('a restore over an existing volume', async () => {
    const { sql } = rig.database;
    await sql.updateTable('volumes').set({ status: 'restoring-backup' }).where('id', '=', target).execute();
    const taken = { status: 'restoring', restore_volume_id: target };
    await sql.updateTable('backups').set(taken).where('id', '=', full).execute();
    await send('restore_backup.existing-volume');
    await expect.poll(() => statusOf(full), patience).toBe('available');
    const volume = await readRow(sql, 'volumes', target);
    expect(volume).toMatchObject({ status: 'available' });
    const restored = await rig.readVolume(target);
    expect(restored.equals(await rig.readVolume(source))).toBe(false);
  });

  test('a backup of a snapshot', async () => {
    const rows = recordedRows('backup-from-snapshot', answered);
    const [snapshotId] = (rows['snapshots'] ?? []).map(({ id }) => String(id));
    await rig.snapshot(source, `snapshot-${snapshotId}`);
    await rig.changeVolume(source, 0, 65_536, 3);
    await putRows(rig.database.sql, rows);
    await rig.database.sql.updateTable('backups').set(host).where('id', '=', fromSnapshot).execute();
    await send('create_backup.from-snapshot');
    await expect.poll(() => statusOf(fromSnapshot), patience).toBe('available');
    const after = recordedRows('backup-from-snapshot', 'after');
    await expectRows(after, 'backups');
    expect(await readRow(rig.database.sql, 'snapshots', snapshotId)).toMatchObject({ status: 'available' });
  });

  test('a backup of a volume in use', async () => {
    await putRows(rig.database.sql, recordedRows('backup-in-use', answered));
    await rig.database.sql.updateTable('backups').set(host).where('id', '=', inUse).execute();
    await send('create_backup.in-use');
    await expect.poll(() => statusOf(inUse), patience).toBe('available');
    const after = recordedRows('backup-in-use', 'after');
    await expectRows(after, 'backups');
    await expectRows(after, 'volumes');
  });

  test.each(['error', 'available'])('a reset to %s', async (status) => {
    await forgetEvents();
    await send(`reset_status.${status}`);
    await expect.poll(() => statusOf(fromSnapshot), patience).toBe(status);
    await expect.poll(() => eventsOf(fromSnapshot), patience).toEqual(['backup.reset_status.end']);
    const { backups = [] } = recordedRows('reset-status', `after reset to ${status}`);
    const recorded = backups.find(({ id }) => id === fromSnapshot);
    expect(await readRow(rig.database.sql, 'backups', fromSnapshot)).toMatchObject({
      status: recorded?.['status'],
      fail_reason: recorded?.['fail_reason'],
    });
  });

  test('a delete', async () => {
    await putRows(rig.database.sql, recordedRows('delete', answered));
    await forgetEvents();
    await send('delete_backup');
    await expect.poll(() => statusOf(increment), patience).toBe('deleted');
    const after = recordedRows('delete', 'after');
    await expectRows({ backups: (after['backups'] ?? []).filter(({ id }) => id === increment) }, 'backups');
    await expectRows(after, 'quota_usages');
    expect((await rig.row(full)).dependents).toBe(0);
    await expect
      .poll(() => eventsOf(increment), patience)
      .toEqual(['backup.delete.start', 'backup.delete.end']);
  });

  test('an export', async () => {
    const { sql } = rig.database;
    await sql.updateTable('backups').set({ status: 'available' }).where('id', '=', fromSnapshot).execute();
    const reply = await ask('export_record');
    const recorded = recordedReply('export_record.reply');
    expect(Object.keys(reply).toSorted()).toEqual(Object.keys(recorded).toSorted());
    expect(reply).toMatchObject({ failure: null, ending: true, _msg_id: recorded['_msg_id'] });
    expect(reply['result']).toMatchObject({ backup_service: ourDriver, backup_url: expect.any(String) });
  });

  test('an export that is refused', async () => {
    const reply = await ask('export_record.failure');
    const text = z.string();
    const failure = JSON.parse(text.parse(reply['failure']));
    const recorded = JSON.parse(text.parse(recordedReply('export_record.failure.reply')['failure']));
    expect(reply['result']).toBeNull();
    expect(failure).toMatchObject({ class: recorded.class, module: recorded.module });
    expect(failure.message).toBe(recorded.message.replace(swiftDriver, ourDriver));
    expect(Object.keys(failure.kwargs)).toEqual(Object.keys(recorded.kwargs));
  });

  test('a forced delete, which Cinder let take a parent from under its child', async () => {
    const { sql } = rig.database;
    const remove = async (unique: string) => {
      await sql.updateTable('backups').set({ status: 'deleting' }).where('id', '=', fromSnapshot).execute();
      await send('delete_backup.force', (payload) =>
        payload.replace(/(_unique_id\\": \\")[0-9a-f]{32}/u, `$1${unique}`),
      );
    };
    await remove('0'.repeat(32));
    await expect.poll(() => statusOf(fromSnapshot), patience).toBe('available');
    expect((await rig.row(fromSnapshot)).failReason).toContain(inUse);
    await sql.updateTable('backups').set({ deleted: true }).where('id', '=', inUse).execute();
    await remove('1'.repeat(32));
    await expect.poll(() => statusOf(fromSnapshot), patience).toBe('deleted');
    const { backups = [] } = recordedRows('delete-force', 'after');
    const row = await readRow(sql, 'backups', fromSnapshot);
    expect(row).toMatchObject({ status: backups[0]?.['status'], deleted: backups[0]?.['deleted'] });
  });

  test('questions about the host', async () => {
    expect(await ask('check_support_to_force_delete')).toMatchObject({
      result: recordedReply('check_support_to_force_delete.reply')['result'],
      failure: null,
    });
    await send('set_log_levels');
    const levels = await ask('get_log_levels');
    expect(levels).toMatchObject({
      failure: null,
      result: { 'versioned_object.name': 'LogLevelList', 'versioned_object.version': '1.0' },
    });
  });
});
