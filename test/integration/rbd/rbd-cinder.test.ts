/** Cinder's own RBD driver on the volumes that an agent has worked on: what Cinder must be able to remove, it removes. */
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { VolumeBackend } from '../../../src/agent/volume-backend.ts';
import { backupSnapshotName, cinderSnapshotName, volumeName } from '../../../src/model/names.ts';
import { startCeph, type CephCluster } from '../../support/ceph-cluster.ts';
import { startPythonPeer, type PythonPeer } from '../../support/python-peer.ts';
import { patternBytes } from '../../support/random-volume.ts';
import { clientConf, createImage, openRbdBackend } from '../../support/rbd-volumes.ts';

const MiB = 1024 * 1024;
const { signal } = new AbortController();

let cluster: CephCluster;
let cinder: PythonPeer;
let backend: VolumeBackend;

beforeAll(async () => {
  cluster = await startCeph();
  const path = join(cluster.directory, 'cinder.conf');
  const options = `rbd_pool = volumes\nrbd_user = cinder\nrbd_ceph_conf = ${await clientConf(cluster, 'cinder')}\n`;
  await writeFile(path, `[DEFAULT]\nenabled_backends = ceph\n[ceph]\n${options}`);
  cinder = startPythonPeer(fileURLToPath(new URL('../../support/rbd_cinder.py', import.meta.url)), path);
  backend = await openRbdBackend(cluster);
});
afterAll(async () => {
  await backend.close();
  await cinder.close();
  await cluster[Symbol.asyncDispose]();
});

async function makeVolume(volumeId = randomUUID()) {
  const volume = volumeName(volumeId);
  await createImage(cluster, volume, 8 * MiB);
  const target = await backend.openTarget(volume);
  await target.write(MiB, patternBytes(MiB, MiB, 1));
  await target.flush();
  await target.close();
  return { id: volumeId, volume };
}

async function images(): Promise<string[]> {
  return (await cluster.rbd('ls', 'volumes')).split('\n').filter((name) => name !== '');
}

test('a volume is removed with the snapshots of its backups, right after it was read and written to', async () => {
  const { id, volume } = await makeVolume();
  for (const time of [1, 2])
    await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), time), signal);
  const [first] = await backend.listSnapshots(volume);
  const source = await backend.openSnapshot(volume, first?.name ?? '');
  await source.close();
  expect(await cinder.ask({ do: 'delete_volume', volume: id })).toEqual({ name: volume });
  expect(await images()).not.toContain(volume);
  await expect(backend.getVolume(volume)).rejects.toMatchObject({ code: 'not-found' });
  expect(await backend.listSnapshots(volume)).toEqual([]);
});

test('a volume is removed while a snapshot of it is read, and the reader is told', async () => {
  const { id, volume } = await makeVolume();
  const { name } = await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), signal);
  const source = await backend.openSnapshot(volume, name);
  await source.requireWhole();
  expect(await cinder.ask({ do: 'delete_volume', volume: id })).toEqual({ name: volume });
  await expect(source.requireWhole()).rejects.toMatchObject({ code: 'state-invalid' });
  await source.close();
});

test("a snapshot of Cinder's is served, kept from removal while it is protected, and removed by Cinder", async () => {
  const { id, volume } = await makeVolume();
  const snapshot = randomUUID();
  const request = { volume: id, snapshot };
  const name = cinderSnapshotName(snapshot);
  expect(await cinder.ask({ do: 'create_snapshot', ...request })).toEqual({ name });
  expect(await backend.listSnapshots(volume)).toMatchObject([{ name, size_bytes: 8 * MiB }]);
  await expect(backend.deleteSnapshot(volume, name)).rejects.toMatchObject({ code: 'state-invalid' });
  expect(await cinder.ask({ do: 'delete_snapshot', ...request })).toEqual({ name });
  await backend.deleteSnapshot(volume, name);
  expect(await backend.listSnapshots(volume)).toEqual([]);
});

test('a migrated volume is served under the name of its name_id, and removed by Cinder', async () => {
  const { id: nameId, volume } = await makeVolume();
  await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), signal);
  const asked = { do: 'delete_volume', volume: randomUUID(), name_id: nameId };
  expect(await cinder.ask(asked)).toEqual({ name: volume });
  expect(await images()).not.toContain(volume);
});
