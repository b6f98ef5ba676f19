/**
 * What breaks under a running cloud: the broker, the database, the agent, the service itself. Work stands still in its middle
 * because Swift does not answer; then something dies. Nothing is stuck, nothing is lost, and the next request works.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'amqplib';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { openCinderDatabase, rabbitIsReady } from '../../stage/brokers.ts';
import { deltaAgent, deltaService } from '../../stage/delta.ts';
import { openOpenStack, type OpenStack, type StageVolume } from '../../stage/open-stack.ts';
import { operationsOf } from '../../stage/operations.ts';
import { addressesOf, stageHost } from '../../stage/settings.ts';
import { useBackupProgram } from '../../stage/stage.ts';

const MiB = 1024 * 1024;

let cloud: OpenStack;

beforeAll(async () => {
  cloud = await openOpenStack(inject('stageDirectory'));
  await useBackupProgram(cloud.stage, 'delta');
});
afterAll(async () => {
  await cloud[Symbol.asyncDispose]();
});

afterEach(async () => {
  for (const name of [deltaAgent, deltaService]) await cloud.stage.daemons.startAgain(name);
});

async function makeLargeVolume(): Promise<StageVolume> {
  const volume = await cloud.makeVolume();
  await volume.write([100 * MiB, 150 * MiB]);
  return volume;
}

/** Waits until the service works on the backup. */
async function untilRunning(backupId: string, verb: string): Promise<void> {
  await cloud.until(`${verb} of ${backupId} running`, async () => {
    const operations = await operationsOf(cloud.stage.settings);
    const found = operations.find((each) => each.backup_id === backupId && each.verb === verb);
    return found?.state === 'running' ? true : undefined;
  });
}

/** Waits until a service that was started has looked at earlier work: it takes a restore that was sent before for an interrupted one, as Cinder does. */
async function untilServing(): Promise<void> {
  const { rest } = addressesOf(cloud.stage.settings);
  await cloud.until('the service serving', async () => {
    const answer = await fetch(`${rest}/v1/operations`).catch(() => undefined);
    return answer?.ok === true ? true : undefined;
  });
}

async function untilUp(): Promise<void> {
  await cloud.until('the service up', async () => {
    const services = await cloud.admin.list('service-list', '--binary', 'cinder-backup').catch(() => []);
    return services.some(({ Host, State }) => Host === stageHost && State === 'up') ? true : undefined;
  });
}

/** An increment of the volume, and a restore: what must work after every fault. */
async function expectNextRequestsWork(volume: StageVolume): Promise<void> {
  await untilUp();
  await volume.write([7 * MiB, MiB]);
  const backup = await cloud.backUp(volume.id);
  const target = await cloud.restore(backup);
  await cloud.expectContent(target, volume.content());
}

async function expectOnlyUsefulSnapshots(volumeId: string): Promise<void> {
  const kept = await cloud.rows(
    "SELECT id FROM backups WHERE volume_id = ? AND deleted = 0 AND status = 'available'",
    volumeId,
  );
  const snapshots = await cloud.snapshotsOf(volumeId);
  const stray = snapshots.filter((name) => !kept.some(({ id }) => name.startsWith(`backup.${id}.`)));
  expect(stray).toEqual([]);
}

/** What is sent before the service has declared its queue again is lost to it, as to cinder-backup. */
async function restartBroker(): Promise<void> {
  const { settings, daemons } = cloud.stage;
  const linksUp = async () =>
    (await daemons.log(deltaService)).match(/"link":"rpc server".*the link to the message broker is up/gu)
      ?.length ?? 0;
  const before = await linksUp();
  await daemons.kill('rabbitmq');
  await daemons.startAgain('rabbitmq');
  await rabbitIsReady(settings, daemons);
  await daemons.ready(deltaService, 60_000, async () => (await linksUp()) > before);
}

async function restartDatabase(): Promise<void> {
  const { settings, daemons } = cloud.stage;
  await daemons.kill('mariadb');
  await sleep(3000);
  await daemons.startAgain('mariadb');
  await daemons.ready('mariadb', 60_000, async () => {
    const connection = await openCinderDatabase(settings).catch(() => undefined);
    await connection?.end();
    return connection !== undefined;
  });
}

