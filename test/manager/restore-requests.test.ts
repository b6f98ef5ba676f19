/** restore_backup as cinder-api and cinder-volume send it, before and since RPC 2.4. */
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { insertFailureMessage } from '../../src/database/messages.ts';
import { listVolumeMetadata } from '../../src/database/volume-metadata.ts';
import { getVolume } from '../../src/database/volumes.ts';
import { createRequestRig, type RequestRig } from './recorded-requests.ts';
import { blockSize, createRig, startMachine, type Machine, type Rig } from './rig.ts';

const sizeBytes = 40 * blockSize;
let machine: Machine;
let rig: Rig;
let requests: RequestRig;
let source: string;
let backupId: string;

beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(async () => {
  rig = createRig(machine, { watchIntervalMs: 5 });
  requests = createRequestRig(rig);
  source = await rig.addVolume(sizeBytes);
  await requests.setVolume(source, { status: 'backing-up', previous_status: 'available' });
  backupId = await requests.addBackup(source, 'creating');
  await requests.send('create_backup.full', { backupId });
});
afterEach(() => rig.close());

/** A volume that cinder-api has taken for a restore. */
async function takenVolume(status = 'restoring-backup'): Promise<string> {
  const volumeId = await rig.addVolume(sizeBytes, 9);
  await requests.setVolume(volumeId, { status });
  await rig.database.sql
    .updateTable('backups')
    .set({ status: 'restoring', restore_volume_id: volumeId })
    .where('id', '=', backupId)
    .execute();
  return volumeId;
}

const restoreEvents = () =>
  requests.told.map(({ event }) => event).filter((event) => event.startsWith('restore'));

test.each([
  ['of RPC 2.0', {}],
  ['of RPC 2.4 to a new volume', { volume_is_new: true }],
])(
  'a request %s restores every byte, and leaves the rows that cinder-backup leaves',
  async (_which, args) => {
    const volumeId = await takenVolume();
    await requests.send('restore_backup.new-volume', { backupId, volumeId, args });
    expect((await rig.bytes(volumeId)).equals(await rig.bytes(source))).toBe(true);
    expect(await rig.row(backupId)).toMatchObject({ status: 'available', restoreVolumeId: volumeId });
    expect(await getVolume(rig.database.sql, volumeId)).toMatchObject({
      status: 'available',
      encryptionKeyId: null,
      launchedAt: expect.any(Date),
    });
    const metadata = (await listVolumeMetadata(rig.database.sql, [volumeId])).get(volumeId);
    expect(metadata).toEqual({ src_backup_id: backupId });
    expect(restoreEvents()).toEqual(['restore.start', 'restore.end']);
    expect(await requests.messages()).toEqual([]);
  },
);

test('a volume that cinder-volume makes from a backup is launched when it is restored', async () => {
  const volumeId = await takenVolume('creating');
  await rig.database.sql
    .updateTable('volumes')
    .set({ launched_at: null })
    .where('id', '=', volumeId)
    .execute();
  await requests.send('restore_backup.new-volume', { backupId, volumeId });
  const volume = await getVolume(rig.database.sql, volumeId);
  expect(volume.status).toBe('available');
  expect(volume.launchedAt).toBeInstanceOf(Date);
});

test('a volume in another status is refused and left alone, and the user is told', async () => {
  const volumeId = await takenVolume('in-use');
  await requests.send('restore_backup.existing-volume', { backupId, volumeId });
  expect(await rig.volumeStatus(volumeId)).toBe('in-use');
  expect((await rig.row(backupId)).status).toBe('available');
  expect(await requests.messages()).toEqual([{ event: 'VOLUME_VOLUME_BACKUP_015_027', resource: volumeId }]);
  expect(restoreEvents()).toEqual(['restore.start']);
});

test('a backup that is not being restored is refused, and the volume is in error', async () => {
  const volumeId = await rig.addVolume(sizeBytes, 9);
  await requests.setVolume(volumeId, { status: 'restoring-backup' });
  await requests.send('restore_backup.existing-volume', { backupId, volumeId });
  expect(await rig.volumeStatus(volumeId)).toBe('error');
  expect((await rig.row(backupId)).status).toBe('available');
  expect(await requests.messages()).toEqual([{ event: 'VOLUME_VOLUME_BACKUP_015_017', resource: backupId }]);
});

test('a backup of another driver is refused in the words of cinder', async () => {
  const volumeId = await takenVolume();
  const service = 'cinder.backup.drivers.ceph.CephBackupDriver';
  await rig.database.sql.updateTable('backups').set({ service }).where('id', '=', backupId).execute();
  await requests.send('restore_backup.existing-volume', { backupId, volumeId });
  expect(await rig.volumeStatus(volumeId)).toBe('error');
  expect((await rig.row(backupId)).status).toBe('available');
  expect(await requests.messages()).toEqual([]);
  expect(rig.operations.list()[0]?.error?.message).toBe(
    `Restore backup aborted, the backup service currently configured [${rig.store.service}] is not the backup service that was used to create this backup [${service}].`,
  );
});

