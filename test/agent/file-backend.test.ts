import { randomUUID } from 'node:crypto';
import {
  lstat,
  mkdir,
  mkdtemp,
  open,
  readFile,
  readdir,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createFileBackend } from '../../src/agent/file-backend.ts';
import { reflink } from '../../src/agent/file-snapshots.ts';
import type { VolumeBackend } from '../../src/agent/volume-backend.ts';
import { createLogger } from '../../src/log.ts';
import { isBackupError } from '../../src/model/errors.ts';
import { backupSnapshotName, volumeName } from '../../src/model/names.ts';
import { describeVolumeBackend, type BackendUnderTest } from '../contract/volume-backend.ts';
import { loopMountObstacle, mountLoop, type MountedFileSystem } from '../support/loop-mount.ts';
import { makeVolumeFile, patternBytes, writePattern } from '../support/random-volume.ts';

const log = createLogger({ level: 'silent' });
const mebibyte = 1024 * 1024;
const noAbort = new AbortController().signal;

async function inDirectory(directory: string, clean: () => Promise<void>): Promise<BackendUnderTest> {
  const backend = await createFileBackend({ name: 'files', directory, log });
  return {
    backend,
    async dispose() {
      await backend.close();
      await clean();
    },
  };
}

async function onMount(kind: MountedFileSystem, mountOptions?: string): Promise<BackendUnderTest> {
  const sizeBytes = 512 * mebibyte;
  const mount = await mountLoop(
    kind,
    mountOptions === undefined ? { sizeBytes } : { sizeBytes, mountOptions },
  );
  return await inDirectory(mount.directory, () => mount.unmount());
}

const mountable = {
  xfs: (await loopMountObstacle('xfs')) === null,
  btrfs: (await loopMountObstacle('btrfs')) === null,
  tmpfs: (await loopMountObstacle('tmpfs')) === null,
};

/** Whether files in the default temporary directory can be cloned: that may be on any file system. */
async function canReflink(): Promise<boolean> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-agent-'));
  try {
    await using original = await open(join(directory, 'original'), 'wx+');
    await original.write(patternBytes(0, 65_536, 1));
    return await reflink(original, join(directory, 'clone'));
  } finally {
    await rm(directory, { recursive: true });
  }
}

const hasReflinks = await canReflink();

describeVolumeBackend(
  'files in the default temporary directory',
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-agent-'));
    return await inDirectory(directory, () => rm(directory, { recursive: true }));
  },
  { delta: hasReflinks ? 'extents' : 'bytes' },
);

describe.skipIf(!mountable.xfs)('on XFS', () => {
  describeVolumeBackend('files on XFS', () => onMount('xfs'), { delta: 'extents' });
});
describe.skipIf(!mountable.btrfs)('on Btrfs', () => {
  describeVolumeBackend('files on Btrfs', () => onMount('btrfs'), { delta: 'extents' });
  describeVolumeBackend('files on compressed Btrfs', () => onMount('btrfs', 'compress-force=zstd'), {
    delta: 'extents',
  });
});
describe.skipIf(!mountable.tmpfs)('on tmpfs', () => {
  describeVolumeBackend('files on tmpfs', () => onMount('tmpfs'), { delta: 'bytes' });
});

