import { randomUUID } from 'node:crypto';
import { stat, truncate, writeFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { gibibyte } from '../../src/model/volume.ts';
import { BackupError } from '../../src/model/errors.ts';
import { blockSize, startMachine, type Machine } from '../manager/rig.ts';
import { patternBytes } from '../support/pattern.ts';
import { serve, type Served } from './served.ts';

let machine: Machine;
let served: Served;
beforeAll(async () => {
  machine = await startMachine();
});
afterAll(() => machine.close());
beforeEach(() => {
  served = serve(machine);
});
afterEach(() => served.close());

const show = async (id: string) => (await served.ask('GET', `/v3/demo/volumes/${id}`)).body.volume;

test('a new volume is a file of zeros of that size', async () => {
  const { status, body } = await served.ask('POST', '/v3/demo/volumes', {
    volume: { size: 2, name: 'v', description: 'd', metadata: { purpose: 'x' } },
  });
  expect(status).toBe(202);
  expect(body.volume).toMatchObject({
    status: 'available',
    size: 2,
    name: 'v',
    description: 'd',
    metadata: { purpose: 'x' },
    bootable: 'false',
    attachments: [],
    'os-vol-tenant-attr:tenant_id': 'demo',
  });
  expect((await stat(served.rig.path(body.volume.id))).size).toBe(2 * gibibyte);
  expect(await show(body.volume.id)).toEqual(body.volume);
});

test('a file that an operator puts there is adopted by the project that asks first', async () => {
  const id = randomUUID();
  await writeFile(served.rig.path(id), patternBytes(3 * blockSize, 1));
  const { body } = await served.ask('GET', '/v3/demo/volumes/detail');
  const found = body.volumes.find((volume: { id: string }) => volume.id === id);
  expect(found).toMatchObject({ size: 1, status: 'available', name: null });
  expect((await served.ask('GET', `/v3/other/volumes/${id}`)).status).toBe(404);
});

test('a backup can be asked for before the volume was ever listed', async () => {
  const id = randomUUID();
  await writeFile(served.rig.path(id), patternBytes(3 * blockSize, 1));
  const { status, body } = await served.ask('POST', '/v3/demo/backups', { backup: { volume_id: id } });
  expect(status).toBe(202);
  await served.settle();
  expect((await served.rig.row(body.backup.id)).status).toBe('available');
});

test('a file that its owner made larger has the new size in the list', async () => {
  const id = randomUUID();
  await writeFile(served.rig.path(id), patternBytes(blockSize, 1));
  await served.ask('GET', '/v3/demo/volumes');
  await truncate(served.rig.path(id), 3 * gibibyte - 1);
  await served.ask('GET', '/v3/demo/volumes');
  expect((await show(id)).size).toBe(3);
});

test('os-extend grows the file, and refuses to shrink it', async () => {
  const { body } = await served.ask('POST', '/v3/demo/volumes', { volume: { size: 1 } });
  const { id } = body.volume;
  const extend = (size: unknown) =>
    served.ask('POST', `/v3/demo/volumes/${id}/action`, { 'os-extend': { new_size: size } });
  expect((await extend(2)).status).toBe(202);
  await served.settle();
  expect(await show(id)).toMatchObject({ status: 'available', size: 2 });
  expect((await stat(served.rig.path(id))).size).toBe(2 * gibibyte);
  expect((await extend(2)).body.badRequest.message).toMatch(/must be greater than current size/);
  expect((await extend(-1)).status).toBe(400);
});

test('an extend that the storage refuses ends in error_extending', async () => {
  const { body } = await served.ask('POST', '/v3/demo/volumes', { volume: { size: 1 } });
  served.rig.overrides.resizeVolume = () => Promise.reject(new BackupError('store-full', 'no room'));
  await served.ask('POST', `/v3/demo/volumes/${body.volume.id}/action`, { 'os-extend': { new_size: 2 } });
  await served.settle();
  expect(await show(body.volume.id)).toMatchObject({ status: 'error_extending', size: 1 });
});

test('a volume that the storage refuses is shown in error', async () => {
  served.rig.overrides.createVolume = () => Promise.reject(new BackupError('store-full', 'no room'));
  const answer = await served.ask('POST', '/v3/demo/volumes', { volume: { size: 1, name: 'lost' } });
  expect(answer).toMatchObject({ status: 507, headers: { 'x-cinder-delta-error': 'store-full' } });
  expect(answer.body.computeFault.message).toBe('no room');
  const { body } = await served.ask('GET', '/v3/demo/volumes/detail?name=lost');
  expect(body.volumes[0].status).toBe('error');
});

test.each([
  ['no size', {}],
  ['a size of nothing', { size: 0 }],
  ['a size that no file has', { size: 1e9 }],
  ['a source that is not supported here', { size: 1, source_volid: randomUUID() }],
])('a volume with %s is refused', async (_what, volume) => {
  const { status, body } = await served.ask('POST', '/v3/demo/volumes', { volume });
  expect(status).toBe(400);
  expect(body.badRequest.message).toMatch(/volume\.(size|source_volid)/);
});

test('a snapshot is made, backed up, listed and deleted', async () => {
  const volumeId = await served.rig.addVolume(20 * blockSize);
  const made = await served.ask('POST', '/v3/demo/snapshots', {
    snapshot: { volume_id: volumeId, name: 's' },
  });
  expect(made).toMatchObject({
    status: 202,
    body: { snapshot: { status: 'creating', volume_id: volumeId, size: 1 } },
  });
  await served.settle();
  const { id } = made.body.snapshot;
  expect((await served.ask('GET', `/v3/demo/snapshots/${id}`)).body.snapshot.status).toBe('available');
  const backup = await served.ask('POST', '/v3/demo/backups', {
    backup: { volume_id: volumeId, snapshot_id: id },
  });
  await served.settle();
  const { body: shown } = await served.ask('GET', `/v3/demo/backups/${backup.body.backup.id}`);
  expect(shown.backup).toMatchObject({ status: 'available', snapshot_id: id });
  expect(
    (await served.ask('GET', `/v3/demo/snapshots/detail?volume_id=${volumeId}`)).body.snapshots,
  ).toHaveLength(1);
  expect((await served.ask('DELETE', `/v3/demo/snapshots/${id}`)).status).toBe(202);
  await served.settle();
  expect((await served.ask('GET', `/v3/demo/snapshots/${id}`)).status).toBe(404);
});

test('a snapshot of another volume cannot be named for a backup', async () => {
  const one = await served.rig.addVolume(20 * blockSize);
  const two = await served.rig.addVolume(20 * blockSize);
  const made = await served.ask('POST', '/v3/demo/snapshots', { snapshot: { volume_id: one } });
  await served.settle();
  const snapshotId = made.body.snapshot.id;
  const { status, body } = await served.ask('POST', '/v3/demo/backups', {
    backup: { volume_id: two, snapshot_id: snapshotId },
  });
  expect(status).toBe(400);
  expect(body.badRequest.message).toMatch(/does not match with snapshot.volume_id/);
});

test('os-reset_status leads out of an error, and not out of work that goes on', async () => {
  const id = await served.rig.addVolume(blockSize);
  const reset = (status: string) =>
    served.ask('POST', `/v3/demo/volumes/${id}/action`, { 'os-reset_status': { status } });
  for (const broken of ['error', 'error_restoring', 'error_extending']) {
    await served.rig.database.sql
      .updateTable('volumes')
      .set({ status: broken })
      .where('id', '=', id)
      .execute();
    expect((await reset('AVAILABLE')).status).toBe(202);
    expect((await show(id)).status).toBe('available');
  }
  await served.rig.database.sql
    .updateTable('volumes')
    .set({ status: 'backing-up' })
    .where('id', '=', id)
    .execute();
  expect((await reset('available')).status).toBe(409);
  expect((await reset('extending')).status).toBe(400);
  expect((await show(id)).status).toBe('backing-up');
});
