/**
 * The hand-over: Python's cinder-backup and cinder-delta take each other's place under the same host name, in the middle of chains,
 * and in the middle of work.
 */
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { pythonBackup } from '../../stage/cinder.ts';
import { deltaService } from '../../stage/delta.ts';
import { openOpenStack, type OpenStack, type StageVolume } from '../../stage/open-stack.ts';
import { useBackupProgram } from '../../stage/stage.ts';

const MiB = 1024 * 1024;

let cloud: OpenStack;

beforeAll(async () => {
  cloud = await openOpenStack(inject('stageDirectory'));
});
afterAll(async () => {
  await useBackupProgram(cloud.stage, 'delta');
  await cloud[Symbol.asyncDispose]();
});

describe('a chain that both programs write', () => {
  let volume: StageVolume;
  const backups: string[] = [];
  const contents: ReturnType<StageVolume['content']>[] = [];

  const extend = async (...args: readonly string[]) => {
    contents.push(volume.content());
    const backup = await cloud.backUp(volume.id, ...args);
    const parent = backups.at(-1);
    if (parent !== undefined) expect((await cloud.backupRow(backup))['parent_id']).toBe(parent);
    backups.push(backup);
  };
  const expectRestored = async (index: number, target: string) => {
    await cloud.restore(backups[index] ?? '', target);
    await cloud.expectContent(target, contents[index] ?? []);
  };

  it('is begun by Python', async () => {
    await useBackupProgram(cloud.stage, 'python');
    volume = await cloud.makeVolume();
    await extend();
    await volume.write([1 * MiB, MiB], [500 * MiB, 2 * MiB]);
    await extend('--incremental');
  });

  it('is continued by cinder-delta: by comparison first, then by what changed between its own snapshots', async () => {
    await useBackupProgram(cloud.stage, 'delta');
    await volume.write([2 * MiB, 4096], [800 * MiB, MiB]);
    await volume.discard(500 * MiB, MiB);
    await extend('--incremental');
    await volume.write([2 * MiB, 8192]);
    await extend('--incremental');
    expect(Number((await cloud.backupRow(backups[2] ?? ''))['object_count'])).toBeLessThan(8);
  });

  it('is restored by cinder-delta at each of its backups', async () => {
    const target = await cloud.makeVolume({ blank: true });
    await target.write([600 * MiB, 10 * MiB]);
    for (const index of [3, 1, 0]) await expectRestored(index, target.id);
  });

  it('is continued by Python again, and restored by Python onto an existing volume', async () => {
    await useBackupProgram(cloud.stage, 'python');
    await volume.write([3 * MiB, 4096]);
    await extend('--incremental');
    const target = await cloud.makeVolume({ blank: true });
    await expectRestored(4, target.id);
  });

  it('is deleted from its end by both', async () => {
    await cloud.deleteBackup(backups[4] ?? '');
    await cloud.deleteBackup(backups[3] ?? '');
    await useBackupProgram(cloud.stage, 'delta');
    for (const backup of backups.slice(0, 3).toReversed()) await cloud.deleteBackup(backup);
    for (const backup of backups) expect(await cloud.objectsOf(backup)).toEqual([]);
  });
});

describe('work that is cut by the hand-over', () => {
  it('of Python is put right by cinder-delta: the backup ends, its volume is free, the next one works', async () => {
    await useBackupProgram(cloud.stage, 'python');
    const volume = await cloud.makeVolume();
    let backup = '';
    {
      await using held = await cloud.holdSwift();
      expect(held).toBeDefined();
      backup = await cloud.requestBackup(volume.id);
      await cloud.until('the backup begun', async () =>
        (await cloud.backupRow(backup))['service'] === null ? undefined : true,
      );
      await cloud.stage.daemons.kill(pythonBackup);
    }
    await useBackupProgram(cloud.stage, 'delta');
    await cloud.waitFor('backups', backup, 'error', { never: [] });
    await cloud.waitFor('volumes', volume.id, 'available', { never: [] });
    expect((await cloud.backupRow(backup))['fail_reason']).not.toBeNull();
    const next = await cloud.backUp(volume.id);
    const target = await cloud.restore(next);
    await cloud.expectContent(target, volume.content());
    await cloud.deleteBackup(backup);
    expect(await cloud.objectsOf(backup)).toEqual([]);
  });

  it('of cinder-delta is put right by Python', async () => {
    const volume = await cloud.makeVolume();
    let backup = '';
    {
      await using held = await cloud.holdSwift();
      expect(held).toBeDefined();
      backup = await cloud.requestBackup(volume.id);
      await cloud.until('the backup begun', async () =>
        (await cloud.backupRow(backup))['service'] === null ? undefined : true,
      );
      await cloud.stage.daemons.kill(deltaService);
    }
    await useBackupProgram(cloud.stage, 'python');
    await cloud.waitFor('backups', backup, 'error', { never: [] });
    await cloud.waitFor('volumes', volume.id, 'available', { never: [] });
    const next = await cloud.backUp(volume.id);
    await cloud.deleteBackup(backup);
    await cloud.deleteBackup(next);
    // A snapshot that cinder-delta left must not keep Cinder from deleting the volume.
    await cloud.admin.run('delete', volume.id);
    await cloud.until('the volume deleted', async () =>
      (await cloud.volumeRow(volume.id))['deleted'] === 1 ? true : undefined,
    );
  });
});