test('objects that are gone are told as an error of the driver', async () => {
  const volumeId = await takenVolume();
  await removeAll();
  await requests.send('restore_backup.existing-volume', { backupId, volumeId });
  expect(await rig.volumeStatus(volumeId)).toBe('error_restoring');
  expect((await rig.row(backupId)).status).toBe('available');
  expect(await requests.messages()).toEqual([{ event: 'VOLUME_VOLUME_BACKUP_015_026', resource: backupId }]);
  expect(restoreEvents()).toEqual(['restore.start']);
});

test('a reset cancels it: the volume is in error, the backup available, and its end is told', async () => {
  const volumeId = await takenVolume();
  const hold = rig.store.hold('get', /-00001$/);
  await requests.send('restore_backup.existing-volume', { backupId, volumeId }, { waits: false });
  const getting = await hold.reached;
  const reset = requests.send('reset_status.error', { backupId }, { waits: false });
  await once(getting, 'abort');
  hold.open();
  await reset;
  expect(await rig.volumeStatus(volumeId)).toBe('error');
  expect((await rig.row(backupId)).status).toBe('available');
  expect(rig.operations.list()[0]).toMatchObject({ state: 'cancelled' });
  expect(requests.told.map(({ event }) => event).slice(-2)).toEqual(['restore.end', 'reset_status.end']);
  expect(await requests.messages()).toEqual([]);
});

test('a status that another process sets cancels it', async () => {
  const volumeId = await takenVolume();
  const hold = rig.store.hold('get', /-00001$/);
  await requests.send('restore_backup.existing-volume', { backupId, volumeId }, { waits: false });
  const getting = await hold.reached;
  await rig.database.sql.updateTable('backups').set({ status: 'error' }).where('id', '=', backupId).execute();
  await once(getting, 'abort');
  hold.open();
  await requests.settled();
  expect(await rig.volumeStatus(volumeId)).toBe('error');
  expect((await rig.row(backupId)).status).toBe('available');
});

test('a request that comes again after the restore changes nothing', async () => {
  const volumeId = await takenVolume();
  await requests.send('restore_backup.existing-volume', { backupId, volumeId });
  await requests.send('restore_backup.existing-volume', { backupId, volumeId });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
  expect((await rig.row(backupId)).status).toBe('available');
});

test('a message that cannot be written does not keep the rows from being put right', async () => {
  const volumeId = await takenVolume('in-use');
  await rig.database.sql.schema.dropTable('messages').execute();
  await requests.send('restore_backup.existing-volume', { backupId, volumeId });
  expect((await rig.row(backupId)).status).toBe('available');
  const about = {
    verb: 'restore',
    detail: 'driver',
    resourceId: backupId,
    projectId: 'p',
    requestId: 'r',
  } as const;
  const when = { now: new Date(), timeToLiveMs: 1000 };
  await expect(insertFailureMessage(rig.database.sql, about, when)).rejects.toThrow();
});

test('a request that names another volume than the row is refused, and the restore of the row stays', async () => {
  const wanted = await takenVolume();
  const other = await rig.addVolume(sizeBytes, 8);
  await requests.setVolume(other, { status: 'restoring-backup' });
  const before = await rig.bytes(other);
  await requests.send('restore_backup.existing-volume', { backupId, volumeId: other });
  expect((await rig.bytes(other)).equals(before)).toBe(true);
  expect(await rig.volumeStatus(other)).toBe('error');
  expect(await rig.row(backupId)).toMatchObject({ status: 'restoring', restoreVolumeId: wanted });
  await requests.send('restore_backup.existing-volume', { backupId, volumeId: wanted });
  expect(await rig.volumeStatus(wanted)).toBe('available');
});

/** A second backup of the source, with other bytes. */
async function secondBackup(): Promise<string> {
  await rig.change(source, 0, blockSize, 2);
  await requests.setVolume(source, { status: 'backing-up', previous_status: 'available' });
  const id = await requests.addBackup(source, 'creating');
  await requests.send('create_backup.full', { backupId: id });
  return id;
}

async function markRestoring(id: string, volumeId: string): Promise<void> {
  const taken = { status: 'restoring', restore_volume_id: volumeId };
  await rig.database.sql.updateTable('backups').set(taken).where('id', '=', id).execute();
}

