/** Backups of every kind through the real client, restored and compared byte for byte. */
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { openOpenStack, type OpenStack, type StageVolume } from '../../stage/open-stack.ts';

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;

let cloud: OpenStack;

beforeAll(async () => {
  cloud = await openOpenStack(inject('stageDirectory'));
});
afterAll(async () => {
  await cloud[Symbol.asyncDispose]();
});

async function expectAsBefore(volume: StageVolume): Promise<void> {
  const { status, previous_status: previous } = await cloud.volumeRow(volume.id);
  expect({ status, previous }).toEqual({ status: 'available', previous: 'backing-up' });
}

describe('a chain', () => {
  let volume: StageVolume;
  let full: string;
  let first: string;
  let second: string;
  const contents: ReturnType<StageVolume['content']>[] = [];

  beforeAll(async () => {
    volume = await cloud.makeVolume();
  });

  it('begins with a full backup', async () => {
    contents.push(volume.content());
    full = await cloud.backUp(volume.id, '--name', 'full', '--description', 'the first');
    const shown = await cloud.admin.show('backup-show', full);
    expect(shown).toMatchObject({
      status: 'available',
      is_incremental: 'False',
      container: 'volumebackups',
      size: '1',
      name: 'full',
      description: 'the first',
      has_dependent_backups: 'False',
      fail_reason: 'None',
    });
    expect(Number(shown['object_count'])).toBeGreaterThan(0);
    await expectAsBefore(volume);
  });

  it('goes on with an increment of what was written and discarded', async () => {
    await volume.write([1 * MiB, 70_000 - (70_000 % 8)], [700 * MiB, 2 * MiB]);
    await volume.discard(301 * MiB, MiB);
    contents.push(volume.content());
    first = await cloud.backUp(volume.id, '--incremental');
    const row = await cloud.backupRow(first);
    expect(row).toMatchObject({ parent_id: full, size: 1, status: 'available' });
    expect(Number(row['object_count'])).toBeLessThan(10);
    expect((await cloud.backupRow(full))['num_dependent_backups']).toBe(1);
    await expectAsBefore(volume);
  });

  it('goes on with an increment of the increment', async () => {
    await volume.write([1 * MiB + 4096, 4096], [GiB - 512, 512]);
    contents.push(volume.content());
    second = await cloud.backUp(volume.id, '--incremental');
    expect((await cloud.backupRow(second))['parent_id']).toBe(first);
    const shown = await cloud.admin.show('backup-show', first);
    expect(shown).toMatchObject({ is_incremental: 'True', has_dependent_backups: 'True' });
  });

  it('is restored to a new volume', async () => {
    const target = await cloud.restore(second);
    await cloud.expectContent(target, contents[2] ?? []);
    const [source] = await cloud.rows(
      "SELECT value FROM volume_metadata WHERE volume_id = ? AND `key` = 'src_backup_id' AND deleted = 0",
      target,
    );
    expect(source?.['value']).toBe(second);
  });

  it('is restored over what a volume held before', async () => {
    const target = await cloud.makeVolume({ blank: true });
    await target.write([0, 20 * MiB], [290 * MiB, 30 * MiB], [900 * MiB, 10 * MiB]);
    await cloud.restore(second, target.id);
    await cloud.expectContent(target.id, contents[2] ?? []);
  });

  it('is restored at each of its backups', async () => {
    const target = await cloud.makeVolume({ blank: true });
    await cloud.restore(first, target.id);
    await cloud.expectContent(target.id, contents[1] ?? []);
    await cloud.restore(full, target.id);
    await cloud.expectContent(target.id, contents[0] ?? []);
  });

  it('leaves its source untouched', async () => {
    await cloud.expectContent(volume.id, volume.content());
  });
});

describe('a snapshot of Cinder', () => {
  it('is what its backup holds, whatever is written later, and increments follow', async () => {
    const volume = await cloud.makeVolume();
    const then = volume.content();
    const { id: snapshot = '' } = await cloud.admin.show('snapshot-create', volume.id);
    await cloud.waitFor('snapshots', snapshot, 'available');
    await volume.write([0, 2 * MiB]);
    const ofSnapshot = await cloud.backUp(volume.id, '--snapshot-id', snapshot);
    expect(await cloud.backupRow(ofSnapshot)).toMatchObject({ snapshot_id: snapshot, status: 'available' });
    await cloud.waitFor('snapshots', snapshot, 'available');

    const later = volume.content();
    const { id: second = '' } = await cloud.admin.show('snapshot-create', volume.id);
    await cloud.waitFor('snapshots', second, 'available');
    const increment = await cloud.backUp(volume.id, '--incremental', '--snapshot-id', second);
    expect((await cloud.backupRow(increment))['parent_id']).toBe(ofSnapshot);

    const target = await cloud.makeVolume({ blank: true });
    await cloud.restore(ofSnapshot, target.id);
    await cloud.expectContent(target.id, then);
    await cloud.restore(increment, target.id);
    await cloud.expectContent(target.id, later);
    await cloud.admin.run('snapshot-delete', snapshot, second);
  });
});

describe('a volume in use', () => {
  it('is refused without --force, and backed up with it', async () => {
    const volume = await cloud.makeVolume();
    await cloud.execute("UPDATE volumes SET status = 'in-use' WHERE id = ?", volume.id);
    await cloud.admin.refused('backup-create', volume.id);
    const backup = await cloud.backUp(volume.id, '--force');
    expect(await cloud.volumeRow(volume.id)).toMatchObject({
      status: 'in-use',
      previous_status: 'backing-up',
    });
    const then = volume.content();
    await volume.write([10 * MiB, MiB]);
    const increment = await cloud.backUp(volume.id, '--force', '--incremental');
    const target = await cloud.restore(increment);
    await cloud.expectContent(target, volume.content());
    await cloud.restore(backup, target);
    await cloud.expectContent(target, then);
    const temporary = await cloud.rows(
      "SELECT id FROM volumes WHERE display_name LIKE 'backup-vol-%' AND deleted = 0",
    );
    expect(temporary).toEqual([]);
    await cloud.execute("UPDATE volumes SET status = 'available' WHERE id = ?", volume.id);
  });
});

describe('a volume of its own user', () => {
  it('is backed up and restored by that user', async () => {
    const { id = '' } = await cloud.demo.show('create', '1');
    await cloud.waitFor('volumes', id, 'available');
    const { id: backup = '' } = await cloud.demo.show('backup-create', '--name', 'mine', id);
    await cloud.waitFor('backups', backup, 'available');
    const { volume_id: target = '' } = await cloud.demo.show('backup-restore', backup);
    await cloud.waitFor('volumes', target, 'available');
    expect((await cloud.demo.list('backup-list')).map(({ ID }) => ID)).toContain(backup);
  });
});
