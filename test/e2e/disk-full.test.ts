/** A store without room: an error that says so, nothing left behind, and once there is room the next backup is right. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { markerName } from '../../src/store/posix-root.ts';
import { startEngine, type Engine } from '../support/engine.ts';
import { expectContent } from '../support/tracked-volume.ts';

const MiB = 1024 * 1024;
const sizeBytes = 24 * MiB;
const run = promisify(execFile);
const mayMount = process.getuid?.() === 0;
if (!mayMount) console.warn('SKIPPED: a store of limited size needs root, to mount a tmpfs');

let stateDir: string;
let storeDir: string;
beforeAll(async () => {
  stateDir = await mkdtemp(join(tmpdir(), 'cinder-delta-full-'));
  storeDir = join(stateDir, 'backups');
  await mkdir(storeDir);
  if (mayMount) await run('mount', ['-t', 'tmpfs', '-o', 'size=9m', 'tmpfs', storeDir]);
});
afterAll(async () => {
  if (mayMount) await run('umount', [storeDir]);
  await rm(stateDir, { recursive: true, force: true });
});

it.skipIf(!mayMount)(
  'a full store fails the backup, says so, and is as empty afterwards as before',
  async () => {
    await using engine: Engine = await startEngine({ codec: 'none', objectBytes: MiB, stateDir });
    const volume = await engine.addVolume(sizeBytes);
    await volume.file.write([{ offset: 0, length: sizeBytes }]);
    const id = await engine.client.createBackup({ volumeId: volume.id });
    const failed = await engine.client.settled(id);
    expect(failed?.status).toBe('error');
    expect(failed?.fail_reason).toMatch(/space|full|room/i);
    const left = await readdir(storeDir, { recursive: true, withFileTypes: true });
    expect(left.filter((entry) => entry.isFile()).map(({ name }) => name)).toEqual([markerName]);
    expect((await engine.client.volume(volume.id)).status).toBe('available');

    await run('mount', ['-o', 'remount,size=64m', storeDir]);
    const row = await engine.backup(volume.id, 'full');
    const target = await engine.addVolume(sizeBytes);
    await engine.restore(row.id, target.id);
    await expectContent(target.file.path, volume.file.content());
  },
);
