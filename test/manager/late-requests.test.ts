/** Requests that come when a backup is `available`, but the operation that made it has not ended. */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { createRequestRig, type RequestRig } from './recorded-requests.ts';
import { blockSize, createRig, startMachine, type Machine, type Rig } from './rig.ts';

const sizeBytes = 8 * blockSize;
let machine: Machine;
let rig: Rig;
let requests: RequestRig;
let source: string;
let backupId: string;
let end: () => void;

beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(async () => {
  rig = createRig(machine);
  requests = createRequestRig(rig);
  source = await rig.addVolume(sizeBytes);
  ({ promise: requests.removal, resolve: end } = Promise.withResolvers<void>());
  await requests.setVolume(source, { status: 'backing-up', previous_status: 'available' });
  backupId = await requests.addBackup(source, 'creating', { temp_volume_id: randomUUID() });
  await requests.send('create_backup.full', { backupId }, { waits: false });
  await becomes('available');
});
afterEach(() => rig.close());

async function becomes(status: string): Promise<void> {
  while ((await rig.row(backupId)).status !== status) await new Promise((resolve) => setImmediate(resolve));
}

async function write(columns: Readonly<Record<string, string>>): Promise<void> {
  await rig.database.sql.updateTable('backups').set(columns).where('id', '=', backupId).execute();
}

/** Sends a request while the operation is still open, and lets that end then. */
async function sendLate(name: string, volumeId?: string): Promise<void> {
  expect(rig.operations.find('create', backupId)).toBeDefined();
  const about = volumeId === undefined ? { backupId } : { backupId, volumeId };
  const sending = requests.send(name, about, { waits: false });
  await new Promise((resolve) => setImmediate(resolve));
  end();
  await sending;
  await requests.settled();
}

test('a restore is made', async () => {
  const volumeId = await rig.addVolume(sizeBytes, 9);
  await requests.setVolume(volumeId, { status: 'restoring-backup' });
  await write({ status: 'restoring', restore_volume_id: volumeId });
  await sendLate('restore_backup.existing-volume', volumeId);
  expect(await rig.volumeStatus(volumeId)).toBe('available');
  expect((await rig.bytes(volumeId)).equals(await rig.bytes(source))).toBe(true);
  expect((await rig.row(backupId)).status).toBe('available');
});

test('a deletion is made', async () => {
  await write({ status: 'deleting' });
  await sendLate('delete_backup');
  expect((await rig.row(backupId)).status).toBe('deleted');
});

test('a status is set', async () => {
  await sendLate('reset_status.error');
  expect((await rig.row(backupId)).status).toBe('error');
  expect(requests.told.at(-1)).toMatchObject({ event: 'reset_status.end', status: 'error' });
});

test('a reset cancels a restore that waits for the end of the backup', async () => {
  const volumeId = await rig.addVolume(sizeBytes, 9);
  await requests.setVolume(volumeId, { status: 'restoring-backup' });
  await write({ status: 'restoring', restore_volume_id: volumeId });
  await requests.send('restore_backup.existing-volume', { backupId, volumeId }, { waits: false });
  await sendLate('reset_status.error');
  expect((await rig.row(backupId)).status).toBe('available');
  expect(await rig.volumeStatus(volumeId)).toBe('error');
});

test('an agent that does not remove older snapshots holds up no restore', async () => {
  const { promise: removed, resolve: remove } = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  end();
  await requests.settled();
  rig.overrides.deleteSnapshot = async () => {
    asked.resolve();
    await removed;
  };
  await requests.setVolume(source, { status: 'backing-up', previous_status: 'available' });
  const first = backupId;
  backupId = await requests.addBackup(source, 'creating', { parent_id: first });
  await requests.send('create_backup.incremental', { backupId }, { waits: false });
  await asked.promise;
  expect(rig.operations.isBusy(backupId)).toBe(false);
  const volumeId = await rig.addVolume(sizeBytes, 9);
  await requests.setVolume(volumeId, { status: 'restoring-backup' });
  await write({ status: 'restoring', restore_volume_id: volumeId });
  await requests.send('restore_backup.existing-volume', { backupId, volumeId }, { waits: false });
  await rig.operations.find('restore', backupId)?.done;
  expect(await rig.volumeStatus(volumeId)).toBe('available');
  remove();
  await requests.settled();
});
