import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createReaderPool } from '../../src/agent/reader-pool.ts';
import type { VolumeBackend } from '../../src/agent/volume-backend.ts';
import { backupSnapshotName, cinderSnapshotName, volumeName } from '../../src/model/names.ts';
import { describeVolumeBackend } from '../contract/volume-backend.ts';
import { patternBytes } from '../support/random-volume.ts';
import { readAll } from '../support/read-snapshot.ts';
import { chunkBytes, createThinPool, type ThinPool } from '../support/thin-volumes.ts';

const MiB = 1024 * 1024;
const sizeBytes = 8 * MiB;
const { signal } = new AbortController();
const readers = createReaderPool({ threads: 2 });

let pool: ThinPool;

beforeAll(async () => {
  pool = await createThinPool(1024 * MiB);
});
afterAll(async () => {
  await readers.close();
  await pool[Symbol.asyncDispose]();
});

/** Pools change how they treat blocks only while nothing of them is active. */
const inPool = async (
  change: readonly [string, string],
  back: readonly [string, string],
  work: () => Promise<void>,
) => {
  const thinPool = `${pool.group}/${pool.group}-pool`;
  const apply = async (option: readonly [string, string]) => {
    const chosen = ['-S', 'lv_active=active && pool_lv!=""', pool.group];
    const active = (await pool.lvm('lvs', '--noheadings', '-o', 'lv_name', ...chosen)).trim();
    for (const name of active === '' ? [] : active.split(/\s+/)) {
      await pool.lvm('lvchange', '-an', `${pool.group}/${name}`);
    }
    await pool.lvm('lvchange', '-an', thinPool);
    await pool.lvm('lvchange', ...option, thinPool);
    await pool.lvm('lvchange', '-ay', thinPool);
  };
  await apply(change);
  try {
    await work();
  } finally {
    await apply(back);
  }
};

describeVolumeBackend(
  'thin volumes of LVM',
  async () => {
    const backend = await pool.open();
    return { backend, owner: pool, dispose: () => backend.close() };
  },
  { delta: 'extents', grainBytes: chunkBytes, unitBytes: chunkBytes, makesVolumes: false },
);

