import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Database } from '../../src/database/database.ts';
import { registerBackupService, reportBackupService } from '../../src/database/services.ts';
import { openSqliteDatabase } from '../../src/database/sqlite/sqlite-database.ts';

const start = new Date('2026-11-22T09:10:40.999Z');
const later = new Date('2026-11-22T09:10:51.132Z');
let database: Database;

beforeEach(() => {
  database = openSqliteDatabase(':memory:');
});

afterEach(() => database.close());

async function rows() {
  return await database.sql.selectFrom('services').selectAll().orderBy('id').execute();
}

async function insert(
  host: string,
  changes: { binary?: string; deleted?: boolean; disabled?: boolean } = {},
) {
  await database.sql
    .insertInto('services')
    .values({ host, binary: 'cinder-backup', report_count: 7, deleted: false, disabled: false, ...changes })
    .execute();
}

test('a host without a row gets one with the columns that Cinder fills', async () => {
  await registerBackupService(database.sql, 'refhost', 'nova', start);
  expect(await rows()).toEqual([
    expect.objectContaining({
      host: 'refhost',
      binary: 'cinder-backup',
      topic: 'cinder-backup',
      report_count: 0,
      disabled: 0,
      deleted: 0,
      availability_zone: 'nova',
      rpc_current_version: '2.4',
      object_current_version: '1.39',
      replication_status: 'not-capable',
      frozen: 0,
      uuid: expect.stringMatching(/^[0-9a-f-]{36}$/),
    }),
  ]);
});

test('a start renews the row of the host and leaves it disabled', async () => {
  await insert('refhost', { disabled: true });
  const id = await registerBackupService(database.sql, 'refhost', 'nova', start);
  expect(await rows()).toMatchObject([
    { id, report_count: 7, disabled: 1, rpc_current_version: '2.4', object_current_version: '1.39' },
  ]);
});

test('rows of other services, other hosts and removed ones are not taken', async () => {
  await insert('refhost', { binary: 'cinder-volume' });
  await insert('refhost2');
  await insert('REFHOST');
  await insert('refhost', { deleted: true });
  const id = await registerBackupService(database.sql, 'refhost', 'nova', start);
  expect(id).toBe(5);
  expect((await rows()).slice(0, 4).map((row) => row.rpc_current_version)).toEqual([null, null, null, null]);
});

test('the host itself goes before one with a back end', async () => {
  await insert('refhost@ceph');
  expect(await registerBackupService(database.sql, 'refhost', 'nova', start)).toBe(1);
  await insert('refhost');
  expect(await registerBackupService(database.sql, 'refhost', 'nova', start)).toBe(2);
});

test('a report counts, touches the row and corrects its zone', async () => {
  const id = await registerBackupService(database.sql, 'refhost', 'nova', start);
  expect(await reportBackupService(database.sql, id, 'az2', later)).toBe(true);
  expect(await rows()).toMatchObject([
    { report_count: 1, availability_zone: 'az2', updated_at: '2026-11-22 09:10:51.132' },
  ]);
});

test('a report on a removed row says so', async () => {
  const id = await registerBackupService(database.sql, 'refhost', 'nova', start);
  await database.sql.updateTable('services').set({ deleted: true }).execute();
  expect(await reportBackupService(database.sql, id, 'nova', later)).toBe(false);
});
