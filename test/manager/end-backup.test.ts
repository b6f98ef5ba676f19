import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { defaultQuotaRules } from '../../src/database/quotas.ts';
import { createRequestRig, type RequestRig } from './recorded-requests.ts';
import { blockSize, createRig, keysIn, startMachine, type Machine, type Rig } from './rig.ts';

const sizeBytes = 40 * blockSize;
let machine: Machine;
let rig: Rig;
let requests: RequestRig;

beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(() => {
  rig = createRig(machine, { watchIntervalMs: 5, quota: defaultQuotaRules });
  requests = createRequestRig(rig);
});
afterEach(() => rig.close());

/** A volume that cinder-api has taken for a backup. */
async function takenVolume(previous = 'available'): Promise<string> {
  const volumeId = await rig.addVolume(sizeBytes);
  await requests.setVolume(volumeId, { status: 'backing-up', previous_status: previous });
  return volumeId;
}

test('a backup whose row a host of Python has deleted by force gives its volume back', async () => {
  const volumeId = await takenVolume('in-use');
  const backupId = await requests.addBackup(volumeId, 'creating');
  const hold = rig.store.hold('put', /-00003$/);
  await requests.send('create_backup.full', { backupId }, { waits: false });
  const putting = await hold.reached;
  const gone = { status: 'deleted', deleted: true };
  await rig.database.sql.updateTable('backups').set(gone).where('id', '=', backupId).execute();
  if (!putting.aborted) await once(putting, 'abort');
  hold.open();
  await requests.settled();
  expect(await rig.volumeStatus(volumeId)).toBe('in-use');
  expect(keysIn(rig)).toEqual([]);
});

test('a backup that a host of Python has set to available gives its volume back', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  const hold = rig.store.hold('put', /-00003$/);
  await requests.send('create_backup.full', { backupId }, { waits: false });
  const putting = await hold.reached;
  await rig.database.sql
    .updateTable('backups')
    .set({ status: 'available' })
    .where('id', '=', backupId)
    .execute();
  if (!putting.aborted) await once(putting, 'abort');
  hold.open();
  await requests.settled();
  expect((await rig.row(backupId)).status).toBe('available');
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('a backup that a host of Python has deleted by force before its turn came gives its volume back', async () => {
  const busy = createRig(machine, { on: rig, maxRunning: 1 });
  const waiting = createRequestRig(busy);
  const hold = busy.store.hold('put', /-00003$/);
  const [first, second] = [await takenVolume(), await takenVolume()];
  const running = await waiting.addBackup(first, 'creating');
  const queued = await waiting.addBackup(second, 'creating');
  await waiting.send('create_backup.full', { backupId: running }, { waits: false });
  await hold.reached;
  await waiting.send('create_backup.full', { backupId: queued }, { waits: false });
  const gone = { status: 'deleted', deleted: true };
  await rig.database.sql.updateTable('backups').set(gone).where('id', '=', queued).execute();
  hold.open();
  await waiting.settled();
  expect(await rig.volumeStatus(second)).toBe('available');
});

test('an increment whose parent somebody begins to delete meanwhile is undone, and counts nowhere', async () => {
  const volumeId = await takenVolume();
  const parentId = await requests.addBackup(volumeId, 'creating');
  await requests.send('create_backup.full', { backupId: parentId });
  const stored = keysIn(rig);
  await requests.setVolume(volumeId, { status: 'backing-up', previous_status: 'available' });
  await rig.change(volumeId, 0, blockSize, 2);
  const backupId = await requests.addBackup(volumeId, 'creating', { parent_id: parentId });
  const hold = rig.store.hold('putStream', /_metadata$/);
  await requests.send('create_backup.incremental', { backupId }, { waits: false });
  await hold.reached;
  const { sql } = rig.database;
  await sql.updateTable('backups').set({ status: 'deleting' }).where('id', '=', parentId).execute();
  hold.open();
  await requests.settled();
  expect(await rig.row(backupId)).toMatchObject({
    status: 'error',
    failReason: expect.stringContaining(parentId),
  });
  expect(await rig.row(parentId)).toMatchObject({ status: 'deleting', dependents: 0 });
  expect(keysIn(rig)).toEqual(stored);
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('a backup has the size that was taken from the quota, also where the image is larger', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating', { size: 0 });
  await requests.send('create_backup.full', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'available', sizeGiB: 0 });
});

test.each([0, 7])('a reset to available keeps the size that was taken from the quota: %d', async (size) => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  await requests.send('create_backup.full', { backupId });
  const lost = { status: 'error', object_count: null, size };
  await rig.database.sql.updateTable('backups').set(lost).where('id', '=', backupId).execute();
  await requests.send('reset_status.available', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'available', objectCount: 10, sizeGiB: size });
});
