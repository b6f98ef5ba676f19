import { rm } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Backup } from '../../src/model/backup.ts';
import { BackupError } from '../../src/model/errors.ts';
import { blockSize, context, createRig, keyOf, keysIn, startMachine, type Machine, type Rig } from './rig.ts';

const signal = new AbortController().signal;
const denied = new BackupError('store-denied', 'the store refuses');
let machine: Machine;
let rig: Rig;
let volumeId: string;
let full: Backup;
beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(async () => {
  rig = createRig(machine);
  volumeId = await rig.addVolume(40 * blockSize);
  ({ row: full } = await rig.backup(volumeId));
});
afterEach(() => rig.close());

test('a backup goes with its objects, its directory and its snapshot; the row stays, marked', async () => {
  expect((await rig.remove(full.id)).state).toBe('succeeded');
  expect(await rig.row(full.id)).toMatchObject({ status: 'deleted', deleted: true });
  expect(keysIn(rig)).toEqual([]);
  expect(await rig.snapshotOwners(volumeId)).toEqual([]);
});

test('what says that it is complete goes first', async () => {
  const before = rig.store.calls;
  await rig.remove(full.id);
  const removals = rig.store.history.slice(before).filter((call) => call.startsWith('remove '));
  expect(removals[0]).toMatch(/_metadata$/);
  expect(removals[1]).toMatch(/_sha256file$/);
  expect(removals[2]).toMatch(/-\d{5}$/);
});

test('one with dependents is refused, also by force, and they are named', async () => {
  const { row: child } = await rig.backup(volumeId, { incremental: true });
  for (const force of [false, true]) {
    await expect(rig.remove(full.id, force)).rejects.toMatchObject({
      code: 'state-invalid',
      message: expect.stringContaining(child.id),
    });
  }
  await rig.remove(child.id);
  expect((await rig.row(full.id)).dependents).toBe(0);
  expect((await rig.remove(full.id)).state).toBe('succeeded');
});

test('a failed increment does not count when it goes', async () => {
  rig.store.plan({ call: 'putStream', error: denied });
  const { row: failed } = await rig.backup(volumeId, { incremental: true });
  expect(failed).toMatchObject({ status: 'error', parentId: full.id });
  await rig.backup(volumeId, { incremental: true });
  await rig.remove(failed.id);
  expect((await rig.row(full.id)).dependents).toBe(1);
});

test('a deletion that fails half-way leaves no metadata, says why, and can be asked for again', async () => {
  rig.store.plan({ call: 'remove', key: /-00005$/, error: denied });
  const operation = await rig.remove(full.id);
  expect(operation).toMatchObject({ state: 'failed', error: { code: 'store-denied' } });
  expect(await rig.row(full.id)).toMatchObject({ status: 'error', failReason: 'the store refuses' });
  expect(keysIn(rig).some((key) => key.endsWith('_metadata'))).toBe(false);
  expect((await rig.remove(full.id)).state).toBe('succeeded');
  expect(keysIn(rig)).toEqual([]);
});

async function pointTo(id: string, container: string | null, prefix: string | null): Promise<void> {
  await rig.database.sql
    .updateTable('backups')
    .set({ container, service_metadata: prefix })
    .where('id', '=', id)
    .execute();
}

test('a row whose prefix names no backup is not followed', async () => {
  const { row: other } = await rig.backup(volumeId);
  await pointTo(full.id, other.container, 'volume_');
  const operation = await rig.remove(full.id);
  expect(operation.error?.message).toMatch(/does not name that backup, so nothing was removed/);
  const { container, key } = keyOf(other, '_metadata');
  expect(rig.objects.containers.get(container)?.has(key)).toBe(true);
});

test('a record that was imported under another id leaves the objects to the backup that they name', async () => {
  const { row: other } = await rig.backup(volumeId);
  await pointTo(full.id, other.container, other.prefix);
  expect((await rig.remove(full.id)).state).toBe('succeeded');
  expect(await rig.row(full.id)).toMatchObject({ deleted: true });
  const { container, key } = keyOf(other, '_metadata');
  expect(rig.objects.containers.get(container)?.has(key)).toBe(true);
  expect((await rig.remove(other.id)).state).toBe('succeeded');
  expect(rig.objects.containers.get(container)?.has(key) ?? false).toBe(false);
});

