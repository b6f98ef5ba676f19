import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { BackupError } from '../../src/model/errors.ts';
import { blockSize, context, createRig, keysIn, startMachine, type Machine, type Rig } from './rig.ts';

let machine: Machine;
let rig: Rig;
beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(() => {
  rig = createRig(machine, { maxRunning: 1 });
});
afterEach(() => rig.close());

const sizeBytes = 8 * blockSize;

test('deleting by force cancels also while every place is taken', async () => {
  const [busy, wanted] = [await rig.addVolume(sizeBytes), await rig.addVolume(sizeBytes)];
  const hold = rig.store.hold('put');
  const making = rig.backup(busy);
  await hold.reached;
  const waiting = rig.backup(wanted);
  await expect.poll(() => rig.operations.list().length).toBe(2);
  const queued = rig.operations.list().find(({ state }) => state === 'queued');
  const deleting = rig.remove(queued?.backupId ?? '', true);
  const { row, operation } = await waiting;
  expect(operation.state).toBe('cancelled');
  expect(await rig.volumeStatus(wanted)).toBe('available');
  hold.open();
  expect((await making).row.status).toBe('available');
  expect((await deleting).state).toBe('succeeded');
  expect((await rig.row(row.id)).status).toBe('deleted');
});

test('deleting by force the one that holds the only place ends it', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const hold = rig.store.hold('put');
  const making = rig.backup(volumeId);
  await hold.reached;
  const [running] = rig.operations.list();
  const deleting = rig.remove(running?.backupId ?? '', true);
  await expect.poll(() => rig.operations.list().length).toBe(2);
  hold.open();
  expect((await making).operation.state).toBe('cancelled');
  expect((await deleting).state).toBe('succeeded');
  expect(keysIn(rig)).toEqual([]);
});

test('two deletions of one backup by force are one operation', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row } = await rig.backup(volumeId);
  const hold = rig.store.hold('remove');
  const request = { backupId: row.id, force: true };
  const asked = Promise.all([rig.manager.remove(context, request), rig.manager.remove(context, request)]);
  await hold.reached;
  const [first, second] = await asked;
  expect(second.operation.id).toBe(first.operation.id);
  await expect(rig.manager.remove(context, { ...request, force: false })).rejects.toMatchObject({
    code: 'state-invalid',
  });
  hold.open();
  await first.operation.done;
  expect(rig.operations.get(first.operation.id)?.state).toBe('succeeded');
  await expect(rig.manager.remove(context, request)).rejects.toMatchObject({ code: 'not-found' });
});

test('a deletion that failed leaves no second one behind that never ends', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row } = await rig.backup(volumeId);
  rig.store.plan({ call: 'remove', error: new BackupError('store-denied', 'the store refuses') });
  const request = { backupId: row.id, force: true };
  const both = await Promise.all([
    rig.manager.remove(context, request),
    rig.manager.remove(context, request),
  ]);
  await Promise.all(both.map(({ operation }) => operation.done));
  expect((await rig.row(row.id)).status).toBe('error');
  expect((await rig.remove(row.id)).state).toBe('succeeded');
});

test('a second verify of a backup is the one that runs', async () => {
  const volumeId = await rig.addVolume(sizeBytes);
  const { row } = await rig.backup(volumeId);
  const hold = rig.store.hold('get');
  const first = await rig.manager.verify(context, row.id);
  await hold.reached;
  const second = await rig.manager.verify(context, row.id);
  expect(second.operation.id).toBe(first.operation.id);
  hold.open();
  await first.operation.done;
  expect((await rig.manager.verify(context, row.id)).operation.id).not.toBe(first.operation.id);
});
