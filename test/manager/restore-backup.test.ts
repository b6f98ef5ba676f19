import { open, truncate } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import {
  listVolumeMetadata,
  setVolumeMetadata,
  replaceVolumeMetadata,
} from '../../src/database/volume-metadata.ts';
import { getVolume, moveVolume } from '../../src/database/volumes.ts';
import type { Backup } from '../../src/model/backup.ts';
import { bytesPerObject } from '../../src/layout/chain.ts';
import { BackupError } from '../../src/model/errors.ts';
import { gibibyte } from '../../src/model/volume.ts';
import { blockSize, context, createRig, keyOf, startMachine, type Machine, type Rig } from './rig.ts';

const sizeBytes = 40 * blockSize;
let machine: Machine;
let rig: Rig;
let volumeId: string;
let full: Backup;
let increment: Backup;
beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(async () => {
  rig = createRig(machine);
  volumeId = await rig.addVolume(sizeBytes);
  ({ row: full } = await rig.backup(volumeId));
  await rig.change(volumeId, 5 * blockSize, 2 * blockSize, 2);
  ({ row: increment } = await rig.backup(volumeId, { incremental: true }));
});
afterEach(() => rig.close());

test('an increment is restored into another volume, whose row tells where it came from', async () => {
  const target = await rig.addVolume(sizeBytes, 9);
  const { operation } = await rig.restore(increment.id, target);
  expect(operation.state).toBe('succeeded');
  expect((await rig.bytes(target)).equals(await rig.bytes(volumeId))).toBe(true);
  expect(await rig.volumeStatus(target)).toBe('available');
  expect(await rig.row(increment.id)).toMatchObject({ status: 'available', restoreVolumeId: target });
  const metadata = await listVolumeMetadata(rig.database.sql, [target]);
  expect(metadata.get(target)).toEqual({ src_backup_id: increment.id });
});

test('the full backup is restored into its own volume without the later change', async () => {
  const before = await rig.bytes(volumeId);
  await rig.restore(full.id, volumeId);
  const after = await rig.bytes(volumeId);
  expect(after.equals(before)).toBe(false);
  await rig.restore(increment.id, volumeId);
  expect((await rig.bytes(volumeId)).equals(before)).toBe(true);
});

test('without a volume a new one is made, and takes the name of the old one', async () => {
  const { volumeId: made, operation } = await rig.restore(increment.id, null);
  expect(operation.state).toBe('succeeded');
  expect(await getVolume(rig.database.sql, made)).toMatchObject({
    status: 'available',
    name: 'v',
    sizeGiB: 1,
  });
  await using file = await open(rig.path(made));
  expect((await file.stat()).size).toBe(gibibyte);
  const { buffer } = await file.read(Buffer.alloc(sizeBytes), 0, sizeBytes, 0);
  expect(buffer.equals(await rig.bytes(volumeId))).toBe(true);
});

test("the user's keys come back and replace those of the target", async () => {
  await setVolumeMetadata(rig.database.sql, volumeId, { purpose: 'reference' }, new Date());
  const { row } = await rig.backup(volumeId);
  const target = await rig.addVolume(sizeBytes, 9);
  await setVolumeMetadata(rig.database.sql, target, { other: 'thing' }, new Date());
  await rig.restore(row.id, target);
  const metadata = await listVolumeMetadata(rig.database.sql, [target]);
  expect(metadata.get(target)).toEqual({ purpose: 'reference', src_backup_id: row.id });
});

test.each([
  ['that it has is forgotten, if the backup knows of none', {}, { src_backup_id: 'other' }, false],
  ['that the backup knows is replaced', { src_backup_id: 'other' }, {}, true],
] as const)('of a volume that gets its own backup back, a source %s', async (_what, kept, has, isNamed) => {
  const { sql } = rig.database;
  await setVolumeMetadata(sql, volumeId, { purpose: 'reference', ...kept }, new Date());
  const { row } = await rig.backup(volumeId);
  await replaceVolumeMetadata(sql, volumeId, has, new Date());
  await rig.restore(row.id, volumeId);
  const source = (await listVolumeMetadata(sql, [volumeId])).get(volumeId)?.['src_backup_id'];
  expect(source).toBe(isNamed ? row.id : undefined);
});

test('a volume that is not available, and one that is too small, are refused with nothing written', async () => {
  const busy = await rig.addVolume(sizeBytes, 9);
  await moveVolume(rig.database.sql, busy, { from: ['available'], to: 'in-use' }, {}, new Date());
  await expect(rig.restore(full.id, busy)).rejects.toThrow(/must be available/);
  const small = await rig.addVolume(sizeBytes, 9);
  await rig.database.sql.updateTable('volumes').set({ size: 0 }).where('id', '=', small).execute();
  await expect(rig.restore(full.id, small)).rejects.toThrow(/too small/);
  expect((await rig.row(full.id)).status).toBe('available');
  expect(await rig.volumeStatus(small)).toBe('available');
});

