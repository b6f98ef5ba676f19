import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createFileSnapshots, type FileSnapshots, type FileThreads } from '../../src/agent/file-snapshots.ts';
import { createStepRunner } from '../../src/agent/file-steps.ts';
import { createFileVolumes, type OpenVolume } from '../../src/agent/file-volumes.ts';
import { createLogger } from '../../src/log.ts';
import { backupSnapshotName, volumeName } from '../../src/model/names.ts';
import { fileHandleCalls } from '../support/file-handles.ts';
import { makeVolumeFile } from '../support/random-volume.ts';
import { openFilesBelow } from '../support/running-agent.ts';

const sizeBytes = 256 * 1024;
const noAbort = new AbortController().signal;

/** Threads that finish a step however the signal stands, as those do that are in the middle of it. */
function deafThreads(): FileThreads {
  const run = createStepRunner(null);
  return {
    threads: 1,
    pending: 0,
    run: async (step) => run(step),
    warm() {},
    async close() {},
  };
}

describe('file snapshots', () => {
  let directory: string;
  let root: string;
  let snapshots: FileSnapshots;
  let source: OpenVolume;
  let name: string;
  const volume = volumeName(randomUUID());

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'cinder-delta-snapshots-'));
    root = join(directory, '.snapshots');
    await mkdir(root);
    await makeVolumeFile(join(directory, volume), { sizeBytes });
    source = await createFileVolumes(directory).open(volume, 'read');
    name = backupSnapshotName(randomUUID(), 1);
    snapshots = createFileSnapshots({ root, threads: deafThreads(), log: createLogger({ level: 'silent' }) });
  });
  afterEach(async () => {
    await source.handle.close();
    await rm(directory, { recursive: true });
  });

  test('one that is cancelled during its last step does not come to be', async () => {
    await expect(snapshots.create(source, name, AbortSignal.abort())).rejects.toMatchObject({
      code: 'cancelled',
    });
    expect(await readdir(join(root, volume))).toEqual([]);
    expect(await readdir(root)).toEqual([volume]);
  });

  test('one whose record cannot be written leaves no bytes behind', async () => {
    await mkdir(join(root, volume, `${name}.json`, 'in the way'), { recursive: true });
    await expect(snapshots.create(source, name, noAbort)).rejects.toMatchObject({ code: 'state-invalid' });
    expect(await readdir(join(root, volume))).toEqual([`${name}.json`]);
    expect(await readdir(root)).toEqual([volume]);
  });

  test('one that is not disturbed is there', async () => {
    const made = await snapshots.create(source, name, noAbort);
    expect(made).toMatchObject({ name, volume, size_bytes: sizeBytes });
    expect(await snapshots.list(volume)).toEqual([made]);
    expect((await readdir(join(root, volume))).toSorted()).toEqual([name, `${name}.json`]);
  });

  test('one that is made anew while it is opened is not opened with the record of another', async () => {
    await snapshots.create(source, name, noAbort);
    const stat = vi.spyOn(await fileHandleCalls(), 'stat');
    stat.mockImplementationOnce(async function (this: FileHandle) {
      await snapshots.remove(volume, name);
      await snapshots.create(source, name, noAbort);
      return await this.stat();
    });
    await expect(snapshots.open(volume, name)).rejects.toMatchObject({ code: 'state-invalid' });
    vi.restoreAllMocks();
    expect(await openFilesBelow(root)).toBe(0);
  });

  test('one whose file cannot be looked at is not left open', async () => {
    await snapshots.create(source, name, noAbort);
    vi.spyOn(await fileHandleCalls(), 'stat').mockRejectedValueOnce(new Error('not now'));
    await expect(snapshots.open(volume, name)).rejects.toThrow();
    vi.restoreAllMocks();
    expect(await openFilesBelow(root)).toBe(0);
  });
});