describe('file backend', () => {
  let directory: string;
  let backend: VolumeBackend;
  let volume: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'cinder-delta-agent-'));
    backend = await createFileBackend({ name: 'files', directory, log });
    volume = volumeName(randomUUID());
    await makeVolumeFile(join(directory, volume), { sizeBytes: 2 * mebibyte });
  });
  afterEach(async () => {
    await backend.close();
    await rm(directory, { recursive: true });
  });

  const snapshotDirectory = () => join(directory, '.snapshots', volume);

  test('refuses a directory that is not there, without making it', async () => {
    const absent = join(directory, 'absent');
    await expect(createFileBackend({ name: 'files', directory: absent, log })).rejects.toMatchObject({
      code: 'config-invalid',
    });
    await expect(lstat(absent)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('leaves nothing of its probe behind', async () => {
    expect(await readdir(join(directory, '.snapshots'))).toEqual(['.lock']);
  });

  test('is alone on its directory until it is closed, and takes nothing from the one that was first', async () => {
    const making = join(directory, '.snapshots', '.making-now');
    await writeFile(making, 'half');
    const second = createFileBackend({ name: 'files', directory, log });
    await expect(second).rejects.toMatchObject({ code: 'state-invalid' });
    expect(await readFile(making, 'utf8')).toBe('half');
    await backend.close();
    backend = await createFileBackend({ name: 'files', directory, log });
  });

  test('serves neither links nor directories in place of volumes', async () => {
    const link = volumeName(randomUUID());
    const folder = volumeName(randomUUID());
    await symlink(join(directory, volume), join(directory, link));
    await mkdir(join(directory, folder));
    for (const name of [link, folder]) {
      await expect(backend.getVolume(name)).rejects.toMatchObject({ code: 'state-invalid' });
      await expect(backend.openTarget(name)).rejects.toMatchObject({ code: 'state-invalid' });
      const snapshot = backupSnapshotName(randomUUID(), 1);
      await expect(backend.createSnapshot(name, snapshot, noAbort)).rejects.toMatchObject({
        code: 'state-invalid',
      });
    }
    expect((await backend.listVolumes(noAbort)).map(({ name }) => name)).toEqual([volume]);
  });

  test('does not follow a link in place of a snapshot', async () => {
    const { name } = await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), noAbort);
    await rm(join(snapshotDirectory(), name));
    await symlink(join(directory, volume), join(snapshotDirectory(), name));
    const request = {
      volume,
      previous: null,
      previousIdentity: null,
      current: name,
      lengthBytes: 2 * mebibyte,
    };
    await expect(
      backend.findRanges({ ...request, blockSize: 512, startOffset: 0, signal: noAbort }),
    ).rejects.toMatchObject({ code: 'state-invalid' });
  });

  test('gives another identity to a file that took the place of a volume', async () => {
    const before = await backend.getVolume(volume);
    const copy = join(directory, 'copy');
    await writeFile(copy, await readFile(join(directory, volume)));
    await rename(copy, join(directory, volume));
    expect((await backend.getVolume(volume)).identity).not.toBe(before.identity);
  });

  test('refuses a snapshot name that belongs to a file which was replaced', async () => {
    const name = backupSnapshotName(randomUUID(), 1);
    await backend.createSnapshot(volume, name, noAbort);
    await rm(join(directory, volume));
    await backend.createVolume(volume, mebibyte);
    await expect(backend.createSnapshot(volume, name, noAbort)).rejects.toMatchObject({
      code: 'already-exists',
    });
  });

  test('removes what a dead process left half made, and nothing else', async () => {
    const whole = await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), noAbort);
    const noRecord = backupSnapshotName(randomUUID(), 2);
    const noBytes = backupSnapshotName(randomUUID(), 3);
    await writeFile(join(snapshotDirectory(), noRecord), 'half');
    await writeFile(join(snapshotDirectory(), `${noBytes}.json`), '{}');
    await writeFile(join(directory, '.snapshots', '.making-something'), 'half');
    await writeFile(join(snapshotDirectory(), 'note'), 'of an operator');

    await backend.recover();

    expect((await backend.getVolume(volume)).snapshots).toEqual([whole]);
    expect((await readdir(snapshotDirectory())).toSorted()).toEqual(
      [whole.name, `${whole.name}.json`, 'note'].toSorted(),
    );
    expect((await readdir(join(directory, '.snapshots'))).toSorted()).toEqual(['.lock', volume]);
  });

  test('survives a restart with its snapshots', async () => {
    const made = await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), noAbort);
    await backend.close();
    backend = await createFileBackend({ name: 'files', directory, log });
    await backend.recover();
    expect((await backend.getVolume(volume)).snapshots).toEqual([made]);
  });

  test('calls a snapshot corrupt whose record is damaged or whose file was cut', async () => {
    const { name } = await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), noAbort);
    const request = {
      volume,
      previous: null,
      previousIdentity: null,
      current: name,
      lengthBytes: 2 * mebibyte,
      blockSize: 512,
      startOffset: 0,
      signal: noAbort,
    };
    await truncate(join(snapshotDirectory(), name), mebibyte);
    await expect(backend.findRanges(request)).rejects.toMatchObject({ code: 'corrupt' });
    await writeFile(join(snapshotDirectory(), `${name}.json`), '{"name":');
    await expect(backend.findRanges(request)).rejects.toMatchObject({ code: 'corrupt' });
    await expect(backend.openSnapshot(volume, name)).rejects.toMatchObject({ code: 'corrupt' });
  });

  test('one damaged record keeps nobody from the volume and its other snapshots, is told, and can be removed', async () => {
    await backend.close();
    const lines: string[] = [];
    const told = createLogger({
      level: 'info',
      destination: { write: (line: string) => void lines.push(line) },
    });
    backend = await createFileBackend({ name: 'files', directory, log: told });
    const whole = await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), noAbort);
    const { name } = await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 2), noAbort);
    await writeFile(join(snapshotDirectory(), `${name}.json`), '{"name":');

    expect((await backend.getVolume(volume)).snapshots).toEqual([whole]);
    expect(await backend.listSnapshots(volume)).toEqual([whole]);
    expect(lines.filter((line) => line.includes('left out') && line.includes(name))).toHaveLength(2);
    await backend.deleteSnapshot(volume, name);
    expect(await readdir(snapshotDirectory())).not.toContain(name);
  });

  test('names volumes that are gone as long as they have snapshots', async () => {
    const { name } = await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), noAbort);
    expect(await backend.listGone()).toEqual([]);
    await rm(join(directory, volume));
    expect(await backend.listGone()).toEqual([volume]);
    expect((await backend.listSnapshots(volume)).map((each) => each.name)).toEqual([name]);
    await backend.deleteSnapshot(volume, name);
    expect(await backend.listGone()).toEqual([]);
    expect(await backend.listSnapshots(volume)).toEqual([]);
  });

  test('copies keep holes', async () => {
    volume = volumeName(randomUUID());
    const extents = [{ offset: mebibyte, length: 65_536 }];
    await makeVolumeFile(join(directory, volume), { sizeBytes: 2 * mebibyte, extents });
    const { name } = await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), noAbort);
    const copied = await lstat(join(snapshotDirectory(), name));
    expect(copied.size).toBe(2 * mebibyte);
    expect(copied.blocks * 512).toBeLessThan(mebibyte);
  });

  test('refuses to copy a volume that is written to meanwhile', async () => {
    volume = volumeName(randomUUID());
    const path = join(directory, volume);
    // Large enough that its copy lasts for many ticks, of which one stamps all writes alike.
    await makeVolumeFile(path, { sizeBytes: 64 * mebibyte });
    const state = { writing: true };
    const writer = (async () => {
      while (state.writing) await writePattern(path, [{ offset: 0, length: 512 }], 2);
    })();
    const making = backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), noAbort);
    const outcome = await making.then(
      () => 'made',
      (error: unknown) => (isBackupError(error) ? error.code : error),
    );
    state.writing = false;
    await writer;
    expect(outcome).toBe(hasReflinks ? 'made' : 'state-invalid');
    expect((await backend.getVolume(volume)).snapshots).toHaveLength(hasReflinks ? 1 : 0);
    const left = await readdir(join(directory, '.snapshots'));
    expect(left.filter((name) => name.startsWith('.making-'))).toEqual([]);
  });
});

