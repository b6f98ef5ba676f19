/** create_backup and continue_backup as cinder-scheduler and cinder-volume send them. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Database } from '../../src/database/database.ts';
import { getVolume } from '../../src/database/volumes.ts';
import { BackupError } from '../../src/model/errors.ts';
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
  rig = createRig(machine);
  requests = createRequestRig(rig);
});
afterEach(() => rig.close());

/** A volume that cinder-api has taken for a backup. */
async function takenVolume(previous = 'available'): Promise<string> {
  const volumeId = await rig.addVolume(sizeBytes);
  await requests.setVolume(volumeId, { status: 'backing-up', previous_status: previous });
  return volumeId;
}

const events = () => requests.told.map(({ event }) => event);

test('a recorded request for a full backup leaves the rows that cinder-backup leaves', async () => {
  const volumeId = await takenVolume('in-use');
  const backupId = await requests.addBackup(volumeId, 'creating');
  await requests.send('create_backup.full', { backupId });
  const row = await rig.database.sql
    .selectFrom('backups')
    .selectAll()
    .where('id', '=', backupId)
    .executeTakeFirstOrThrow();
  expect(row).toMatchObject({
    status: 'available',
    size: 1,
    object_count: 10,
    service: rig.store.service,
    container: `${backupId.slice(0, 2)}/${backupId.slice(2, 4)}/${backupId}`,
    service_metadata: expect.stringMatching(
      new RegExp(`^volume_${volumeId}_\\d{14}_backup_${backupId}$`, 'u'),
    ),
    availability_zone: 'nova',
    fail_reason: null,
    parent_id: null,
    num_dependent_backups: null,
    host: 'host',
  });
  expect(await getVolume(rig.database.sql, volumeId)).toMatchObject({
    status: 'in-use',
    previousStatus: 'backing-up',
  });
  expect(await requests.messages()).toEqual([]);
});

test('a backup keeps the zone that was asked for', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating', { availability_zone: 'other' });
  await requests.send('create_backup.full', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'available', availabilityZone: 'other' });
});

test('it is told of from start to end, with a percentage that grows to 100', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  await requests.send('create_backup.full', { backupId });
  expect(events()).toEqual(['create.start', 'createprogress', 'createprogress', 'create.end']);
  expect(requests.told.map(({ status }) => status)).toEqual([
    'creating',
    'creating',
    'creating',
    'available',
  ]);
  const { prefix } = await rig.row(backupId);
  expect(requests.told[1]?.extra).toEqual({ id: 1, list: [], prefix, volume_meta: null, backup_percent: 0 });
  expect(requests.told[2]?.extra).toMatchObject({ backup_percent: 100 });
});

test('what was opened for a request is let go of when its work has ended, however it ended', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  const hold = rig.store.hold('put', /-00001$/);
  await requests.send('create_backup.full', { backupId }, { waits: false });
  await hold.reached;
  expect(requests.ended).toBe(0);
  hold.open();
  await requests.settled();
  expect(requests.ended).toBe(1);
  await requests.send('create_backup.full', { backupId });
  expect(requests.ended).toBe(2);
});

test('a backup whose last commit went through without an answer is available, and counts once', async () => {
  let losesAnswer = false;
  const database: Database = {
    ...rig.database,
    async transaction(work) {
      await rig.database.transaction(work);
      if (!losesAnswer) return;
      losesAnswer = false;
      throw new BackupError('database-unavailable', 'the connection was lost after COMMIT');
    },
  };
  const asked = createRequestRig(rig, { database });
  const volumeId = await takenVolume();
  const parentId = await asked.addBackup(volumeId, 'creating');
  await asked.send('create_backup.full', { backupId: parentId });
  await asked.setVolume(volumeId, { status: 'backing-up', previous_status: 'available' });
  const backupId = await asked.addBackup(volumeId, 'creating', { parent_id: parentId });
  const hold = rig.store.hold('putStream', /_metadata$/);
  await asked.send('create_backup.incremental', { backupId }, { waits: false });
  await hold.reached;
  losesAnswer = true;
  hold.open();
  await asked.settled();
  expect(losesAnswer).toBe(false);
  expect(rig.operations.list()[0]).toMatchObject({ state: 'succeeded' });
  expect(await rig.row(backupId)).toMatchObject({ status: 'available' });
  expect(await rig.row(parentId)).toMatchObject({ dependents: 1 });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('an increment counts at its parent', async () => {
  const volumeId = await takenVolume();
  const parentId = await requests.addBackup(volumeId, 'creating');
  await requests.send('create_backup.full', { backupId: parentId });
  await requests.setVolume(volumeId, { status: 'backing-up', previous_status: 'available' });
  await rig.change(volumeId, 0, blockSize, 2);
  const backupId = await requests.addBackup(volumeId, 'creating', { parent_id: parentId });
  await requests.send('create_backup.incremental', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'available', parentId, objectCount: 1 });
  expect(await rig.row(parentId)).toMatchObject({ dependents: 1 });
});

test('a volume that is not backing-up makes an error with the sentence of cinder, and is left alone', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const backupId = await requests.addBackup(volumeId, 'creating');
  await requests.send('create_backup.full', { backupId });
  expect(await rig.row(backupId)).toMatchObject({
    status: 'error',
    failReason: 'Create backup aborted, expected volume status backing-up but got available.',
  });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
  expect(await requests.messages()).toEqual([]);
  expect(events()).toEqual(['create.start']);
});

