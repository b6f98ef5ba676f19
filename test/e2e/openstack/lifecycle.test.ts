/** What else an operator does with backups: deletes, exports, imports, resets, quota, metadata. */
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { openOpenStack, type OpenStack, type StageVolume } from '../../stage/open-stack.ts';

const MiB = 1024 * 1024;

let cloud: OpenStack;

beforeAll(async () => {
  cloud = await openOpenStack(inject('stageDirectory'));
});
afterAll(async () => {
  await cloud[Symbol.asyncDispose]();
});

const usage = async () => [await cloud.usageOf('backups'), await cloud.usageOf('backup_gigabytes')];
const plus = ([backups = 0, gigabytes = 0]: readonly number[], more: number) => [
  backups + more,
  gigabytes + more,
];

describe('deletes and quota', () => {
  let volume: StageVolume;
  let before: readonly number[];
  let full: string;
  let increment: string;

  beforeAll(async () => {
    volume = await cloud.makeVolume();
    before = await usage();
    full = await cloud.backUp(volume.id);
    await volume.write([2 * MiB, MiB]);
    increment = await cloud.backUp(volume.id, '--incremental');
  });

  it('count two backups of one gigabyte', async () => {
    expect(await usage()).toEqual(plus(before, 2));
  });

  it('refuse a backup that another one needs, also by force', async () => {
    await cloud.admin.refused('backup-delete', full);
    await cloud.admin.refused('backup-delete', '--force', full);
    expect(await cloud.backupRow(full)).toMatchObject({
      status: 'available',
      deleted: 0,
      num_dependent_backups: 1,
    });
  });

  it('take the newest first, with its objects, and tell the parent', async () => {
    expect(await cloud.objectsOf(increment)).not.toEqual([]);
    await cloud.deleteBackup(increment);
    expect(await cloud.backupRow(full)).toMatchObject({ num_dependent_backups: 0, deleted: 0 });
    expect(await cloud.objectsOf(increment)).toEqual([]);
    expect(await usage()).toEqual(plus(before, 1));
  });

  it('leave nothing in the end: no object, no quota, no reservation', async () => {
    await cloud.deleteBackup(full);
    expect(await cloud.objectsOf(full)).toEqual([]);
    expect(await usage()).toEqual(before);
    expect(await cloud.rows('SELECT uuid FROM reservations WHERE deleted = 0 AND delta < 0')).toEqual([]);
    const { status, deleted_at: deletedAt } = await cloud.backupRow(full);
    expect(status).toBe('deleted');
    expect(deletedAt).not.toBeNull();
  });

  it('let the volume be deleted afterwards, with what was kept on the storage', async () => {
    await cloud.admin.run('delete', volume.id);
    await cloud.until('the volume deleted', async () =>
      (await cloud.volumeRow(volume.id))['deleted'] === 1 ? true : undefined,
    );
  });
});

describe('a volume whose backups still exist', () => {
  it('can be deleted, and restored from them', async () => {
    const volume = await cloud.makeVolume();
    const full = await cloud.backUp(volume.id);
    await volume.write([2 * MiB, MiB]);
    const increment = await cloud.backUp(volume.id, '--incremental');
    await cloud.admin.run('delete', volume.id);
    await cloud.until('the volume deleted', async () =>
      (await cloud.volumeRow(volume.id))['deleted'] === 1 ? true : undefined,
    );
    const target = await cloud.restore(increment);
    await cloud.expectContent(target, volume.content());
    await cloud.deleteBackup(increment);
    await cloud.deleteBackup(full);
  });
});