describe.skipIf(!mountable.tmpfs)('file backend on a full file system', () => {
  test('a snapshot that does not fit is an error and leaves nothing; so is a write', async () => {
    const mount = await mountLoop('tmpfs', { sizeBytes: 8 * mebibyte });
    const backend = await createFileBackend({ name: 'files', directory: mount.directory, log });
    const volume = volumeName(randomUUID());
    try {
      await makeVolumeFile(join(mount.directory, volume), {
        sizeBytes: 16 * mebibyte,
        extents: [{ offset: 4 * mebibyte, length: 5 * mebibyte }],
      });
      const making = backend.createSnapshot(volume, backupSnapshotName(randomUUID(), 1), noAbort);
      await expect(making).rejects.toMatchObject({ code: 'store-full' });
      expect((await backend.getVolume(volume)).snapshots).toEqual([]);
      const left = await readdir(join(mount.directory, '.snapshots'));
      expect(left.filter((name) => name !== volume)).toEqual(['.lock']);

      const target = await backend.openTarget(volume);
      const bytes = patternBytes(9 * mebibyte, 7 * mebibyte, 2);
      await expect(target.write(9 * mebibyte, bytes)).rejects.toMatchObject({ code: 'store-full' });
      await target.close();
    } finally {
      await backend.close();
      await mount.unmount();
    }
  });
});
