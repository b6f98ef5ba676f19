/** What holds of statements on volumes, snapshots and what belongs to them, whatever the database is. */
import { randomUUID } from 'node:crypto';
import { beforeEach, expect, test } from 'vitest';
import { insertBackup } from '../../src/database/backups.ts';
import type { Database } from '../../src/database/database.ts';
import { insertFailureMessage } from '../../src/database/messages.ts';
import { readTime } from '../../src/database/row-values.ts';
import { getSnapshot, insertSnapshot, listSnapshots, moveSnapshot } from '../../src/database/snapshots.ts';
import { findGlanceMetadata, replaceGlanceMetadata } from '../../src/database/volume-glance-metadata.ts';
import {
  listVolumeMetadata,
  replaceVolumeMetadata,
  setVolumeMetadata,
} from '../../src/database/volume-metadata.ts';
import {
  getVolume,
  insertVolume,
  knownVolumes,
  listBackedUpVolumes,
  listVolumes,
  lockVolume,
  moveVolume,
  readVolumeStatus,
  setVolumeEncryptionKey,
} from '../../src/database/volumes.ts';
import { newBackup, newVolume } from '../database/rows.ts';
import type { OpenEmpty } from './database.ts';

const now = new Date('2026-11-22T09:00:00Z');
const volumeTypeId = '7f6b5a2e-1f0c-4f43-9a53-0c8f3f5d2b11';

