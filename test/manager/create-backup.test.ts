import { truncate } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { readSetTime } from '../../src/database/row-values.ts';
import { getSnapshot } from '../../src/database/snapshots.ts';
import { getVolume, moveVolume } from '../../src/database/volumes.ts';
import { createBackup } from '../../src/manager/create-backup.ts';
import { BackupError } from '../../src/model/errors.ts';
import { blockSize, context, createRig, keyOf, keysIn, startMachine, type Machine, type Rig } from './rig.ts';

let machine: Machine;
let rig: Rig;
beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(() => {
  rig = createRig(machine);
});
afterEach(() => rig.close());

const sizeBytes = 40 * blockSize;
const denied = new BackupError('store-denied', 'the store refuses');

test('a full backup ends as cinder would leave it', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row, operation } = await rig.backup(volumeId);
  expect(operation).toMatchObject({ state: 'succeeded', mode: 'full', reason: 'no parent was asked for' });
  expect(row).toMatchObject({
    status: 'available',
    failReason: null,
    service: 'cinder.backup.drivers.posix.PosixBackupDriver',
    host: 'host',
    container: `${row.id.slice(0, 2)}/${row.id.slice(2, 4)}/${row.id}`,
    objectCount: 10,
    sizeGiB: 1,
    parentId: null,
    dependents: 0,
    dataTimestamp: row.createdAt,
  });
  expect(row.prefix).toMatch(new RegExp(`^volume_${volumeId}_\\d{14}_backup_${row.id}$`));
  expect(await getVolume(rig.database.sql, volumeId)).toMatchObject({
    status: 'available',
    previousStatus: 'backing-up',
  });
  expect(await rig.snapshotOwners(volumeId)).toEqual([row.id]);
});

test('an increment goes by delta, counts as a dependent, and takes the place of the older snapshot', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row: full } = await rig.backup(volumeId);
  await rig.change(volumeId, 7 * blockSize, blockSize, 2);
  const { row, operation } = await rig.backup(volumeId, { incremental: true });
  expect(operation).toMatchObject({ state: 'succeeded', mode: 'delta' });
  expect(operation.progress.sentBytes).toBe(blockSize);
  expect(row).toMatchObject({ status: 'available', parentId: full.id, objectCount: 1 });
  expect((await rig.row(full.id)).dependents).toBe(1);
  expect(await rig.snapshotOwners(volumeId)).toEqual([row.id]);
});

test('a volume in use needs force, and is in use again afterwards', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  await moveVolume(rig.database.sql, volumeId, { from: ['available'], to: 'in-use' }, {}, new Date());
  await expect(rig.backup(volumeId)).rejects.toMatchObject({ code: 'state-invalid' });
  expect(await rig.volumeStatus(volumeId)).toBe('in-use');
  const { row } = await rig.backup(volumeId, { force: true });
  expect(row.status).toBe('available');
  expect(await rig.volumeStatus(volumeId)).toBe('in-use');
});

test('of two requests for the same volume at once one is refused and the other succeeds', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const race = await Promise.allSettled([rig.backup(volumeId), rig.backup(volumeId)]);
  expect(race.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected']);
  expect(race.find(({ status }) => status === 'rejected')).toMatchObject({
    reason: { code: 'state-invalid' },
  });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('an increment without any backup is refused before anything is written', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  await expect(rig.backup(volumeId, { incremental: true })).rejects.toThrow(/No backups available/);
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('a backup of a snapshot has its time, its bytes and its parent, and leaves the volume alone', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row: before } = await rig.backup(volumeId);
  await rig.change(volumeId, 0, blockSize, 2);
  const snapshot = await rig.volumes.createSnapshot(context, {
    volumeId,
    name: 's',
    description: null,
    force: false,
  });
  await rig.volumes.settle();
  const then = await rig.bytes(volumeId);
  await rig.change(volumeId, blockSize, blockSize, 3);
  await rig.backup(volumeId);

  const { row } = await rig.backup(volumeId, { snapshotId: snapshot.id, incremental: true });
  expect(row).toMatchObject({ status: 'available', parentId: before.id, dataTimestamp: snapshot.createdAt });
  expect((await getSnapshot(rig.database.sql, snapshot.id)).status).toBe('available');
  const target = await rig.addVolume(sizeBytes, 9);
  await rig.restore(row.id, target);
  expect((await rig.bytes(target)).equals(then)).toBe(true);
});

test('whichever call of the store fails, nothing is left behind and the next backup is right', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row: full } = await rig.backup(volumeId);
  const stored = keysIn(rig).toSorted();
  await rig.change(volumeId, 3 * blockSize, blockSize, 2);
  const before = rig.store.calls;
  const { row: probe } = await rig.backup(volumeId, { incremental: true });
  const calls = rig.store.calls - before;
  await rig.remove(probe.id);
  expect(calls).toBeGreaterThan(8);

  for (let at = 1; at <= calls; at += 1) {
    rig.store.plan({ at, error: denied });
    const { row, operation } = await rig.backup(volumeId, { incremental: true });
    rig.store.heal();
    const state = `call ${at}: ${rig.store.history.at(-1)}`;
    expect(rig.store.fired, state).toBe(at);
    expect(await rig.volumeStatus(volumeId), state).toBe('available');
    if (operation.state === 'failed') {
      expect(row, state).toMatchObject({ status: 'error', failReason: 'the store refuses' });
      expect(keysIn(rig).toSorted(), state).toEqual(stored);
      expect(await rig.snapshotOwners(volumeId), state).not.toContain(row.id);
    } else expect(row.status, state).toBe('available');
    await rig.remove(row.id);
    expect((await rig.row(full.id)).dependents, state).toBe(0);
  }
});