describe('thin volumes of LVM', () => {
  let backend: VolumeBackend;
  let volume: string;

  beforeAll(async () => {
    backend = await pool.open();
  });
  afterAll(async () => {
    await backend.close();
  });
  beforeEach(async () => {
    volume = volumeName(randomUUID());
    await pool.create(volume, sizeBytes);
  });

  const write = async (offset: number, bytes: Buffer, of = volume) => {
    const target = await backend.openTarget(of);
    await target.write(offset, bytes);
    await target.flush();
    await target.close();
  };
  const zero = async (offset: number, length: number) => {
    const target = await backend.openTarget(volume);
    await target.zero(offset, length);
    await target.flush();
    await target.close();
  };
  const snapshot = () => backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), signal);
  const read = async (name: string, of = volume) => {
    const source = await backend.openSnapshot(of, name);
    try {
      return await readAll(readers, source);
    } finally {
      await source.close();
    }
  };
  const delta = async (previous: string, current: string) => {
    const found = await backend.findRanges({
      volume,
      previous,
      previousIdentity: null,
      current,
      lengthBytes: sizeBytes,
      blockSize: 32_768,
      startOffset: 0,
      signal,
    });
    const extents = [];
    for await (const extent of found.extents) extents.push(extent);
    await found.close();
    return extents;
  };
  test('a second agent cannot serve the group meanwhile', async () => {
    await expect(pool.open()).rejects.toMatchObject({
      code: 'state-invalid',
      message: expect.stringContaining('cinder-volumes'),
    });
  });

  test('a snapshot is read-only, and active only while it is read', async () => {
    await write(0, patternBytes(0, MiB, 1));
    const { name } = await snapshot();
    expect(await pool.isActive(name)).toBe(false);
    const attributes = await pool.lvm('lvs', '--noheadings', '-o', 'lv_permissions', `${pool.group}/${name}`);
    expect(attributes.trim()).toBe('read-only');
    const [one, other] = [await backend.openSnapshot(volume, name), await backend.openSnapshot(volume, name)];
    await one.close();
    expect(await pool.isActive(name)).toBe(true);
    expect((await readAll(readers, other)).subarray(0, MiB).equals(patternBytes(0, MiB, 1))).toBe(true);
    await other.close();
    expect(await pool.isActive(name)).toBe(false);
  });

  test('a snapshot that a dead agent left active is made inactive at the start', async () => {
    const { name } = await snapshot();
    await pool.lvm('lvchange', '-ay', '-K', `${pool.group}/${name}`);
    expect(await pool.isActive(name)).toBe(true);
    await backend.recover();
    expect(await pool.isActive(name)).toBe(false);
  });

  test('the deletion of a snapshot waits for who reads it', async () => {
    const { name } = await snapshot();
    const source = await backend.openSnapshot(volume, name);
    const deletion = backend.deleteSnapshot(volume, name);
    expect(await readAll(readers, source)).toHaveLength(sizeBytes);
    await source.requireNamed();
    await source.close();
    await deletion;
    expect(await backend.listSnapshots(volume)).toEqual([]);
  });

  test('metadata that an agent left reserved when it died keep nobody from finding changes', async () => {
    const [first, second] = [await snapshot(), await snapshot()];
    const uuid = await pool.lvm('lvs', '--noheadings', '-o', 'lv_uuid', `${pool.group}/${pool.group}-pool`);
    await writeFile(`${await pool.stateDirectory()}/kept-${uuid.trim()}`, 'pending');
    await pool.lvm('dmsetup', 'message', pool.mapped, '0', 'reserve_metadata_snap');
    expect(await delta(first.name, second.name)).toEqual([]);
    expect(await pool.lvm('dmsetup', 'status', pool.mapped)).toMatch(/ \d+\/\d+ - rw/);
  });

  test('metadata that another program has reserved are left to it, and finding is put off', async () => {
    const [first, second] = [await snapshot(), await snapshot()];
    await pool.lvm('dmsetup', 'message', pool.mapped, '0', 'reserve_metadata_snap');
    await expect(delta(first.name, second.name)).rejects.toMatchObject({ code: 'busy' });
    expect(await pool.lvm('dmsetup', 'status', pool.mapped)).toMatch(/ \d+\/\d+ \d+ rw/);
    await pool.lvm('dmsetup', 'message', pool.mapped, '0', 'release_metadata_snap');
    expect(await delta(first.name, second.name)).toEqual([]);
  });

  test('a deletion that waits for a stream does not keep that from its changes', async () => {
    const [first, second] = [await snapshot(), await snapshot()];
    const source = await backend.openSnapshot(volume, second.name);
    const deletion = backend.deleteSnapshot(volume, second.name);
    expect(await delta(first.name, second.name)).toEqual([]);
    await source.close();
    await deletion;
    expect(await backend.listSnapshots(volume)).toEqual([first]);
  });

  test('snapshots of a volume that Cinder deleted are told as gone, and can be removed', async () => {
    await write(0, patternBytes(0, MiB, 1));
    const { name } = await snapshot();
    await pool.lvm('lvremove', '--yes', `${pool.group}/${volume}`);
    expect(await backend.listGone()).toEqual([volume]);
    expect(await backend.listSnapshots(volume)).toEqual([expect.objectContaining({ name })]);
    expect((await read(name)).subarray(0, MiB).equals(patternBytes(0, MiB, 1))).toBe(true);
    await backend.deleteSnapshot(volume, name);
    expect(await backend.listGone()).toEqual([]);
  });

  test('snapshots go with a volume that Cinder renames after a migration', async () => {
    const made = await snapshot();
    const renamed = volumeName(randomUUID());
    await pool.lvm('lvrename', pool.group, volume, renamed);
    expect(await backend.listSnapshots(renamed)).toEqual([made]);
    expect(await backend.listSnapshots(volume)).toEqual([]);
    await expect(read(made.name)).rejects.toMatchObject({ code: 'not-found' });
    await pool.create(volume, sizeBytes);
    await expect(backend.createSnapshot(volume, made.name, signal)).rejects.toMatchObject({
      code: 'already-exists',
    });
    await backend.deleteSnapshot(volume, made.name);
    expect(await backend.listSnapshots(renamed)).toEqual([made]);
  });

  test("snapshots of Cinder are read under Cinder's name, and stay as they were", async () => {
    await write(0, patternBytes(0, MiB, 1));
    const name = cinderSnapshotName(randomUUID());
    await pool.lvm('lvcreate', '--name', `_${name}`, '--snapshot', `${pool.group}/${volume}`);
    await write(0, patternBytes(0, MiB, 2));
    expect(await backend.listSnapshots(volume)).toEqual([expect.objectContaining({ name })]);
    expect((await read(name)).subarray(0, MiB).equals(patternBytes(0, MiB, 1))).toBe(true);
    expect(await delta(name, (await snapshot()).name)).toEqual([{ kind: 'data', offset: 0, length: MiB }]);
  });

  test('zeros give their blocks back to the pool, also where they begin and end inside of blocks', async () => {
    await write(0, patternBytes(0, 4 * MiB, 1));
    const before = await pool.usedBytes();
    await zero(chunkBytes / 2 + 512, 2 * MiB);
    expect(before - (await pool.usedBytes())).toBe(2 * MiB - chunkBytes);
    const wanted = Buffer.alloc(sizeBytes);
    patternBytes(0, 4 * MiB, 1).copy(wanted);
    wanted.fill(0, chunkBytes / 2 + 512, chunkBytes / 2 + 512 + 2 * MiB);
    expect((await read((await snapshot()).name)).equals(wanted)).toBe(true);
  });

  test('zeros are written where the pool ignores discards', async () => {
    await write(0, patternBytes(0, 2 * MiB, 1));
    await inPool(['--discards', 'ignore'], ['--discards', 'passdown'], async () => {
      await zero(0, MiB);
      const bytes = await read((await snapshot()).name);
      expect(bytes.subarray(0, MiB).equals(Buffer.alloc(MiB))).toBe(true);
      expect(bytes.subarray(MiB, 2 * MiB).equals(patternBytes(0, 2 * MiB, 1).subarray(MiB))).toBe(true);
    });
  });

  test('no bytes of others come into a restore where the pool gives out blocks as they are', async () => {
    const other = volumeName(randomUUID());
    await pool.create(other, sizeBytes);
    await write(0, patternBytes(0, sizeBytes, 5), other);
    await pool.lvm('lvremove', '--yes', `${pool.group}/${other}`);
    await inPool(['--zero', 'n'], ['--zero', 'y'], async () => {
      const target = await backend.openTarget(volume);
      const half = chunkBytes / 2;
      for (let at = 0; at < sizeBytes; at += chunkBytes) {
        await target.zero(at + half, half);
        await target.write(at, patternBytes(at, half, 6));
      }
      await target.flush();
      await target.close();
      const wanted = Buffer.alloc(sizeBytes);
      for (let at = 0; at < sizeBytes; at += chunkBytes) patternBytes(at, half, 6).copy(wanted, at);
      expect((await read((await snapshot()).name)).equals(wanted)).toBe(true);
    });
  });

  test('a restore activates a volume that is not active', async () => {
    await pool.lvm('lvchange', '-an', `${pool.group}/${volume}`);
    await write(MiB, patternBytes(MiB, MiB, 1));
    expect(
      (await read((await snapshot()).name)).subarray(MiB, 2 * MiB).equals(patternBytes(MiB, MiB, 1)),
    ).toBe(true);
  });

  test('volumes that are not thin are not served, and it is said why', async () => {
    const thick = volumeName(randomUUID());
    await pool.lvm('lvcreate', '--yes', '-L', `${MiB}b`, '-n', thick, pool.group);
    expect((await backend.listVolumes(signal)).map(({ name }) => name)).not.toContain(thick);
    for (const ask of [() => backend.getVolume(thick), () => backend.openTarget(thick)]) {
      await expect(ask()).rejects.toMatchObject({
        code: 'state-invalid',
        message: expect.stringMatching(/not a thin volume \(linear\)/),
      });
    }
    await expect(
      backend.createSnapshot(thick, backupSnapshotName(randomUUID(), 1), signal),
    ).rejects.toMatchObject({ code: 'state-invalid' });
    await pool.lvm('lvremove', '--yes', `${pool.group}/${thick}`);
  });

  test('a volume with an origin outside of its pool is refused, and what is made of it: the pool does not tell of its blocks', async () => {
    const origin = volumeName(randomUUID());
    const over = volumeName(randomUUID());
    await pool.lvm('lvcreate', '--yes', '-L', `${MiB}b`, '-n', origin, pool.group);
    await pool.lvm('lvchange', '--permission', 'r', `${pool.group}/${origin}`);
    await pool.lvm('lvchange', '-an', `${pool.group}/${origin}`);
    await pool.lvm(
      'lvcreate',
      '--yes',
      '--type',
      'thin',
      '--thinpool',
      `${pool.group}-pool`,
      '-n',
      over,
      `${pool.group}/${origin}`,
    );
    await expect(backend.getVolume(over)).rejects.toMatchObject({
      code: 'state-invalid',
      message: expect.stringContaining('external origin'),
    });
    // What Cinder clones of it reads the same.
    const clone = volumeName(randomUUID());
    await pool.lvm('lvcreate', '--name', clone, '--snapshot', `${pool.group}/${over}`);
    for (const ask of [() => backend.getVolume(clone), () => backend.openTarget(clone)]) {
      await expect(ask()).rejects.toMatchObject({
        code: 'state-invalid',
        message: expect.stringContaining(origin),
      });
    }
    for (const one of [clone, over, origin]) await pool.lvm('lvremove', '--yes', `${pool.group}/${one}`);
  });

  test("Cinder's own driver deletes a volume that backups have snapshots of, and clones, extends and lists beside them", async () => {
    const { name } = await snapshot();
    const script = `
import sys
from oslo_concurrency import processutils
from cinder.brick.local_dev import lvm
group, volume, clone = sys.argv[1:]
vg = lvm.LVM(group, 'env', lvm_type='thin', executor=processutils.execute)
assert not vg.lv_has_snapshot(volume)
vg.create_lv_snapshot(clone, volume, 'thin')
vg.activate_lv(clone, is_snapshot=True, permanent=True)
vg.extend_volume(volume, '1g')
assert {v['name'] for v in vg.get_volumes()} >= {volume, clone}
vg.delete(volume)
vg.delete(clone)
assert vg.get_volume(volume) is None
`;
    await promisify(execFile)('/usr/bin/python3', [
      '-c',
      script,
      pool.group,
      volume,
      volumeName(randomUUID()),
    ]);
    expect(await backend.listGone()).toContain(volume);
    await backend.deleteSnapshot(volume, name);
  });
});
