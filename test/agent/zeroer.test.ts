import { execFile } from 'node:child_process';
import { mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest';
import type { FileStep, FileStepResult } from '../../src/agent/file-steps.ts';
import { createThreadPool, workerModule } from '../../src/agent/thread-pool.ts';
import { createZeroer, type ThinBlocks } from '../../src/agent/zeroer.ts';
import { loopMountObstacle } from '../support/loop-mount.ts';
import { patternBytes } from '../support/random-volume.ts';

const run = promisify(execFile);
const MiB = 1024 * 1024;
const block = 65_536;
const obstacle = await loopMountObstacle('ext4');

const steps: FileStep[] = [];
const kinds = () => steps.map(({ kind }) => kind);
const pool = createThreadPool<FileStep, FileStepResult>({ module: workerModule('file-worker'), threads: 1 });
const threads: typeof pool = {
  ...pool,
  run(step, transfer, signal) {
    steps.push(step);
    return pool.run(step, transfer, signal);
  },
};
let directory: string;
let path: string;
const bytes = patternBytes(0, 8 * MiB, 1);

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-zeroer-'));
  path = join(directory, 'file');
  await writeFile(path, bytes);
  steps.length = 0;
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});
afterAll(async () => {
  await pool.close();
});

async function zeroIn(
  device: string,
  blocks: ThinBlocks | undefined,
  ranges: readonly (readonly [number, number])[],
) {
  const handle = await open(device, 'r+');
  const zero = createZeroer(handle.fd, threads, blocks);
  for (const [offset, length] of ranges) await zero(offset, length);
  await handle.sync();
  await handle.close();
  const wanted = Buffer.from(bytes);
  for (const [offset, length] of ranges) wanted.fill(0, offset, offset + length);
  return wanted;
}

test.skipIf(obstacle !== null)(
  'whole blocks of a device are given back, and the rest is written as zeros',
  async () => {
    const device = (await run('losetup', ['--find', '--show', path])).stdout.trim();
    const before = (await stat(path)).blocks;
    let wanted: Buffer;
    try {
      wanted = await zeroIn(device, { bytes: block, zeroed: true }, [
        [block / 2 + 512, 3 * MiB],
        [5 * MiB + 100, 1000],
        [6 * MiB, 2 * block],
        [8 * MiB - 700, 700],
      ]);
    } finally {
      await run('losetup', ['--detach', device]);
    }
    expect((await readFile(path)).equals(wanted)).toBe(true);
    expect(before - (await stat(path)).blocks).toBeGreaterThanOrEqual((3 * MiB) / 512);
    expect(kinds()).toEqual(['fill', 'discard', 'fill', 'fill', 'fill', 'discard', 'fill', 'fill']);
  },
);

test('zeros are written where nothing takes blocks back, which is asked once', async () => {
  const wanted = await zeroIn(path, { bytes: block, zeroed: false }, [
    [0, MiB],
    [2 * MiB + 512, MiB],
  ]);
  expect((await readFile(path)).equals(wanted)).toBe(true);
  expect(kinds()).toEqual(['discard', 'fill', 'fill', 'fill', 'fill']);
  // Around whole blocks of a pool that does not zero what it gives out, zeros too are written.
  const blind = steps.flatMap((step) => (step.kind === 'fill' ? [step.all] : []));
  expect(blind).toEqual([false, true, false, true]);
});

test('a file gets holes', async () => {
  const wanted = await zeroIn(path, undefined, [[MiB, 2 * MiB]]);
  expect((await readFile(path)).equals(wanted)).toBe(true);
  expect(kinds()).toEqual(['zero']);
});