test('a record that was imported under another id takes the objects with it when no other backup has them', async () => {
  const { row: other } = await rig.backup(volumeId);
  await pointTo(full.id, other.container, other.prefix);
  await rig.database.sql.deleteFrom('backups').where('id', '=', other.id).execute();
  expect((await rig.remove(full.id)).state).toBe('succeeded');
  const { container, key } = keyOf(other, '_metadata');
  expect(rig.objects.containers.get(container)?.has(key) ?? false).toBe(false);
});

test('a backup of another store is refused', async () => {
  await rig.database.sql
    .updateTable('backups')
    .set({ service: 'cinder.backup.drivers.swift.SwiftBackupDriver' })
    .where('id', '=', full.id)
    .execute();
  const operation = await rig.remove(full.id);
  expect(operation.error?.message).toMatch(/SwiftBackupDriver/);
  expect(keysIn(rig).length).toBeGreaterThan(0);
});

test('an agent that is away does not keep a backup from going', async () => {
  rig.overrides.deleteSnapshot = () => Promise.reject(new BackupError('agent-unavailable', 'away'));
  expect((await rig.remove(full.id)).state).toBe('succeeded');
});

test('one of another project is not found', async () => {
  const asked = rig.manager.remove({ ...context, projectId: 'other' }, { backupId: full.id, force: true });
  await expect(asked).rejects.toMatchObject({ code: 'not-found' });
});

test('deleting while it is verified ends the verify', async () => {
  const hold = rig.store.hold('get', /-00001$/);
  const { operation } = await rig.manager.verify(context, full.id);
  await hold.reached;
  const deleting = rig.remove(full.id);
  hold.open();
  expect((await deleting).state).toBe('succeeded');
  await operation.done;
  expect(rig.operations.get(operation.id)?.state).toBe('cancelled');
});

test('a status is reset to available only if the backup is complete', async () => {
  await rig.manager.reset(context, full.id, 'error', signal);
  expect((await rig.row(full.id)).status).toBe('error');
  await rig.manager.reset(context, full.id, 'available', signal);
  expect((await rig.row(full.id)).status).toBe('available');
  await rig.manager.reset(context, full.id, 'error', signal);
  const { container, key } = keyOf(full, '-00002');
  await rig.objects.remove(container, key, signal);
  await expect(rig.manager.reset(context, full.id, 'available', signal)).rejects.toMatchObject({
    code: 'chain-broken',
  });
  expect((await rig.row(full.id)).status).toBe('error');
});

test('a status is not reset under a running operation', async () => {
  const hold = rig.store.hold('put');
  const making = rig.backup(volumeId);
  await hold.reached;
  const [operation] = rig.operations.list();
  const reset = rig.manager.reset(context, operation?.backupId ?? '', 'error', signal);
  await expect(reset).rejects.toMatchObject({ code: 'state-invalid' });
  hold.open();
  expect((await making).row.status).toBe('available');
});

test('the snapshot of a volume that is gone goes with its backup', async () => {
  await rm(rig.path(volumeId));
  await rig.database.sql.updateTable('volumes').set({ deleted: true }).where('id', '=', volumeId).execute();
  expect(await rig.snapshotOwners(volumeId)).toEqual([full.id]);
  expect((await rig.remove(full.id)).state).toBe('succeeded');
  expect(await rig.snapshotOwners(volumeId)).toEqual([]);
});

test('a snapshot that the agent does not list, because it is damaged, goes all the same', async () => {
  rig.overrides.listSnapshots = () => Promise.resolve([]);
  expect((await rig.remove(full.id)).state).toBe('succeeded');
  expect(await rig.snapshotOwners(volumeId)).toEqual([]);
});

