/** What holds of the row of this service, whatever the database is. */
import { beforeEach, expect, test } from 'vitest';
import type { Database } from '../../src/database/database.ts';
import { readFlag, readSetTime } from '../../src/database/row-values.ts';
import {
  isBackupServiceUp,
  registerBackupService,
  reportBackupService,
} from '../../src/database/services.ts';
import type { OpenEmpty } from './database.ts';

const start = new Date('2026-11-22T09:10:40Z');
const later = new Date('2026-11-22T09:10:51Z');

export function serviceStatements(open: OpenEmpty): void {
  let database: Database;
  beforeEach(async () => {
    database = await open();
  });

  const rows = async () => {
    const found = await database.sql.selectFrom('services').selectAll().orderBy('id').execute();
    return found.map((row) => ({
      ...row,
      disabled: readFlag(row.disabled),
      deleted: readFlag(row.deleted),
      frozen: readFlag(row.frozen),
      updated_at: readSetTime(row.updated_at).toISOString(),
    }));
  };
  const insert = async (
    host: string,
    changes: { binary?: string; deleted?: boolean; disabled?: boolean } = {},
  ) => {
    await database.sql
      .insertInto('services')
      .values({ host, binary: 'cinder-backup', report_count: 7, deleted: false, disabled: false, ...changes })
      .execute();
  };
  const service = { host: 'refhost', availabilityZone: 'nova', enableNewServices: true };
  const register = async (changes: { enableNewServices?: boolean } = {}) =>
    await registerBackupService(database.sql, { ...service, ...changes }, start);

  test('a host without a row gets one with the columns that Cinder fills', async () => {
    const id = await register();
    expect(await rows()).toEqual([
      expect.objectContaining({
        id,
        host: 'refhost',
        binary: 'cinder-backup',
        topic: 'cinder-backup',
        report_count: 0,
        disabled: false,
        deleted: false,
        availability_zone: 'nova',
        rpc_current_version: '2.4',
        object_current_version: '1.39',
        replication_status: 'not-capable',
        frozen: false,
        updated_at: start.toISOString(),
        uuid: expect.stringMatching(/^[0-9a-f-]{36}$/),
      }),
    ]);
  });

  test('a start renews the row of the host and leaves it disabled', async () => {
    await insert('refhost', { disabled: true });
    const id = await register();
    expect(await rows()).toMatchObject([
      { id, report_count: 7, disabled: true, rpc_current_version: '2.4', object_current_version: '1.39' },
    ]);
  });

  test('where new services are not enabled a new row is disabled, also one in place of a removed one', async () => {
    const enableNewServices = false;
    await insert('refhost', { deleted: true });
    const id = await register({ enableNewServices });
    await register({ enableNewServices: true });
    expect(await rows()).toMatchObject([{ disabled: false }, { id, disabled: true }]);
    await database.sql.updateTable('services').set({ disabled: false }).where('id', '=', id).execute();
    expect(await register({ enableNewServices })).toBe(id);
    expect((await rows())[1]).toMatchObject({ disabled: false });
  });

  test('rows of other services, other hosts and removed ones are not taken', async () => {
    await insert('refhost', { binary: 'cinder-volume' });
    await insert('refhost2');
    await insert('REFHOST');
    await insert('refhost', { deleted: true });
    const id = await register();
    const found = await rows();
    expect(found.map((row) => row.id === id)).toEqual([false, false, false, false, true]);
    expect(found.map((row) => row.rpc_current_version)).toEqual([null, null, null, null, '2.4']);
  });

  test('the host itself goes before one with a back end', async () => {
    await insert('refhost@ceph');
    const first = await register();
    expect((await rows()).find(({ id }) => id === first)?.host).toBe('refhost@ceph');
    await insert('refhost');
    const second = await register();
    expect((await rows()).find(({ id }) => id === second)?.host).toBe('refhost');
  });

  test('a report counts, touches the row and corrects its zone', async () => {
    const id = await register();
    expect(await reportBackupService(database.sql, id, 'az2', later)).toBe(true);
    expect(await rows()).toMatchObject([
      { report_count: 1, availability_zone: 'az2', updated_at: later.toISOString() },
    ]);
  });

  test('a host is up that was seen since, one that was not, or has no row, is down', async () => {
    await register();
    expect(await isBackupServiceUp(database.sql, 'refhost', start)).toBe(true);
    expect(await isBackupServiceUp(database.sql, 'refhost', later)).toBe(false);
    expect(await isBackupServiceUp(database.sql, 'elsewhere', start)).toBe(false);
    await insert('silent');
    expect(await isBackupServiceUp(database.sql, 'silent', start)).toBe(false);
  });

  test('a report on a removed row says so', async () => {
    const id = await register();
    await database.sql.updateTable('services').set({ deleted: true }).execute();
    expect(await reportBackupService(database.sql, id, 'nova', later)).toBe(false);
  });
}