export function volumeStatements(open: OpenEmpty): void {
  let database: Database;
  beforeEach(async () => {
    database = await open();
  });

  async function someVolume(): Promise<string> {
    const volume = newVolume({ volumeTypeId });
    await insertVolume(database.sql, volume, now);
    return volume.id;
  }

  test('a volume moves only from the status that is expected', async () => {
    const id = await someVolume();
    const backUp = () =>
      moveVolume(
        database.sql,
        id,
        { from: ['available', 'in-use'], to: 'backing-up' },
        { previousStatus: 'available' },
        now,
      );
    await backUp();
    await expect(backUp()).rejects.toMatchObject({ code: 'stale-update', details: { status: 'backing-up' } });
    expect(await getVolume(database.sql, id)).toMatchObject({
      status: 'backing-up',
      previousStatus: 'available',
    });
  });

  test('volumes that had a backup are listed once, in pages, with their name on the storage', async () => {
    const ids = (await Promise.all([someVolume(), someVolume(), someVolume(), someVolume()])).toSorted();
    const [first = '', second = '', third = '', without = ''] = ids;
    for (const volumeId of [first, first, second, third]) {
      await insertBackup(database.sql, newBackup({ volumeId }), now);
    }
    const { sql } = database;
    await sql.updateTable('backups').set({ service: 'ours' }).where('volume_id', '=', first).execute();
    await sql.updateTable('backups').set({ service: 'other' }).where('volume_id', '=', second).execute();
    await sql
      .updateTable('volumes')
      .set({ _name_id: without, deleted: true })
      .where('id', '=', third)
      .execute();
    const page = { services: ['ours'], after: '', limit: 1 };
    const host = 'host@file#file';
    expect(await listBackedUpVolumes(sql, page)).toEqual([{ id: first, nameId: first, host }]);
    expect(await listBackedUpVolumes(sql, { ...page, after: first, limit: 9 })).toEqual([
      { id: third, nameId: without, host },
    ]);
  });

  test('a locked volume is moved by nobody else until the transaction ends', async () => {
    const id = await someVolume();
    const step = { from: ['available'], to: 'error' } as const;
    let other: Promise<void> | undefined;
    await database.transaction(async (sql) => {
      await lockVolume(sql, id);
      other = moveVolume(database.sql, id, { from: ['available'], to: 'backing-up' }, {}, now);
      other.catch(() => {});
      await moveVolume(sql, id, step, {}, now);
    });
    await expect(other).rejects.toMatchObject({ code: 'stale-update', details: { status: 'error' } });
    expect(await readVolumeStatus(database.sql, id)).toBe('error');
    await database.transaction((sql) => lockVolume(sql, randomUUID()));
  });

  test('the status of a volume tells that it is gone, and then it gets no key', async () => {
    const id = await someVolume();
    await setVolumeEncryptionKey(database.sql, id, volumeTypeId, now);
    expect((await getVolume(database.sql, id)).encryptionKeyId).toBe(volumeTypeId);
    await database.sql.updateTable('volumes').set({ deleted: true }).where('id', '=', id).execute();
    expect(await readVolumeStatus(database.sql, id)).toBe('deleted');
    expect(await readVolumeStatus(database.sql, randomUUID())).toBeUndefined();
    await expect(setVolumeEncryptionKey(database.sql, id, null, now)).rejects.toMatchObject({
      code: 'not-found',
    });
  });

  test('a volume of another project is not found', async () => {
    const id = await someVolume();
    await expect(getVolume(database.sql, id, 'other')).rejects.toMatchObject({ code: 'not-found' });
    expect(await listVolumes(database.sql, { projectId: 'other' })).toEqual([]);
    expect(await listVolumes(database.sql, { projectId: 'demo' })).toHaveLength(1);
  });

  test('known volumes are told apart from unknown ones in any number', async () => {
    const id = await someVolume();
    const ids = [...Array.from({ length: 1200 }, () => randomUUID()), id];
    expect(await knownVolumes(database.sql, ids)).toEqual(new Set([id]));
  });

  test('setting metadata leaves other keys, replacing does not', async () => {
    const id = await someVolume();
    const read = async () => (await listVolumeMetadata(database.sql, [id])).get(id);
    await setVolumeMetadata(database.sql, id, { a: '1', b: '2' }, now);
    await setVolumeMetadata(database.sql, id, { b: '3' }, now);
    expect(await read()).toEqual({ a: '1', b: '3' });
    await replaceVolumeMetadata(database.sql, id, { c: '4' }, now);
    expect(await read()).toEqual({ c: '4' });
  });

  test('image metadata makes a volume bootable', async () => {
    const id = await someVolume();
    await replaceGlanceMetadata(database.sql, id, { image_name: 'debian' }, now);
    await replaceGlanceMetadata(database.sql, id, { image_name: 'debian-13' }, now);
    expect(await findGlanceMetadata(database.sql, id)).toEqual({ image_name: 'debian-13' });
    expect((await getVolume(database.sql, id)).bootable).toBe(true);
  });

  test('a snapshot moves only from the status that is expected, and a deleted one is gone', async () => {
    const volumeId = await someVolume();
    const id = randomUUID();
    await insertSnapshot(
      database.sql,
      {
        id,
        volumeId,
        projectId: 'demo',
        userId: 'u',
        volumeSizeGiB: 1,
        name: 's',
        description: null,
        volumeTypeId,
      },
      now,
    );
    await moveSnapshot(database.sql, id, { from: ['creating'], to: 'available' }, now);
    const again = moveSnapshot(database.sql, id, { from: ['creating'], to: 'available' }, now);
    await expect(again).rejects.toMatchObject({ code: 'stale-update' });
    expect(await listSnapshots(database.sql, { volumeId, status: 'available' })).toHaveLength(1);
    await moveSnapshot(database.sql, id, { from: ['available'], to: 'deleted' }, now);
    await expect(getSnapshot(database.sql, id)).rejects.toMatchObject({ code: 'not-found' });
  });

  test('a failure message has the event of cinder and lives as long as it is told', async () => {
    const backupId = randomUUID();
    await insertFailureMessage(
      database.sql,
      { verb: 'create', detail: 'driver', resourceId: backupId, projectId: 'p', requestId: 'req-1' },
      { now, timeToLiveMs: 86_400_000 },
    );
    const row = await database.sql.selectFrom('messages').selectAll().executeTakeFirstOrThrow();
    expect(row).toMatchObject({
      event_id: 'VOLUME_VOLUME_BACKUP_013_020',
      resource_uuid: backupId,
      message_level: 'ERROR',
    });
    expect(readTime(row.expires_at)).toEqual(new Date('2026-11-23T09:00:00Z'));
  });
}