test('a backup that was never finished gives its volume back when it goes', async () => {
  const { row } = await rig.backup(volumeId);
  const columns = { status: 'deleting', object_count: null };
  await rig.database.sql.updateTable('backups').set(columns).where('id', '=', row.id).execute();
  const left = { status: 'backing-up', previous_status: 'in-use' };
  await rig.database.sql.updateTable('volumes').set(left).where('id', '=', volumeId).execute();
  rig.store.plan({ call: 'remove', error: denied });
  expect((await rig.remove(row.id, true)).state).toBe('failed');
  expect(await rig.volumeStatus(volumeId)).toBe('in-use');
});

test('a failed backup that goes does not take the volume from the one that is being made', async () => {
  rig.store.plan({ call: 'put', error: denied });
  const { row: failed } = await rig.backup(volumeId);
  const hold = rig.store.hold('put');
  const making = rig.backup(volumeId);
  await hold.reached;
  await rig.remove(failed.id);
  expect(await rig.volumeStatus(volumeId)).toBe('backing-up');
  hold.open();
  expect((await making).row.status).toBe('available');
});

test('a database that is away for a moment keeps no deletion from its end', async () => {
  rig.store.plan({ call: 'remove', error: denied });
  const hold = rig.store.hold('remove');
  const deleting = rig.remove(full.id);
  await hold.reached;
  rig.failDatabase(0, 2);
  hold.open();
  expect((await deleting).error).toMatchObject({ code: 'store-denied' });
  expect(await rig.row(full.id)).toMatchObject({ status: 'error', failReason: 'the store refuses' });
});

test('a failed increment does not keep its parent', async () => {
  rig.store.plan({ call: 'putStream', error: denied });
  const { row: failed } = await rig.backup(volumeId, { incremental: true });
  expect(failed).toMatchObject({ status: 'error', parentId: full.id });
  expect((await rig.remove(full.id)).state).toBe('succeeded');
  expect((await rig.remove(failed.id)).state).toBe('succeeded');
});

test.each(['../x', 'a//b', `a/${'x'.repeat(251)}é`.padEnd(260, 'x')])(
  'a place that no store can have holds nothing: %s',
  async (container) => {
    const { row } = await rig.backup(volumeId);
    const columns = { container, object_count: null, status: 'error' };
    await rig.database.sql.updateTable('backups').set(columns).where('id', '=', row.id).execute();
    expect((await rig.remove(row.id)).state).toBe('succeeded');
  },
);

test('an impossible place of a finished backup is an error: its objects are somewhere', async () => {
  await rig.database.sql
    .updateTable('backups')
    .set({ container: '../x' })
    .where('id', '=', full.id)
    .execute();
  expect((await rig.remove(full.id)).error).toMatchObject({ code: 'message-invalid' });
});

test('reset to available, a backup whose last commit was lost has its count, and its parent has it', async () => {
  await rig.change(volumeId, 0, blockSize, 2);
  const { row: child } = await rig.backup(volumeId, { incremental: true });
  const { sql } = rig.database;
  const lost = { status: 'error', object_count: null, size: 7 };
  await sql.updateTable('backups').set(lost).where('id', '=', child.id).execute();
  await sql.updateTable('backups').set({ num_dependent_backups: 0 }).where('id', '=', full.id).execute();
  await rig.manager.reset(context, child.id, 'available', signal);
  expect(await rig.row(child.id)).toMatchObject({
    status: 'available',
    objectCount: 1,
    sizeGiB: 7,
    parentId: full.id,
  });
  expect((await rig.row(full.id)).dependents).toBe(1);
  await rig.manager.reset(context, child.id, 'available', signal);
  expect((await rig.row(full.id)).dependents).toBe(1);
});

test('reset to available, one that became a full backup loses the parent that it was asked for', async () => {
  const { row } = await rig.backup(volumeId);
  const lost = { status: 'error', object_count: null, parent_id: full.id };
  await rig.database.sql.updateTable('backups').set(lost).where('id', '=', row.id).execute();
  await rig.manager.reset(context, row.id, 'available', signal);
  expect(await rig.row(row.id)).toMatchObject({ status: 'available', parentId: null, objectCount: 10 });
  expect((await rig.row(full.id)).dependents).toBe(0);
});