test('a request that comes again after the backup was made changes nothing', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  await requests.send('create_backup.full', { backupId });
  const [row, stored] = [await rig.row(backupId), keysIn(rig)];
  await requests.send('create_backup.full', { backupId });
  expect(await rig.row(backupId)).toEqual(row);
  expect(keysIn(rig)).toEqual(stored);
});

test('a request that comes again while the backup is made waits for its end, and changes nothing', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  const hold = rig.store.hold('put', /-00001$/);
  await requests.send('create_backup.full', { backupId }, { waits: false });
  await hold.reached;
  await requests.send('create_backup.full', { backupId }, { waits: false });
  expect(rig.operations.list().map(({ state }) => state)).toEqual(['queued', 'running']);
  hold.open();
  await requests.settled();
  expect(rig.operations.list().map(({ state }) => state)).toEqual(['failed', 'succeeded']);
  expect(await rig.row(backupId)).toMatchObject({ status: 'available', objectCount: 10 });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('while the store does not work it is refused, the volume is given back, and the user is told', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  requests.isWorking = false;
  await requests.send('create_backup.full', { backupId });
  expect(await rig.row(backupId)).toMatchObject({
    status: 'error',
    failReason: 'Create backup aborted due to backup service is down.',
  });
  expect(await getVolume(rig.database.sql, volumeId)).toMatchObject({
    status: 'available',
    previousStatus: 'error_backing-up',
  });
  expect(await requests.messages()).toEqual([{ event: 'VOLUME_VOLUME_BACKUP_013_018', resource: backupId }]);
});

test('a store that refuses is told as an error of the driver', async () => {
  const volumeId = await takenVolume();
  const backupId = await requests.addBackup(volumeId, 'creating');
  rig.store.plan({
    call: 'put',
    key: /-00002$/,
    error: new BackupError('store-denied', 'the store refuses'),
  });
  await requests.send('create_backup.full', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'error', failReason: 'the store refuses' });
  expect(await getVolume(rig.database.sql, volumeId)).toMatchObject({
    status: 'available',
    previousStatus: 'error_backing-up',
  });
  expect(await requests.messages()).toEqual([{ event: 'VOLUME_VOLUME_BACKUP_013_020', resource: backupId }]);
  expect(events().at(-1)).not.toBe('create.end');
});

test('a volume without an agent is told as an error of attaching it', async () => {
  const volumeId = await takenVolume();
  await requests.setVolume(volumeId, { host: 'elsewhere@lvm#lvm' });
  const backupId = await requests.addBackup(volumeId, 'creating');
  await requests.send('create_backup.full', { backupId });
  expect(await rig.row(backupId)).toMatchObject({
    status: 'error',
    failReason: expect.stringContaining('no agent is known for host elsewhere@lvm'),
  });
  expect(await requests.messages()).toEqual([{ event: 'VOLUME_VOLUME_BACKUP_013_021', resource: backupId }]);
});