test('a store that stays broken leaves a row that says why, a free volume, and no snapshot', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  rig.store.plan({ call: 'put', error: denied, times: 1000 });
  rig.store.plan({ call: 'remove', error: denied, times: 1000 });
  const { row, operation } = await rig.backup(volumeId);
  expect(operation).toMatchObject({ state: 'failed', error: { code: 'store-denied' } });
  expect(row).toMatchObject({ status: 'error', failReason: 'the store refuses', objectCount: null });
  expect(await getVolume(rig.database.sql, volumeId)).toMatchObject({
    status: 'available',
    previousStatus: 'error_backing-up',
  });
  expect(await rig.snapshotOwners(volumeId)).toEqual([]);
  const message = await rig.database.sql.selectFrom('messages').selectAll().executeTakeFirstOrThrow();
  expect(message).toMatchObject({ event_id: 'VOLUME_VOLUME_BACKUP_013_020', resource_uuid: row.id });
  const [from, to] = [readSetTime(message.created_at), readSetTime(message.expires_at)];
  expect(to.getTime() - from.getTime()).toBe(rig.environment.options.messageTtlMs);
});

test('a long reason is cut to what the column holds', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  rig.store.plan({ call: 'put', error: new BackupError('store-denied', 'x'.repeat(1000)) });
  const { row } = await rig.backup(volumeId);
  expect(row.failReason).toHaveLength(255);
});

test('a volume that is not on the storage ends in an error that names it', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  rig.overrides.createSnapshot = () =>
    Promise.reject(new BackupError('not-found', `volume-${volumeId} is gone`));
  const { row } = await rig.backup(volumeId);
  expect(row).toMatchObject({ status: 'error', failReason: `volume-${volumeId} is gone` });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test.each(['info', 'getVolume', 'createSnapshot'] as const)(
  'when %s of the agent fails nothing is left behind',
  async (call) => {
    const volumeId = await rig.addVolume(sizeBytes);
    rig.overrides[call] = (): Promise<never> =>
      Promise.reject(new BackupError('agent-unavailable', `${call} got no answer`));
    const { row, operation } = await rig.backup(volumeId);
    delete rig.overrides[call];
    expect(operation).toMatchObject({ state: 'failed', error: { code: 'agent-unavailable' } });
    expect(row).toMatchObject({ status: 'error', failReason: `${call} got no answer` });
    expect(await rig.volumeStatus(volumeId)).toBe('available');
    expect(keysIn(rig)).toEqual([]);
    expect((await rig.backup(volumeId)).row.status).toBe('available');
    expect(await rig.snapshotOwners(volumeId)).not.toContain(row.id);
  },
);

test('an old snapshot that cannot be removed does not spoil the backup, and goes with the next one', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row: first } = await rig.backup(volumeId);
  rig.overrides.deleteSnapshot = () => Promise.reject(new BackupError('agent-unavailable', 'away'));
  const { row: second } = await rig.backup(volumeId);
  expect(second.status).toBe('available');
  expect(new Set(await rig.snapshotOwners(volumeId))).toEqual(new Set([first.id, second.id]));
  delete rig.overrides.deleteSnapshot;
  const { row: third } = await rig.backup(volumeId);
  expect(await rig.snapshotOwners(volumeId)).toEqual([third.id]);
});