test('a volume with fewer bytes than the backup is refused before a byte is written', async () => {
  const target = await rig.addVolume(sizeBytes, 9);
  await truncate(rig.path(target), sizeBytes - blockSize);
  const before = await rig.bytes(target);
  const { operation } = await rig.restore(full.id, target);
  expect(operation.error).toMatchObject({ code: 'state-invalid' });
  expect(operation.error?.message).toContain(`has ${sizeBytes - blockSize} bytes`);
  expect((await rig.bytes(target)).equals(before)).toBe(true);
  expect(await rig.volumeStatus(target)).toBe('error_restoring');
});

test.each([
  ['the store is gone', /-00003$/],
  ['the metadata cannot be read', /_metadata$/],
  ['the hash list cannot be read', /_sha256file$/],
])('when %s the volume says so and the backup is free again', async (_what, key) => {
  const target = await rig.addVolume(sizeBytes, 9);
  rig.store.plan({ call: 'get', key, error: new BackupError('store-unavailable', 'no answer'), times: 99 });
  const { operation } = await rig.restore(full.id, target);
  expect(operation).toMatchObject({ state: 'failed', error: { code: 'store-unavailable' } });
  expect(await rig.volumeStatus(target)).toBe('error_restoring');
  expect((await rig.row(full.id)).status).toBe('available');
  const message = await rig.database.sql.selectFrom('messages').selectAll().executeTakeFirstOrThrow();
  expect(message).toMatchObject({ event_id: 'VOLUME_VOLUME_BACKUP_015_026', resource_uuid: full.id });
});

test.each(['getVolume', 'openTarget'] as const)(
  'when %s of the agent fails the rows are given back',
  async (call) => {
    const target = await rig.addVolume(sizeBytes, 9);
    rig.overrides[call] = (): Promise<never> =>
      Promise.reject(new BackupError('agent-unavailable', 'no answer'));
    const { operation } = await rig.restore(full.id, target);
    expect(operation).toMatchObject({ state: 'failed', error: { code: 'agent-unavailable' } });
    expect(await rig.volumeStatus(target)).toBe('error_restoring');
    expect((await rig.row(full.id)).status).toBe('available');
  },
);

test('a flipped bit in an object never ends in success', async () => {
  const { container, key } = keyOf(full, '-00006');
  rig.objects.corrupt(container, key, (bytes) => {
    bytes[40] = (bytes[40] ?? 0) ^ 4;
    return bytes;
  });
  const target = await rig.addVolume(sizeBytes, 9);
  const { operation } = await rig.restore(full.id, target);
  expect(operation).toMatchObject({ state: 'failed', error: { code: 'corrupt' } });
  expect(await rig.volumeStatus(target)).toBe('error_restoring');
});

test.each([
  ['an object of the full backup', 'full', '-00006'],
  ['an object of the increment', 'increment', '-00001'],
  ['the hash list', 'increment', '_sha256file'],
] as const)(
  'a restore that lacks %s is refused before the volume is opened',
  async (_what, which, ending) => {
    const { container, key } = keyOf({ full, increment }[which], ending);
    await rig.objects.remove(container, key, new AbortController().signal);
    let opened = 0;
    rig.overrides.openTarget = () => {
      opened += 1;
      return Promise.reject(new BackupError('bug', 'the target was opened'));
    };
    const target = await rig.addVolume(sizeBytes, 9);
    const before = await rig.bytes(target);
    const { operation } = await rig.restore(increment.id, target);
    expect(operation.error).toMatchObject({
      code: 'object-missing',
      message: expect.stringContaining(key),
    });
    expect(opened).toBe(0);
    expect((await rig.bytes(target)).equals(before)).toBe(true);
    expect(await rig.volumeStatus(target)).toBe('error_restoring');
    expect((await rig.row(increment.id)).status).toBe('available');
  },
);

test('a volume that was taken away while its restore waited for memory is not opened', async () => {
  const { memory } = rig.environment.resources;
  const target = await rig.addVolume(sizeBytes, 9);
  let opened = 0;
  rig.overrides.openTarget = () => {
    opened += 1;
    return Promise.reject(new BackupError('bug', 'the target was opened'));
  };
  const release = await memory.acquire(memory.capacity);
  const running = rig.restore(increment.id, target);
  await expect.poll(() => memory.waiting).toBe(1);
  const step = { from: ['restoring-backup'], to: 'in-use' } as const;
  await moveVolume(rig.database.sql, target, step, {}, new Date());
  release();
  const { operation } = await running;
  expect(operation.error?.message).toContain(
    'expected volume status restoring-backup,creating but got in-use',
  );
  expect(opened).toBe(0);
  expect(await rig.volumeStatus(target)).toBe('in-use');
});