describe('export and import', () => {
  it('bring back a chain whose rows were lost', async () => {
    const volume = await cloud.makeVolume();
    const full = await cloud.backUp(volume.id, '--name', 'kept');
    await volume.write([2 * MiB, MiB]);
    const increment = await cloud.backUp(volume.id, '--incremental');
    const records = [
      await cloud.admin.show('backup-export', full),
      await cloud.admin.show('backup-export', increment),
    ];
    expect(records[0]).toMatchObject({ backup_service: 'cinder.backup.drivers.swift.SwiftBackupDriver' });
    await cloud.admin.refused(
      'backup-import',
      records[0]?.['backup_service'] ?? '',
      records[0]?.['backup_url'] ?? '',
    );

    await cloud.execute('DELETE FROM backups WHERE id = ?', increment);
    await cloud.execute('DELETE FROM backups WHERE id = ?', full);
    for (const [index, id] of [full, increment].entries()) {
      const { backup_service: service = '', backup_url: url = '' } = records[index] ?? {};
      const imported = await cloud.admin.show('backup-import', service, url);
      expect(imported['id']).toBe(id);
      await cloud.waitFor('backups', id, 'available');
    }
    expect(await cloud.backupRow(full)).toMatchObject({
      volume_id: volume.id,
      display_name: 'kept',
      size: 1,
    });
    expect((await cloud.backupRow(increment))['parent_id']).toBe(full);
    const target = await cloud.restore(increment);
    await cloud.expectContent(target, volume.content());
    await cloud.deleteBackup(increment);
    await cloud.deleteBackup(full);
  });
});

describe('reset-state', () => {
  it('makes an error of a backup, and the error available again', async () => {
    const volume = await cloud.makeVolume();
    const backup = await cloud.backUp(volume.id);
    await cloud.admin.run('backup-reset-state', '--state', 'error', backup);
    await cloud.waitFor('backups', backup, 'error', { never: [] });
    await cloud.admin.refused('backup-restore', backup);
    await cloud.admin.run('backup-reset-state', '--state', 'available', backup);
    await cloud.waitFor('backups', backup, 'available', { never: [] });
    const target = await cloud.restore(backup);
    await cloud.expectContent(target, volume.content());
  });
});

describe('a forced delete', () => {
  it('ends a backup that is being created, and leaves nothing of it', async () => {
    const volume = await cloud.makeVolume();
    const before = await usage();
    let backup = '';
    {
      await using held = await cloud.holdSwift();
      backup = await cloud.requestBackup(volume.id);
      await cloud.until('the backup begun', async () =>
        (await cloud.backupRow(backup))['host'] === null ? undefined : true,
      );
      await cloud.admin.refused('backup-delete', backup);
      await cloud.admin.run('backup-delete', '--force', backup);
      expect(held).toBeDefined();
    }
    await cloud.until('the backup deleted', async () =>
      (await cloud.backupRow(backup))['deleted'] === 1 ? true : undefined,
    );
    await cloud.waitFor('volumes', volume.id, 'available');
    expect(await cloud.objectsOf(backup)).toEqual([]);
    expect(await usage()).toEqual(before);
    const next = await cloud.backUp(volume.id);
    const target = await cloud.restore(next);
    await cloud.expectContent(target, volume.content());
  });
});

describe('a bootable volume', () => {
  it('comes back bootable, with its metadata and that of its image', async () => {
    const volume = await cloud.makeVolume();
    await cloud.admin.run('metadata', volume.id, 'set', 'tier=gold');
    await cloud.admin.run('set-bootable', volume.id, 'true');
    const image = ['image_id=0b1a5e0e-7a4c-4c55-9d4e-4f4b7d4f4a11', 'image_name=debian', 'hw_disk_bus=scsi'];
    await cloud.admin.run('image-metadata', volume.id, 'set', ...image);
    const backup = await cloud.backUp(volume.id);
    const target = await cloud.restore(backup);
    await cloud.expectContent(target, volume.content());
    expect((await cloud.volumeRow(target))['bootable']).toBe(1);
    const glance = await cloud.rows(
      'SELECT `key`, value FROM volume_glance_metadata WHERE volume_id = ? AND deleted = 0 ORDER BY `key`',
      target,
    );
    expect(glance.map(({ key, value }) => `${key}=${value}`)).toEqual(image.toSorted());
    const own = await cloud.rows(
      'SELECT `key`, value FROM volume_metadata WHERE volume_id = ? AND deleted = 0 ORDER BY `key`',
      target,
    );
    expect(own.map(({ key, value }) => `${key}=${value}`)).toEqual([`src_backup_id=${backup}`, 'tier=gold']);
  });
});
