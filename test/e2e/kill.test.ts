/**
 * The service as a real process, killed as a power failure kills it: after a restart no row is stuck, nothing half made
 * is left in the store or on the storage, and the next backup is right.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { markerName } from '../../src/store/posix-root.ts';
import { startEngine, type Engine, type EngineVolume } from '../support/engine.ts';
import { createRandom } from '../support/random-volume.ts';
import { expectContent } from '../support/tracked-volume.ts';

const MiB = 1024 * 1024;
const sizeBytes = 12 * MiB;

const random = createRandom();
let engine: Engine;
let volume: EngineVolume;

// bz2 is the slowest codec: it leaves time to hit every part of a backup.
beforeAll(async () => {
  engine = await startEngine({ codec: 'bz2', objectBytes: MiB / 2 });
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
});
beforeEach(async () => {
  volume = await engine.addVolume(sizeBytes);
  await volume.file.write([{ offset: 0, length: sizeBytes }]);
});

/** Waits until the newest operation on the backup has handled that part of the volume; false if it ends before. */
async function reached(backupId: string, part: number): Promise<boolean> {
  for (;;) {
    const [operation] = await engine.client.operations(backupId);
    if (operation?.state === 'running' && operation.progress.done_bytes >= part * sizeBytes) return true;
    if (operation?.finished_at !== null) {
      expect(operation?.state).toBe('succeeded');
      return false;
    }
    await sleep(1);
  }
}

/**
 * Calls `start`, which returns a backup's id, and ends the service when the operation has handled that part. If the
 * operation was faster, the row tells, and another one is started; fails after five.
 */
async function caught(how: 'stop' | 'kill', part: number, start: () => Promise<string>): Promise<string> {
  for (let tries = 1; tries <= 5; tries += 1) {
    const id = await start();
    if (await reached(id, part)) {
      if (how === 'kill') await engine.service.kill();
      const row = engine.rows().find((each) => each.id === id);
      await engine.restart(how);
      if (row?.status !== 'available') return id;
    }
    await expect.poll(() => snapshotsOf(volume.id)).toHaveLength(1);
  }
  throw new Error('five operations were too fast to be hit');
}

/** Starts an increment of the whole volume. */
async function startIncrement(): Promise<string> {
  await volume.file.write([{ offset: 0, length: sizeBytes }]);
  return await engine.client.createBackup({ volumeId: volume.id, incremental: true });
}

const filesOf = async (backupId: string): Promise<readonly string[]> => {
  const entries = await readdir(engine.storeDir, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.includes(backupId))
    .map((entry) => entry.name);
};

const strayFiles = async (): Promise<readonly string[]> => {
  const known = [markerName, ...engine.rows().map((row) => row.service_metadata ?? '-')];
  const entries = await readdir(engine.storeDir, { recursive: true, withFileTypes: true });
  const names = entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
  return names.filter((name) => !known.some((prefix) => name.startsWith(prefix)));
};

const snapshotsOf = async (volumeId: string): Promise<readonly string[]> => {
  const names = await readdir(join(engine.stateDir, 'volumes', '.snapshots', `volume-${volumeId}`)).catch(
    () => [],
  );
  return names.filter((name) => !name.endsWith('.json'));
};

async function expectNextBackupIsRight(): Promise<void> {
  await volume.file.write([{ offset: 5 * MiB + 512, length: 65_536 }]);
  const row = await engine.backup(volume.id, 'incremental');
  const content = volume.file.content();
  const target = await engine.addVolume(sizeBytes);
  await target.file.write([{ offset: 0, length: sizeBytes }]);
  await engine.restore(row.id, target.id);
  await expectContent(target.file.path, content);
  expect(await engine.verify(row.id)).toEqual([]);
  expect(await strayFiles()).toEqual([]);
  const left = await snapshotsOf(volume.id);
  expect(left).toHaveLength(1);
  expect(left[0]).toContain(row.id);
}

