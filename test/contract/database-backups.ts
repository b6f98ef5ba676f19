/** What holds of statements on backups, whatever the database is. */
import { randomUUID } from 'node:crypto';
import { beforeEach, expect, test } from 'vitest';
import { insertBackupMetadata, listBackupMetadata } from '../../src/database/backup-metadata.ts';
import {
  countDependent,
  findBackup,
  findBackupEver,
  getBackup,
  insertBackup,
  listBackups,
  moveBackup,
  newestBackup,
  softDeleteBackup,
  updateBackup,
  type NewBackup,
} from '../../src/database/backups.ts';
import type { Database } from '../../src/database/database.ts';
import type { BackupStatus } from '../../src/model/backup.ts';
import { newBackup } from '../database/rows.ts';
import type { OpenEmpty } from './database.ts';

const at = (minute: number) => new Date(Date.UTC(2026, 10, 22, 9, minute));

export function backupStatements(open: OpenEmpty): void {
  let database: Database;
  beforeEach(async () => {
    database = await open();
  });

  async function inStatus(
    status: BackupStatus,
    changes: Partial<NewBackup> = {},
    minute = 0,
  ): Promise<NewBackup> {
    const backup = newBackup({ dataTimestamp: at(minute), ...changes });
    await insertBackup(database.sql, backup, at(minute));
    if (status !== 'creating') {
      await moveBackup(database.sql, backup.id, { from: ['creating'], to: status }, {}, at(minute));
    }
    return backup;
  }

  test('of two writers that move the same backup one loses with stale-update', async () => {
    const { id } = await inStatus('available');
    const race = await Promise.allSettled([
      moveBackup(database.sql, id, { from: ['available'], to: 'restoring' }, {}, at(1)),
      moveBackup(database.sql, id, { from: ['available'], to: 'deleting' }, {}, at(1)),
    ]);
    expect(race.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(race[1]).toMatchObject({ reason: { code: 'stale-update', details: { status: 'restoring' } } });
    expect((await getBackup(database.sql, id)).status).toBe('restoring');
  });

  test('moving writes its changes and the time', async () => {
    const { id } = await inStatus('creating');
    await moveBackup(
      database.sql,
      id,
      { from: ['creating'], to: 'available' },
      { objectCount: 7, sizeGiB: 3, parentId: null, prefix: 'volume_x' },
      at(5),
    );
    expect(await getBackup(database.sql, id)).toMatchObject({
      status: 'available',
      objectCount: 7,
      sizeGiB: 3,
      prefix: 'volume_x',
      updatedAt: at(5),
    });
  });

  test('a step that no backup takes is a bug', async () => {
    const { id } = await inStatus('available');
    const move = moveBackup(database.sql, id, { from: ['available'], to: 'creating' }, {}, at(1));
    await expect(move).rejects.toMatchObject({ code: 'bug' });
  });

  test('changes are refused when the status is not the expected one, and not found when the row is gone', async () => {
    const { id } = await inStatus('available');
    await expect(updateBackup(database.sql, id, 'creating', { host: 'x' }, at(1))).rejects.toMatchObject({
      code: 'stale-update',
    });
    const gone = updateBackup(database.sql, randomUUID(), 'creating', { host: 'x' }, at(1));
    await expect(gone).rejects.toMatchObject({ code: 'not-found' });
  });

  test('a deleted backup keeps its row and its metadata, marked', async () => {
    const { id } = await inStatus('available');
    await insertBackupMetadata(database.sql, id, { purpose: 'nightly' }, at(0));
    await moveBackup(database.sql, id, { from: ['available'], to: 'deleting' }, {}, at(1));
    await softDeleteBackup(database.sql, id, at(2));
    expect(await findBackup(database.sql, id)).toBeUndefined();
    expect(await findBackupEver(database.sql, id)).toMatchObject({ status: 'deleted', deleted: true });
    expect(await listBackupMetadata(database.sql, [id])).toEqual(new Map());
    await expect(softDeleteBackup(database.sql, id, at(3))).rejects.toMatchObject({ code: 'not-found' });
  });

  test('metadata of several backups comes back by backup', async () => {
    const one = await inStatus('available');
    const two = await inStatus('available');
    await insertBackupMetadata(database.sql, one.id, { a: '1', b: '2' }, at(0));
    await insertBackupMetadata(database.sql, two.id, { a: '3' }, at(0));
    const found = await listBackupMetadata(database.sql, [one.id, two.id]);
    expect(found.get(one.id)).toEqual({ a: '1', b: '2' });
    expect(found.get(two.id)).toEqual({ a: '3' });
  });

  test('the parent is the newest available backup of that project and volume by data timestamp', async () => {
    const volumeId = randomUUID();
    const older = await inStatus('available', { volumeId }, 1);
    const newer = await inStatus('available', { volumeId }, 3);
    await inStatus('error', { volumeId }, 4);
    await inStatus('available', { volumeId, projectId: 'other' }, 5);
    await inStatus('available', {}, 6);
    const choose = (before?: Date) => newestBackup(database.sql, { volumeId, projectId: 'demo', before });
    expect((await choose())?.id).toBe(newer.id);
    expect((await choose(at(3)))?.id).toBe(older.id);
    expect(await choose(at(1))).toBeUndefined();
  });

  test('the newest backup of some drivers is looked for among theirs and those that name none', async () => {
    const volumeId = randomUUID();
    const nameless = await inStatus('available', { volumeId }, 1);
    const [ours, foreign] = [
      await inStatus('available', { volumeId }, 2),
      await inStatus('available', { volumeId }, 3),
    ];
    await updateBackup(database.sql, ours.id, 'available', { service: 'a.b.Ours' }, at(4));
    await updateBackup(database.sql, foreign.id, 'available', { service: 'a.c.Foreign' }, at(4));
    const choose = async (...services: string[]) =>
      (await newestBackup(database.sql, { volumeId, services }))?.id;
    expect(await choose('a.b.Ours', 'a.b')).toBe(ours.id);
    expect(await choose('a.b')).toBe(nameless.id);
    expect((await newestBackup(database.sql, { volumeId }))?.id).toBe(foreign.id);
  });

  test('the number of dependents starts at none, counts, and never falls below zero', async () => {
    const { id } = await inStatus('available');
    const dependents = async () => (await getBackup(database.sql, id)).dependents;
    await countDependent(database.sql, id, -1, at(1));
    expect(await dependents()).toBe(0);
    await countDependent(database.sql, id, 1, at(1));
    await countDependent(database.sql, id, 1, at(1));
    expect(await dependents()).toBe(2);
    await countDependent(database.sql, id, -1, at(1));
    expect(await dependents()).toBe(1);
  });

  test('a list is of one project, the newest first, in pages that neither skip nor repeat', async () => {
    const made: string[] = [];
    for (const minute of [1, 1, 1, 2, 3]) made.push((await inStatus('available', {}, minute)).id);
    await inStatus('available', { projectId: 'other' }, 9);
    const all = await listBackups(database.sql, { projectId: 'demo' });
    expect(all.map(({ id }) => id).toSorted()).toEqual(made.toSorted());
    expect(all[0]?.id).toBe(made[4]);
    const pages: string[] = [];
    for (let marker: string | undefined; ;) {
      const page = await listBackups(database.sql, { projectId: 'demo', limit: 2, marker });
      pages.push(...page.map(({ id }) => id));
      marker = page.at(-1)?.id;
      if (marker === undefined) break;
    }
    expect(pages).toEqual(all.map(({ id }) => id));
  });

  test('a list can be narrowed by name, status, volume and parent', async () => {
    const parentId = randomUUID();
    const wanted = await inStatus('error', { name: 'n', parentId });
    await inStatus('available', { name: 'n' });
    for (const query of [
      { status: 'error' },
      { parentId },
      { volumeId: wanted.volumeId },
      { name: 'n', status: 'error' },
    ]) {
      const found = await listBackups(database.sql, query);
      expect(found.map(({ id }) => id)).toEqual([wanted.id]);
    }
    await expect(listBackups(database.sql, { marker: randomUUID() })).rejects.toMatchObject({
      code: 'message-invalid',
    });
  });
}