test('objects too many, and an absent one that a newer layer hides, do not hinder a restore', async () => {
  const { signal } = new AbortController();
  await rig.change(volumeId, 0, sizeBytes, 3);
  const { row } = await rig.backup(volumeId, { incremental: true });
  const { container, key } = keyOf(full, '-00006');
  await rig.objects.remove(container, key, signal);
  await rig.objects.put(container, keyOf(full, '-00099').key, Buffer.from('more'), { signal });
  const target = await rig.addVolume(sizeBytes, 9);
  expect((await rig.restore(row.id, target)).operation.state).toBe('succeeded');
  expect((await rig.bytes(target)).equals(await rig.bytes(volumeId))).toBe(true);
});

test('a store whose listing comes late does not hinder a restore', async () => {
  const late = keyOf(full, '-00006').key;
  const { store } = rig.environment.resources;
  const list = store.list.bind(store);
  store.list = async function* (container, prefix, signal) {
    for await (const page of list(container, prefix, signal)) yield page.filter(({ key }) => key !== late);
  };
  const target = await rig.addVolume(sizeBytes, 9);
  expect((await rig.restore(increment.id, target)).operation.state).toBe('succeeded');
  expect((await rig.bytes(target)).equals(await rig.bytes(volumeId))).toBe(true);
});

test('a chain whose parent is gone from the rows is refused by name', async () => {
  await rig.database.sql.updateTable('backups').set({ deleted: true }).where('id', '=', full.id).execute();
  const target = await rig.addVolume(sizeBytes, 9);
  const { operation } = await rig.restore(increment.id, target);
  expect(operation.error).toMatchObject({ code: 'chain-broken' });
  expect(operation.error?.message).toContain(full.id);
});

test('rows that go round are refused', async () => {
  await rig.database.sql
    .updateTable('backups')
    .set({ parent_id: increment.id })
    .where('id', '=', full.id)
    .execute();
  const target = await rig.addVolume(sizeBytes, 9);
  const { operation } = await rig.restore(increment.id, target);
  expect(operation.error?.message).toMatch(/lead back to/);
});

test('deleting by force while it is restored cancels the restore; the volume ends in error', async () => {
  const target = await rig.addVolume(sizeBytes, 9);
  const hold = rig.store.hold('get', /-00001$/);
  const restoring = rig.restore(increment.id, target);
  await hold.reached;
  const deleting = rig.remove(increment.id, true);
  hold.open();
  const [{ operation }, deletion] = await Promise.all([restoring, deleting]);
  expect(operation.state).toBe('cancelled');
  expect(deletion.state).toBe('succeeded');
  expect(await rig.volumeStatus(target)).toBe('error');
  expect((await rig.row(increment.id)).status).toBe('deleted');
});

test('verify tells every bad range of the chain and writes no row', async () => {
  for (const number of ['-00004', '-00009']) {
    const { container, key } = keyOf(full, number);
    rig.objects.corrupt(container, key, (bytes) => {
      bytes[50] = (bytes[50] ?? 0) ^ 1;
      return bytes;
    });
  }
  const { operation } = await rig.manager.verify(
    { projectId: 'demo', userId: 'u', requestId: 'r' },
    increment.id,
  );
  await operation.done;
  const found = rig.operations.get(operation.id);
  expect(found?.state).toBe('succeeded');
  expect(found?.verified?.checkedBytes).toBeGreaterThan(0);
  expect(found?.verified?.badRanges.map(({ object }) => object.slice(-6))).toEqual(['-00004', '-00009']);
  expect((await rig.row(increment.id)).status).toBe('available');
});

test('verify tells of metadata that is absent, and checks the layers that can be read', async () => {
  await rig.change(volumeId, 9 * blockSize, 2 * blockSize, 3);
  const { row: newest } = await rig.backup(volumeId, { incremental: true });
  const metadata = keyOf(increment, '_metadata');
  await rig.objects.remove(metadata.container, metadata.key, new AbortController().signal);
  const spoilt = [keyOf(full, '-00006'), keyOf(newest, '-00001')];
  for (const { container, key } of spoilt)
    rig.objects.corrupt(container, key, (bytes) => bytes.fill(7, 20, 30));
  const { operation } = await rig.manager.verify(context, newest.id);
  await operation.done;
  const found = rig.operations.get(operation.id);
  expect(found?.state).toBe('succeeded');
  const objects = found?.verified?.badRanges.map(({ object }) => object);
  expect(objects?.toSorted()).toEqual([metadata.key, ...spoilt.map(({ key }) => key)].toSorted());
});