async function expectNoTraceOf(backupId: string): Promise<void> {
  const backup = await engine.client.settled(backupId);
  expect(backup?.status).toBe('error');
  expect(backup?.fail_reason).toMatch(/\w+ \w+/);
  expect(await filesOf(backupId)).toEqual([]);
  expect((await snapshotsOf(volume.id)).filter((name) => name.includes(backupId))).toEqual([]);
  expect((await engine.client.volume(volume.id)).status).toBe('available');
}

describe('killed while it makes a backup', () => {
  it.each([0, 0.1, 0.4, 0.7, 0.9])(
    'after %f of its bytes: no trace of it, and the next one is right',
    async (part) => {
      const first = await engine.backup(volume.id, 'full');
      const id = await caught('kill', part, startIncrement);
      await expectNoTraceOf(id);
      expect(await snapshotsOf(volume.id)).toHaveLength(1);
      await engine.client.deleteBackup(id);
      expect(await engine.client.settled(id)).toBeUndefined();
      expect((await engine.client.backup(first.id)).status).toBe('available');
      await expectNextBackupIsRight();
    },
  );

  it('at ten random instants: every row settles, and every backup that is available is right', async () => {
    await engine.backup(volume.id, 'full');
    for (let round = 0; round < 10; round += 1) {
      await volume.file.write([{ offset: round * MiB, length: 2 * MiB }]);
      const id = await engine.client.createBackup({ volumeId: volume.id, incremental: true });
      await sleep(random.between(0, 600));
      await engine.restart('kill');
      const settled = await engine.client.settled(id);
      if (settled?.status === 'available') continue;
      await expectNoTraceOf(id);
    }
    await expectNextBackupIsRight();
  });
});

describe('killed while it restores', () => {
  it.each([0, 0.3, 0.8])('after %f of its bytes: the backup can be restored again', async (part) => {
    const row = await engine.backup(volume.id, 'full');
    const content = volume.file.content();
    const target = await engine.addVolume(sizeBytes);
    await caught('kill', part, async () => {
      await target.file.write([{ offset: 0, length: sizeBytes }]);
      await engine.client.restore(row.id, target.id);
      return row.id;
    });
    expect((await engine.client.settled(row.id))?.status).toBe('available');
    expect((await engine.client.volume(target.id)).status).toMatch(/^(error_restoring|available)$/);
    const second = await engine.addVolume(sizeBytes);
    await second.file.write([{ offset: 0, length: sizeBytes }]);
    await engine.restore(row.id, second.id);
    await expectContent(second.file.path, content);
  });
});

describe('killed while it deletes', () => {
  it.each([0, 5, 15, 40])(
    'after %i ms: the deletion is finished, and the parent knows it',
    async (delayMs) => {
      const parent = await engine.backup(volume.id, 'full');
      await volume.file.write([{ offset: 0, length: 6 * MiB }]);
      const child = await engine.backup(volume.id, 'incremental');
      await engine.client.deleteBackup(child.id);
      await sleep(delayMs);
      await engine.restart('kill');
      expect(await engine.client.settled(child.id)).toBeUndefined();
      expect(await filesOf(child.id)).toEqual([]);
      expect((await snapshotsOf(volume.id)).filter((name) => name.includes(child.id))).toEqual([]);
      expect(engine.rows().find((row) => row.id === parent.id)).toMatchObject({ num_dependent_backups: 0 });
      await expectNextBackupIsRight();
    },
  );
});

describe('killed while it verifies', () => {
  it('the backup stays available', async () => {
    const row = await engine.backup(volume.id, 'full');
    await engine.client.call('POST', `/v1/backups/${row.id}/verify`);
    await engine.restart('kill');
    expect((await engine.client.settled(row.id))?.status).toBe('available');
    expect(await engine.verify(row.id)).toEqual([]);
  });
});

describe('asked to stop while it makes a backup', () => {
  it('it stops, and after a restart nothing is stuck', async () => {
    await engine.backup(volume.id, 'full');
    const id = await caught('stop', 0.2, startIncrement);
    const settled = await engine.client.settled(id);
    if (settled?.status !== 'available') await expectNoTraceOf(id);
    await expectNextBackupIsRight();
  });
});