describe.each([
  ['the broker', restartBroker],
  ['the database', restartDatabase],
])('%s killed and restarted', (_, restart) => {
  let volume: StageVolume;
  let backup: string;

  it('during a create: the backup becomes available, and the next requests work', async () => {
    volume = await makeLargeVolume();
    {
      await using held = await cloud.holdSwift();
      expect(held).toBeDefined();
      backup = await cloud.requestBackup(volume.id);
      await untilRunning(backup, 'create');
      await restart();
    }
    await cloud.waitFor('backups', backup, 'available');
    await cloud.waitFor('volumes', volume.id, 'available');
    await expectNextRequestsWork(volume);
  });

  it('during a restore: the volume holds the backup', async () => {
    const target = await cloud.makeVolume();
    const content = volume.content().slice(0, -1);
    {
      await using held = await cloud.holdSwift();
      expect(held).toBeDefined();
      await cloud.admin.run('backup-restore', '--volume', target.id, backup);
      await untilRunning(backup, 'restore');
      await restart();
    }
    await cloud.waitFor('volumes', target.id, 'available');
    await cloud.waitFor('backups', backup, 'available');
    await cloud.expectContent(target.id, content);
    await untilUp();
  });
});

describe('the agent killed', () => {
  it('during a create, and started again: the backup goes on and becomes available', async () => {
    const volume = await makeLargeVolume();
    let backup = '';
    {
      await using held = await cloud.holdSwift();
      expect(held).toBeDefined();
      backup = await cloud.requestBackup(volume.id);
      await untilRunning(backup, 'create');
      await sleep(500);
      await cloud.stage.daemons.kill(deltaAgent);
      await cloud.stage.daemons.startAgain(deltaAgent);
    }
    await cloud.waitFor('backups', backup, 'available');
    const target = await cloud.restore(backup);
    await cloud.expectContent(target, volume.content());
  });

  it('during a restore: it ends, at worst in an error that can be repeated, and the backup stays available', async () => {
    const volume = await makeLargeVolume();
    const backup = await cloud.backUp(volume.id);
    const target = await cloud.makeVolume();
    await cloud.admin.run('backup-restore', '--volume', target.id, backup);
    await cloud.stage.daemons.kill(deltaAgent);
    await cloud.stage.daemons.startAgain(deltaAgent);
    await cloud.waitFor('backups', backup, 'available');
    const { status } = await cloud.volumeRow(target.id);
    if (status === 'error_restoring') {
      await cloud.admin.run('reset-state', '--state', 'available', target.id);
      await cloud.restore(backup, target.id);
    }
    await cloud.expectContent(target.id, volume.content());
  });

  it(
    'and left dead: a backup ends in an error that names it, and its volume is free',
    { timeout: 600_000 },
    async () => {
      const volume = await cloud.makeVolume();
      await cloud.stage.daemons.kill(deltaAgent);
      const backup = await cloud.requestBackup(volume.id);
      const row = await cloud.waitFor('backups', backup, 'error', { never: [], timeoutMs: 500_000 });
      expect(row['fail_reason']).toContain('agent http://127.0.0.1:');
      await cloud.waitFor('volumes', volume.id, 'available', { never: [] });
      const messages = await cloud.rows('SELECT event_id FROM messages WHERE resource_uuid = ?', backup);
      expect(messages).not.toEqual([]);
      await cloud.stage.daemons.startAgain(deltaAgent);
      await cloud.deleteBackup(backup);
      await expectNextRequestsWork(volume);
    },
  );
});

/** As oslo.messaging wraps a cast. */
const castOf = (method: string, version: string) =>
  JSON.stringify({
    'oslo.version': '2.0',
    'oslo.message': JSON.stringify({ method, args: {}, version, _unique_id: randomUUID() }),
  });

describe('messages that are not requests', () => {
  it('harm nothing: garbage, an unknown method, and one of a version to come', async () => {
    const { rabbit } = addressesOf(cloud.stage.settings);
    const connection = await connect(rabbit.replace(/^rabbit:/u, 'amqp:'));
    const channel = await connection.createConfirmChannel();
    const bodies = [
      '',
      'no JSON {',
      '{}',
      '[1]',
      castOf('create_backup', '3.0'),
      castOf('drop_tables', '2.0'),
    ];
    for (const body of bodies) {
      channel.publish('openstack', `cinder-backup.${stageHost}`, Buffer.from(body), {
        contentType: 'application/json',
        contentEncoding: 'utf-8',
      });
    }
    await channel.waitForConfirms();
    await connection.close();
    await expectNextRequestsWork(await cloud.makeVolume());
  });
});

