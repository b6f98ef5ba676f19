/** Which hosts Cinder knows, and whom it asks: the heartbeat, and two services with one database and one store. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { cinderConf } from '../../stage/cinder.ts';
import { deltaService, secondHost, secondService, startSecondService } from '../../stage/delta.ts';
import { openOpenStack, type OpenStack } from '../../stage/open-stack.ts';
import { stageHost } from '../../stage/settings.ts';
import { useBackupProgram } from '../../stage/stage.ts';

const MiB = 1024 * 1024;
const stopGraceMs = 60_000;

let cloud: OpenStack;

beforeAll(async () => {
  cloud = await openOpenStack(inject('stageDirectory'));
});
afterAll(async () => {
  await cloud[Symbol.asyncDispose]();
});
beforeEach(async () => {
  await useBackupProgram(cloud.stage, 'delta');
});

const stateOf = async (host: string): Promise<string | undefined> => {
  const services = await cloud.admin.list('service-list', '--binary', 'cinder-backup');
  return services.find(({ Host }) => Host === host)?.['State'];
};

const untilState = async (host: string, state: string) =>
  await cloud.until(`cinder-backup of ${host} ${state}`, async () =>
    (await stateOf(host)) === state ? true : undefined,
  );

describe('the service list', () => {
  it('says up while the service runs, and down some seconds after it stopped', async () => {
    const { daemons } = cloud.stage;
    await untilState(stageHost, 'up');
    expect(await daemons.stop(deltaService, stopGraceMs)).toBe(true);
    await untilState(stageHost, 'down');
    await daemons.startAgain(deltaService);
    await untilState(stageHost, 'up');
  });

  it('is believed by the API: a restore without a service is refused, and accepted with it', async () => {
    const { daemons } = cloud.stage;
    const volume = await cloud.makeVolume();
    const backup = await cloud.backUp(volume.id);
    await daemons.kill(deltaService);
    await untilState(stageHost, 'down');
    expect(await cloud.admin.refused('backup-restore', '--volume', volume.id, backup)).toContain('404');
    await daemons.startAgain(deltaService);
    await untilState(stageHost, 'up');
    await volume.write([0, MiB]);
    await cloud.restore(backup, volume.id);
  });

  it('takes a request that waited in the queue since it was killed', async () => {
    const { daemons } = cloud.stage;
    const volume = await cloud.makeVolume();
    await daemons.kill(deltaService);
    const backup = await cloud.requestBackup(volume.id);
    await cloud.until('a host chosen', async () =>
      (await cloud.backupRow(backup))['host'] === null ? undefined : true,
    );
    await daemons.startAgain(deltaService);
    await cloud.waitFor('backups', backup, 'available');
    const target = await cloud.restore(backup);
    await cloud.expectContent(target, volume.content());
  });

  it('has told the scheduler when it stopped: a request ends at once, and the volume is free', async () => {
    const { daemons } = cloud.stage;
    const volume = await cloud.makeVolume();
    await daemons.stop(deltaService, stopGraceMs);
    const backup = await cloud.requestBackup(volume.id);
    const row = await cloud.waitFor('backups', backup, 'error', { never: [] });
    expect(row['fail_reason']).toContain('Service not found for creating backup');
    await cloud.waitFor('volumes', volume.id, 'available', { never: [] });
    await daemons.startAgain(deltaService);
    await untilState(stageHost, 'up');
    await cloud.deleteBackup(backup);
  });
});

describe('two hosts', () => {
  beforeAll(async () => {
    await startSecondService(cloud.stage.settings, cloud.stage.daemons);
    await untilState(secondHost, 'up');
  });
  afterAll(async () => {
    const { settings, daemons } = cloud.stage;
    await useBackupProgram(cloud.stage, 'delta');
    await daemons.stop(secondService, stopGraceMs);
    const args = ['--config-file', cinderConf(settings), 'service', 'remove', 'cinder-backup', secondHost];
    await promisify(execFile)('/usr/bin/cinder-manage', args, {
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    });
    // The scheduler never forgets a host that told it of itself.
    await daemons.kill('cinder-scheduler');
    await daemons.startAgain('cinder-scheduler');
    const probe = await cloud.makeVolume();
    await cloud.until('the scheduler knows the first host again', async () => {
      const backup = await cloud.requestBackup(probe.id);
      const { status } = await cloud.until('an end', async () => {
        const row = await cloud.backupRow(backup);
        return row['status'] === 'creating' ? undefined : row;
      });
      return status === 'available' ? true : undefined;
    });
  });

  it('share the work and continue each other’s chains', async () => {
    const volume = await cloud.makeVolume();
    const used = new Set<unknown>();
    let newest = await cloud.backUp(volume.id);
    used.add((await cloud.backupRow(newest))['host']);
    for (let round = 0; used.size < 2; round += 1) {
      expect(round, 'the scheduler always picks the same host').toBeLessThan(20);
      await volume.write([(10 + round) * MiB, MiB]);
      newest = await cloud.backUp(volume.id, '--incremental');
      used.add((await cloud.backupRow(newest))['host']);
    }
    expect(used).toEqual(new Set([stageHost, secondHost]));
    const target = await cloud.restore(newest);
    await cloud.expectContent(target, volume.content());
  });

  it('serve for each other: what one made, the other restores and deletes', async () => {
    const { daemons } = cloud.stage;
    const volume = await cloud.makeVolume();
    const backup = await cloud.backUp(volume.id);
    const maker = (await cloud.backupRow(backup))['host'];
    const [stopped, other] = maker === stageHost ? [deltaService, secondHost] : [secondService, stageHost];
    await daemons.stop(stopped, stopGraceMs);
    await untilState(String(maker), 'down');
    const target = await cloud.restore(backup);
    await cloud.expectContent(target, volume.content());
    expect((await cloud.backupRow(backup))['host']).toBe(other);
    await cloud.deleteBackup(backup);
    expect(await cloud.objectsOf(backup)).toEqual([]);
    await daemons.startAgain(stopped);
    await untilState(String(maker), 'up');
  });
});