test.each([0, 2])('of the snapshots of a volume as many are kept as are to be: %i', async (keepSnapshots) => {
  const keeping = createRig(machine, { keepSnapshots });
  try {
    const volumeId = await keeping.addVolume(sizeBytes);
    const ids: string[] = [];
    for (let generation = 2; generation < 5; generation += 1) {
      await keeping.change(volumeId, 0, blockSize, generation);
      const { row, operation } = await keeping.backup(volumeId, { incremental: generation > 2 });
      ids.unshift(row.id);
      if (generation === 2) continue;
      const mode = keepSnapshots === 0 ? 'compare' : 'delta';
      const reason = keepSnapshots === 0 ? /none is kept .*keep_snapshots = 0/ : /is still on the storage/;
      expect(operation).toMatchObject({ mode, reason: expect.stringMatching(reason) });
    }
    expect(new Set(await keeping.snapshotOwners(volumeId))).toEqual(new Set(ids.slice(0, keepSnapshots)));
  } finally {
    await keeping.close();
  }
});

test('a message that is delivered twice does not harm the backup that it made', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row } = await rig.backup(volumeId);
  const stored = keysIn(rig);
  const run = {
    id: 'again',
    signal: new AbortController().signal,
    progress: { plannedBytes: null, doneBytes: 0, readBytes: 0, sentBytes: 0, storedBytes: 0 },
    explain: () => {},
    keep: () => {},
    leave: () => {},
  };
  const again = createBackup(rig.environment, context, row.id, run);
  await expect(again).rejects.toMatchObject({ code: 'state-invalid' });
  expect(await rig.row(row.id)).toEqual(row);
  expect(keysIn(rig)).toEqual(stored);
});

test('deleting by force while it is made cancels it and leaves nothing', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const hold = rig.store.hold('put', /-00003$/);
  const making = rig.backup(volumeId);
  await hold.reached;
  const [backup] = rig.operations.list();
  const deleting = rig.remove(backup?.backupId ?? '', true);
  hold.open();
  const [{ row, operation }, deletion] = await Promise.all([making, deleting]);
  expect(operation).toMatchObject({ state: 'cancelled' });
  expect(deletion.state).toBe('succeeded');
  expect(await rig.row(row.id)).toMatchObject({ status: 'deleted', deleted: true });
  expect(keysIn(rig)).toEqual([]);
  expect(await rig.volumeStatus(volumeId)).toBe('available');
  expect(await rig.snapshotOwners(volumeId)).toEqual([]);
});

test('a stop while it is made leaves an error, a free volume and nothing in the store', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const hold = rig.store.hold('put', /-00002$/);
  const making = rig.backup(volumeId);
  await hold.reached;
  const draining = rig.operations.drain(0);
  hold.open();
  const { row } = await making;
  await draining;
  expect(row).toMatchObject({ status: 'error', failReason: 'the service is stopping' });
  expect(keysIn(rig)).toEqual([]);
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('one that comes while the service stops gives its volume back', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  await rig.operations.drain(0);
  const { row, operation } = await rig.backup(volumeId);
  expect(operation.state).toBe('cancelled');
  expect(row.status).toBe('error');
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('a volume that grew gets an increment, and the restore has every byte', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  await rig.backup(volumeId);
  await truncate(rig.path(volumeId), sizeBytes + 3 * blockSize);
  await rig.change(volumeId, sizeBytes + blockSize, blockSize, 2);
  const { row, operation } = await rig.backup(volumeId, { incremental: true });
  expect(operation).toMatchObject({ state: 'succeeded', mode: 'delta' });
  const target = await rig.addVolume(sizeBytes + 3 * blockSize, 9);
  await rig.restore(row.id, target);
  expect((await rig.bytes(target)).equals(await rig.bytes(volumeId))).toBe(true);
});

test('the metadata tells the way, the reason and the snapshot it was read from', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row } = await rig.backup(volumeId);
  const { container, key } = keyOf(row, '_metadata');
  const document = JSON.parse(String(rig.objects.containers.get(container)?.get(key)));
  expect(document).toMatchObject({ backup_id: row.id, parent_id: null, backup_name: 'b' });
  expect(document.cinder_delta).toMatchObject({ mode: 'full', reason: 'no parent was asked for' });
  expect(document.cinder_delta.base.snapshot_name).toContain(row.id);
  expect(JSON.parse(document.volume_meta)['volume-base-metadata']).toMatchObject({
    id: volumeId,
    display_name: 'v',
  });
});