test('of two restores to one volume that are asked for at once one is made, and the other ends nothing of it', async () => {
  const before = await rig.bytes(source);
  const [lower = '', upper = ''] = [backupId, await secondBackup()].toSorted();
  const expected = lower === backupId ? before : await rig.bytes(source);
  const volumeId = await rig.addVolume(sizeBytes, 9);
  await requests.setVolume(volumeId, { status: 'restoring-backup' });
  for (const id of [lower, upper]) await markRestoring(id, volumeId);
  const hold = rig.store.hold('get', /-00001$/);
  await requests.send('restore_backup.existing-volume', { backupId: lower, volumeId }, { waits: false });
  await hold.reached;
  await requests.send('restore_backup.existing-volume', { backupId: upper, volumeId }, { waits: false });
  await rig.operations.find('restore', upper)?.done;
  expect(await rig.volumeStatus(volumeId)).toBe('restoring-backup');
  expect((await rig.row(upper)).status).toBe('available');
  hold.open();
  await requests.settled();
  expect((await rig.bytes(volumeId)).equals(expected)).toBe(true);
  expect(await rig.volumeStatus(volumeId)).toBe('available');
  expect((await rig.row(lower)).status).toBe('available');
});

test('a late duplicate leaves the volume to the restore that writes it', async () => {
  const second = await secondBackup();
  const volumeId = await takenVolume();
  const hold = rig.store.hold('get', /-00001$/);
  await requests.send('restore_backup.existing-volume', { backupId, volumeId }, { waits: false });
  await hold.reached;
  await requests.send('restore_backup.existing-volume', { backupId: second, volumeId }, { waits: false });
  await rig.operations.find('restore', second)?.done;
  expect(await rig.volumeStatus(volumeId)).toBe('restoring-backup');
  hold.open();
  await requests.settled();
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test.each([
  ['up is waited for', 5, 'restoring-backup'],
  ['down is not waited for', 100, 'available'],
])('an earlier restore to the same volume, of a host that is %s', async (_what, secondsAgo, status) => {
  await rig.addService('other', secondsAgo);
  const [lower = '', upper = ''] = [backupId, await secondBackup()].toSorted();
  const volumeId = await rig.addVolume(sizeBytes, 9);
  await requests.setVolume(volumeId, { status: 'restoring-backup' });
  for (const id of [lower, upper]) await markRestoring(id, volumeId);
  await rig.database.sql.updateTable('backups').set({ host: 'other' }).where('id', '=', lower).execute();
  await requests.send('restore_backup.existing-volume', { backupId: upper, volumeId });
  expect(await rig.volumeStatus(volumeId)).toBe(status);
  expect((await rig.row(upper)).status).toBe('available');
});

test('of two restores to one volume that both fail the last gives it back', async () => {
  const second = await secondBackup();
  const volumeId = await takenVolume();
  await markRestoring(second, volumeId);
  await removeAll();
  for (const id of [backupId, second]) {
    await requests.send('restore_backup.existing-volume', { backupId: id, volumeId }, { waits: false });
  }
  await requests.settled();
  expect(['error', 'error_restoring']).toContain(await rig.volumeStatus(volumeId));
  for (const id of [backupId, second]) expect((await rig.row(id)).status).toBe('available');
});

test('a volume that was given back while the metadata was read is not written', async () => {
  const unwatched = createRig(machine, { on: rig });
  const asked = createRequestRig(unwatched);
  const volumeId = await takenVolume();
  const before = await rig.bytes(volumeId);
  const hold = unwatched.store.hold('get', /_metadata$/);
  await asked.send('restore_backup.existing-volume', { backupId, volumeId }, { waits: false });
  await hold.reached;
  await requests.setVolume(volumeId, { status: 'in-use' });
  hold.open();
  await asked.settled();
  expect((await rig.bytes(volumeId)).equals(before)).toBe(true);
  expect(await rig.volumeStatus(volumeId)).toBe('in-use');
  expect((await rig.row(backupId)).status).toBe('available');
  expect(await asked.messages()).toEqual([{ event: 'VOLUME_VOLUME_BACKUP_015_027', resource: volumeId }]);
});

test('a volume whose status an administrator resets while it is restored is written no further', async () => {
  const volumeId = await takenVolume();
  const hold = rig.store.hold('get', /-00001$/);
  await requests.send('restore_backup.existing-volume', { backupId, volumeId }, { waits: false });
  const getting = await hold.reached;
  await requests.setVolume(volumeId, { status: 'available' });
  await once(getting, 'abort');
  hold.open();
  await requests.settled();
  expect(rig.operations.list()[0]).toMatchObject({ state: 'cancelled' });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
  expect((await rig.row(backupId)).status).toBe('available');
});

/** Somebody empties the store behind the backups' back. */
async function removeAll(): Promise<void> {
  const { signal } = new AbortController();
  for (const [container, objects] of rig.objects.containers) {
    for (const key of objects.keys()) await rig.objects.remove(container, key, signal);
  }
}
