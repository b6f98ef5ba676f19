/** What holds of quota usages and reservations, whatever the database is. */
import { randomUUID } from 'node:crypto';
import { beforeEach, expect, test } from 'vitest';
import { insertBackup } from '../../src/database/backups.ts';
import type { Database } from '../../src/database/database.ts';
import { defaultQuotaRules, giveBackQuota } from '../../src/database/quotas.ts';
import { readFlag, readTime } from '../../src/database/row-values.ts';
import { newBackup } from '../database/rows.ts';
import type { OpenEmpty } from './database.ts';

const before = new Date('2026-11-22T09:00:00Z');
const now = new Date('2026-11-22T10:00:00Z');

export function quotaStatements(open: OpenEmpty): void {
  let database: Database;
  beforeEach(async () => {
    database = await open();
  });

  const insertUsages = async (
    usages: Readonly<Record<string, number>>,
    changes: { until_refresh?: number; deleted?: boolean; race_preventer?: boolean | null } = {},
  ) => {
    for (const [resource, in_use] of Object.entries(usages)) {
      const row = { created_at: before, updated_at: before, deleted: false, project_id: 'demo', reserved: 0 };
      await database.sql
        .insertInto('quota_usages')
        .values({ ...row, resource, in_use, race_preventer: true, ...changes })
        .execute();
    }
  };
  const usages = async () => {
    const rows = await database.sql
      .selectFrom('quota_usages')
      .selectAll()
      .where('deleted', '=', false)
      .execute();
    return Object.fromEntries(rows.map((row) => [row.resource ?? '', row.in_use]));
  };
  const giveBack = (sizeGiB: number) => giveBackQuota(database.sql, { projectId: 'demo', sizeGiB }, now);

  test('giving back takes one backup and its gigabytes from the usage, and leaves others alone', async () => {
    await insertUsages({ volumes: 2, backups: 4, backup_gigabytes: 40 });
    await giveBack(7);
    expect(await usages()).toEqual({ volumes: 2, backups: 3, backup_gigabytes: 33 });
  });

  test('the reservations stay as rows that are over', async () => {
    await insertUsages({ backups: 1, backup_gigabytes: 5 });
    await giveBack(5);
    const rows = await database.sql.selectFrom('reservations').selectAll().orderBy('id').execute();
    expect(rows.map(({ resource, delta }) => [resource, delta])).toEqual([
      ['backups', -1],
      ['backup_gigabytes', -5],
    ]);
    for (const row of rows) {
      expect(readFlag(row.deleted)).toBe(true);
      expect(readTime(row.deleted_at)).toEqual(now);
      expect(readTime(row.expire)).toEqual(new Date('2026-11-23T10:00:00Z'));
    }
  });

  test('no usage falls below nothing', async () => {
    await insertUsages({ backups: 0, backup_gigabytes: 3 });
    await giveBack(10);
    expect(await usages()).toEqual({ backups: 0, backup_gigabytes: 0 });
  });

  test('a project without usages gets what its rows add up to, less what is given back', async () => {
    for (const sizeGiB of [3, 4]) await insertBackup(database.sql, newBackup({ sizeGiB }), before);
    await insertBackup(database.sql, newBackup({ sizeGiB: 9, projectId: 'other' }), before);
    await giveBack(4);
    expect(await usages()).toEqual({ backups: 1, backup_gigabytes: 3 });
  });

  test('a deleted usage does not count', async () => {
    await insertUsages({ backups: 50, backup_gigabytes: 50 }, { deleted: true, race_preventer: null });
    await insertUsages({ backups: 2, backup_gigabytes: 2 });
    await giveBack(1);
    expect(await usages()).toEqual({ backups: 1, backup_gigabytes: 1 });
  });

  test('a usage below nothing, and one whose refresh is due, are counted anew', async () => {
    for (const sizeGiB of [3, 4]) await insertBackup(database.sql, newBackup({ sizeGiB }), before);
    await insertUsages({ backups: -3 });
    await insertUsages({ backup_gigabytes: 99 }, { until_refresh: 1 });
    await giveBack(4);
    expect(await usages()).toEqual({ backups: 1, backup_gigabytes: 3 });
  });

  test('a usage older than max_age is counted anew', async () => {
    await insertBackup(database.sql, newBackup({ sizeGiB: 3 }), before);
    await insertUsages({ backups: 9, backup_gigabytes: 9 });
    const backup = { projectId: 'demo', sizeGiB: 3 };
    await giveBackQuota(database.sql, backup, now, { ...defaultQuotaRules, maxAgeSeconds: 3601 });
    expect(await usages()).toEqual({ backups: 8, backup_gigabytes: 6 });
    const later = new Date(now.getTime() + 3_600_000);
    await giveBackQuota(database.sql, backup, later, { ...defaultQuotaRules, maxAgeSeconds: 3600 });
    expect(await usages()).toEqual({ backups: 0, backup_gigabytes: 0 });
  });

  test('what is given back in a transaction that fails is not given back', async () => {
    await insertUsages({ backups: 2, backup_gigabytes: 2 });
    const work = database.transaction(async (sql) => {
      await giveBackQuota(sql, { projectId: 'demo', sizeGiB: 1 }, now);
      throw new Error('half way');
    });
    await expect(work).rejects.toThrow('half way');
    expect(await usages()).toEqual({ backups: 2, backup_gigabytes: 2 });
  });

  test('backups that are deleted at the same time are all given back', async () => {
    await insertUsages({ backups: 10, backup_gigabytes: 100 });
    await Promise.all(Array.from({ length: 8 }, () => giveBack(3)));
    expect(await usages()).toEqual({ backups: 2, backup_gigabytes: 76 });
  });

  test('a project whose usages are made by several at once gets them once', async () => {
    for (let count = 0; count < 6; count += 1) {
      await insertBackup(database.sql, newBackup({ id: randomUUID(), sizeGiB: 2 }), before);
    }
    await Promise.all(Array.from({ length: 4 }, () => giveBack(2)));
    expect(await usages()).toEqual({ backups: 2, backup_gigabytes: 4 });
  });
}