test('a backup that a failed sync has lost an object of fails, and leaves nothing', async () => {
  rig.store.flush = async (container, prefix) => {
    const keys = [...(rig.objects.containers.get(container)?.keys() ?? [])];
    if (keys.some((key) => key.startsWith(prefix) && key.endsWith('-00003'))) throw denied;
    await Promise.resolve();
  };
  const { row } = await rig.backup(await rig.addVolume(sizeBytes));
  expect(row).toMatchObject({ status: 'error', failReason: denied.message });
  expect(keysIn(rig)).toEqual([]);
});

test('a snapshot that was made without an answer, and is damaged, goes when the backup fails', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  rig.overrides.createSnapshot = async (volume, snapshot, signal) => {
    await machine.client.createSnapshot('file', volume, snapshot, signal);
    throw new BackupError('agent-unavailable', 'no answer');
  };
  rig.overrides.listSnapshots = () => Promise.resolve([]);
  const { row } = await rig.backup(volumeId);
  expect(row).toMatchObject({ status: 'error', failReason: 'no answer' });
  expect(await rig.snapshotOwners(volumeId)).toEqual([]);
});

test.each([
  ['before it begins', 1],
  ['after it has read its row', 2],
  ['before it writes its place', 3],
  ['before it reads the rows of the volume', 5],
])('a database that is away %s is waited for', async (_when, after) => {
  const volumeId = await rig.addVolume(sizeBytes);
  rig.failDatabase(after, 3);
  const { row, operation } = await rig.backup(volumeId);
  expect(operation).toMatchObject({ state: 'succeeded', error: null });
  expect(row).toMatchObject({ status: 'available', objectCount: 10 });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('a database that is away when all is stored is waited for', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const hold = rig.store.hold('putStream', /_metadata$/);
  const making = rig.backup(volumeId);
  await hold.reached;
  rig.failDatabase(0, 4);
  hold.open();
  const { row, operation } = await making;
  expect(operation.state).toBe('succeeded');
  expect(row).toMatchObject({ status: 'available', objectCount: 10 });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
});

test('a database that is away while it is cleaned up after is asked again', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  rig.store.plan({ call: 'put', key: /-00002$/, error: denied });
  const hold = rig.store.hold('put', /-00002$/);
  const making = rig.backup(volumeId);
  await hold.reached;
  rig.failDatabase(0, 4);
  hold.open();
  const { row } = await making;
  expect(row).toMatchObject({ status: 'error', failReason: 'the store refuses' });
  expect(await rig.volumeStatus(volumeId)).toBe('available');
  expect(keysIn(rig)).toEqual([]);
});

test('a finished backup stands also when its volume was taken out of its hands', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const hold = rig.store.hold('putStream', /_metadata$/);
  const making = rig.backup(volumeId);
  await hold.reached;
  await rig.database.sql.updateTable('volumes').set({ status: 'error' }).where('id', '=', volumeId).execute();
  hold.open();
  const { row, operation } = await making;
  expect(operation.state).toBe('succeeded');
  expect(row).toMatchObject({ status: 'available', objectCount: 10 });
  expect(await rig.volumeStatus(volumeId)).toBe('error');
});

test.each(['../x', 'a//b', '/a', 'a/..', 'é'.repeat(130), '.cinder-delta-x/a'])(
  'a container that no store can have is refused before anything is written: %s',
  async (container) => {
    const volumeId = await rig.addVolume(sizeBytes);
    await expect(rig.backup(volumeId, { container })).rejects.toMatchObject({ code: 'message-invalid' });
    expect(await rig.volumeStatus(volumeId)).toBe('available');
    expect(await rig.database.sql.selectFrom('backups').selectAll().execute()).toEqual([]);
  },
);

test('a container that was asked for is taken', async () => {
  const { row } = await rig.backup(await rig.addVolume(sizeBytes), { container: 'mine/of 2026' });
  expect(row).toMatchObject({ status: 'available', container: 'mine/of 2026' });
});