test('verify of a backup whose only metadata is absent fails with that, and holds no memory', async () => {
  const { container, key } = keyOf(full, '_metadata');
  await rig.objects.remove(container, key, new AbortController().signal);
  const { operation } = await rig.manager.verify(context, full.id);
  await operation.done;
  expect(rig.operations.get(operation.id)?.error).toMatchObject({ code: 'object-missing' });
  expect(rig.environment.resources.objectLists.held).toBe(0);
});

test('the objects of a chain count while it is restored, and no longer', async () => {
  const objects =
    ((await rig.row(full.id)).objectCount ?? 0) + ((await rig.row(increment.id)).objectCount ?? 0);
  const { objectLists } = rig.environment.resources;
  const before = objectLists.peak;
  expect(before).toBe(0);
  await rig.restore(increment.id, await rig.addVolume(sizeBytes, 9));
  expect([objectLists.peak, objectLists.held]).toEqual([objects * bytesPerObject, 0]);
  rig.store.plan({
    call: 'get',
    key: /-00003$/,
    error: new BackupError('store-unavailable', 'no'),
    times: 99,
  });
  const { operation } = await rig.restore(increment.id, await rig.addVolume(sizeBytes, 9));
  expect([operation.state, objectLists.held]).toEqual(['failed', 0]);
});

test('a chain with more objects than there is memory for is refused with the remedy, restored and verified', async () => {
  const small = createRig(machine, { on: rig, maxObjects: 2 });
  const target = await rig.addVolume(sizeBytes, 9);
  const { operation } = await small.restore(increment.id, target);
  expect(operation).toMatchObject({
    state: 'failed',
    error: { code: 'limit-exceeded', message: expect.stringMatching(/--memory-mib \d+/) },
  });
  expect((await rig.row(increment.id)).status).toBe('available');
  const verify = await small.manager.verify(context, increment.id);
  await verify.operation.done;
  expect(small.operations.get(verify.operation.id)?.error).toMatchObject({ code: 'limit-exceeded' });
});

test('a volume that an earlier restore left in error_restoring can be restored again', async () => {
  const target = await rig.addVolume(sizeBytes, 9);
  rig.store.plan({ call: 'get', key: /-00003$/, error: new BackupError('store-unavailable', 'no answer') });
  await rig.restore(full.id, target);
  expect(await rig.volumeStatus(target)).toBe('error_restoring');
  expect((await rig.restore(increment.id, target)).operation.state).toBe('succeeded');
  expect((await rig.bytes(target)).equals(await rig.bytes(volumeId))).toBe(true);
  expect(await rig.volumeStatus(target)).toBe('available');
});

test('a volume that is made for a restore is never free for somebody else', async () => {
  const seen: string[] = [];
  rig.overrides.createVolume = async (volume, bytes, signal) => {
    const made = await machine.client.createVolume('file', volume, bytes, signal);
    await rig.database.sql
      .updateTable('backups')
      .set({ status: 'error' })
      .where('id', '=', full.id)
      .execute();
    seen.push(volume.slice('volume-'.length));
    return made;
  };
  await expect(rig.restore(full.id, null)).rejects.toMatchObject({ code: 'stale-update' });
  expect(await rig.volumeStatus(seen[0] ?? '')).toBe('error');
});

test.each([
  ['before it begins', 3],
  ['before it looks for other restores', 5],
  ['before it writes the volume', 6],
  ['when it is done', 8],
])('a database that is away %s is waited for', async (_when, after) => {
  const target = await rig.addVolume(sizeBytes, 9);
  rig.failDatabase(after, 3);
  const { operation } = await rig.restore(full.id, target);
  expect(operation.state).toBe('succeeded');
  expect(await rig.volumeStatus(target)).toBe('available');
  expect((await rig.row(full.id)).status).toBe('available');
});

test('a finished restore stands also when its volume was taken out of its hands', async () => {
  const target = await rig.addVolume(sizeBytes, 9);
  const hold = rig.store.hold('get', /-00010$/);
  const restoring = rig.restore(full.id, target);
  await hold.reached;
  await rig.database.sql.updateTable('volumes').set({ status: 'in-use' }).where('id', '=', target).execute();
  hold.open();
  expect((await restoring).operation.state).toBe('succeeded');
  expect(await rig.volumeStatus(target)).toBe('in-use');
  expect((await rig.row(full.id)).status).toBe('available');
});