test('an encrypted volume without a key manager is refused in words', async () => {
  const volumeId = await takenVolume();
  await requests.setVolume(volumeId, { encryption_key_id: randomUUID() });
  const backupId = await requests.addBackup(volumeId, 'creating');
  await requests.send('create_backup.full', { backupId });
  expect(await rig.row(backupId)).toMatchObject({
    status: 'error',
    failReason: expect.stringContaining('key manager'),
  });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('a backup that another process deletes while it is made ends, and leaves nothing', async () => {
  const slow = createRig(machine, { watchIntervalMs: 5 });
  const asked = createRequestRig(slow);
  try {
    const volumeId = await slow.addVolume(sizeBytes);
    await asked.setVolume(volumeId, { status: 'backing-up', previous_status: 'available' });
    const backupId = await asked.addBackup(volumeId, 'creating');
    const hold = slow.store.hold('put', /-00003$/);
    await asked.send('create_backup.full', { backupId }, { waits: false });
    const putting = await hold.reached;
    const { sql } = slow.database;
    await sql.updateTable('backups').set({ status: 'deleting' }).where('id', '=', backupId).execute();
    await once(putting, 'abort');
    hold.open();
    await asked.settled();
    expect(slow.operations.list()[0]).toMatchObject({ state: 'cancelled' });
    expect(await slow.row(backupId)).toMatchObject({ status: 'deleting' });
    expect(await slow.volumeStatus(volumeId)).toBe('available');
    expect(keysIn(slow)).toEqual([]);
  } finally {
    await slow.close();
  }
});

test('a backup that another host has deleted altogether while it is made leaves no objects', async () => {
  const watched = createRig(machine, { watchIntervalMs: 5 });
  const asked = createRequestRig(watched);
  try {
    const volumeId = await watched.addVolume(sizeBytes);
    await asked.setVolume(volumeId, { status: 'backing-up', previous_status: 'available' });
    const backupId = await asked.addBackup(volumeId, 'creating');
    const hold = watched.store.hold('put', /-00003$/);
    await asked.send('create_backup.full', { backupId }, { waits: false });
    const putting = await hold.reached;
    const gone = { status: 'deleted', deleted: true };
    await watched.database.sql.updateTable('backups').set(gone).where('id', '=', backupId).execute();
    await asked.setVolume(volumeId, { status: 'available' });
    if (!putting.aborted) await once(putting, 'abort');
    hold.open();
    await asked.settled();
    expect(keysIn(watched)).toEqual([]);
    expect(await watched.snapshotOwners(volumeId)).toEqual([]);
    expect(await watched.row(backupId)).toMatchObject({ status: 'deleted' });
    expect(await watched.volumeStatus(volumeId)).toBe('available');
  } finally {
    await watched.close();
  }
});

test('a backup that cinder-backup began is made from its beginning, and its temporary volume goes', async () => {
  const volumeId = await takenVolume('in-use');
  const temporary = randomUUID();
  const backupId = await requests.addBackup(volumeId, 'creating', { temp_volume_id: temporary });
  await requests.send('continue_backup.in-use', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'available' });
  expect(requests.removedVolumes).toEqual([temporary]);
  const row = await rig.database.sql.selectFrom('backups').selectAll().executeTakeFirstOrThrow();
  expect(row.temp_volume_id).toBeNull();
});

test('one that was put into error meanwhile is not made, and its temporary volume goes', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const temporary = randomUUID();
  const backupId = await requests.addBackup(volumeId, 'error', { temp_volume_id: temporary });
  await requests.send('continue_backup.in-use', { backupId });
  expect(await rig.row(backupId)).toMatchObject({ status: 'error' });
  expect(requests.removedVolumes).toEqual([temporary]);
  expect(rig.operations.list()).toEqual([]);
});

test('the log lines of an operation carry the id of the request', async () => {
  const lines: unknown[] = [];
  const logged = createRig(machine, { onLine: (line) => lines.push(JSON.parse(line)) });
  const asked = createRequestRig(logged);
  try {
    const volumeId = await logged.addVolume(sizeBytes);
    await asked.setVolume(volumeId, { status: 'backing-up', previous_status: 'available' });
    const backupId = await asked.addBackup(volumeId, 'creating');
    await asked.send('create_backup.full', { backupId });
    const ids = new Set(lines.map((line) => Object(line)['request_id']));
    expect(ids).toEqual(new Set(['req-23501d53-28d7-4f26-b7be-df7b87cc728a']));
  } finally {
    await logged.close();
  }
});

test('beyond backup_max_operations a backup waits for its turn, and a deletion does not', async () => {
  const narrow = createRig(machine, { maxRunning: 1 });
  const asked = createRequestRig(narrow);
  try {
    const take = async () => {
      const volumeId = await narrow.addVolume(sizeBytes);
      await asked.setVolume(volumeId, { status: 'backing-up', previous_status: 'available' });
      return await asked.addBackup(volumeId, 'creating');
    };
    const [first, second, third] = [await take(), await take(), await take()];
    const hold = narrow.store.hold('put', /-00001$/);
    await asked.send('create_backup.full', { backupId: first }, { waits: false });
    await hold.reached;
    await asked.send('create_backup.full', { backupId: second }, { waits: false });
    await narrow.database.sql
      .updateTable('backups')
      .set({ status: 'deleting' })
      .where('id', '=', third)
      .execute();
    await asked.send('delete_backup', { backupId: third }, { waits: false });
    await narrow.operations.find('delete', third)?.done;
    expect((await narrow.row(third)).status).toBe('deleted');
    const states = narrow.operations.list().map(({ backupId, state }) => [backupId, state]);
    expect(states).toContainEqual([first, 'running']);
    expect(states).toContainEqual([second, 'queued']);
    hold.open();
    await asked.settled();
    expect((await narrow.row(second)).status).toBe('available');
  } finally {
    await narrow.close();
  }
});