describe('the service killed', () => {
  // Before it is asked for a snapshot, while it reads and stores, and about when it is done.
  it.each([0, 300, 1200])(
    '%i ms into a create: nothing is stuck, and nothing is left over',
    async (delayMs) => {
      const volume = await cloud.makeVolume();
      const backup = await cloud.requestBackup(volume.id);
      await sleep(delayMs);
      await cloud.stage.daemons.kill(deltaService);
      await cloud.stage.daemons.startAgain(deltaService);
      await untilServing();
      const { status } = await cloud.until('the end of the backup', async () => {
        const row = await cloud.backupRow(backup);
        return row['status'] === 'creating' ? undefined : row;
      });
      expect(['available', 'error']).toContain(status);
      await cloud.waitFor('volumes', volume.id, 'available', { never: [] });
      if (status === 'error') {
        // Swift lets nobody but the user remove the objects: they go when the user deletes the backup.
        await untilUp();
        await cloud.deleteBackup(backup);
        expect(await cloud.objectsOf(backup)).toEqual([]);
      } else {
        const target = await cloud.restore(backup);
        await cloud.expectContent(target, volume.content());
      }
      await expectOnlyUsefulSnapshots(volume.id);
    },
  );

  it('while a create stands still: the backup ends in error, and the next requests work', async () => {
    const volume = await makeLargeVolume();
    let backup = '';
    {
      await using held = await cloud.holdSwift();
      expect(held).toBeDefined();
      backup = await cloud.requestBackup(volume.id);
      await untilRunning(backup, 'create');
      await cloud.stage.daemons.kill(deltaService);
    }
    await cloud.stage.daemons.startAgain(deltaService);
    await cloud.waitFor('backups', backup, 'error', { never: [] });
    await cloud.waitFor('volumes', volume.id, 'available', { never: [] });
    await expectNextRequestsWork(volume);
    await cloud.deleteBackup(backup);
    await expectOnlyUsefulSnapshots(volume.id);
  });

  it('while a restore stands still: the backup is free again, and the restore can be repeated', async () => {
    const volume = await makeLargeVolume();
    const backup = await cloud.backUp(volume.id);
    const target = await cloud.makeVolume();
    {
      await using held = await cloud.holdSwift();
      expect(held).toBeDefined();
      await cloud.admin.run('backup-restore', '--volume', target.id, backup);
      await untilRunning(backup, 'restore');
      await cloud.stage.daemons.kill(deltaService);
    }
    await cloud.stage.daemons.startAgain(deltaService);
    await cloud.waitFor('backups', backup, 'available');
    await cloud.waitFor('volumes', target.id, 'error_restoring', { never: [] });
    await untilUp();
    await cloud.admin.run('reset-state', '--state', 'available', target.id);
    await cloud.restore(backup, target.id);
    await cloud.expectContent(target.id, volume.content());
  });

  it('while a delete stands still: it ends, and can be repeated by the user whose token it needs', async () => {
    const volume = await cloud.makeVolume();
    const before = await cloud.usageOf('backups');
    const backup = await cloud.backUp(volume.id);
    {
      await using held = await cloud.holdSwift();
      expect(held).toBeDefined();
      await cloud.admin.run('backup-delete', backup);
      await untilRunning(backup, 'delete');
      await cloud.stage.daemons.kill(deltaService);
    }
    await cloud.stage.daemons.startAgain(deltaService);
    await cloud.waitFor('backups', backup, 'error', { never: [] });
    await untilUp();
    await cloud.admin.run('backup-delete', backup);
    await cloud.until('the backup deleted', async () =>
      (await cloud.backupRow(backup))['deleted'] === 1 ? true : undefined,
    );
    expect(await cloud.objectsOf(backup)).toEqual([]);
    expect(await cloud.usageOf('backups')).toBe(before);
    await expectOnlyUsefulSnapshots(volume.id);
  });
});
