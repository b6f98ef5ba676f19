import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { createFileBackend } from '../../src/agent/file-backend.ts';
import { createPageBuffers } from '../../src/agent/page-buffers.ts';
import { createLogger } from '../../src/log.ts';
import { volumeName } from '../../src/model/names.ts';
import { fileHandleCalls } from '../support/file-handles.ts';
import { loopMountObstacle, mountLoop } from '../support/loop-mount.ts';
import { createRandom, makeVolumeFile, patternBytes } from '../support/random-volume.ts';
import { openFilesBelow } from '../support/running-agent.ts';

const log = createLogger({ level: 'silent' });
const mebibyte = 1024 * 1024;

/** Restores with buffers and places that go past the page cache, and others between them, over what was there and is cached. */
async function restoreInto(directory: string): Promise<void> {
  const random = createRandom();
  const backend = await createFileBackend({ name: 'files', directory, log });
  const volume = volumeName(randomUUID());
  const path = join(directory, volume);
  const sizeBytes = 24 * mebibyte + 512;
  await makeVolumeFile(path, { sizeBytes, extents: [{ offset: 0, length: sizeBytes }] });
  const expected = await readFile(path);
  const buffers = createPageBuffers();
  const target = await backend.openTarget(volume);
  const writes: Promise<void>[] = [];
  for (let at = 0; at < sizeBytes;) {
    const aligned = random.between(0, 3) > 0;
    const length = Math.min(
      sizeBytes - at,
      aligned ? 4096 * random.between(1, 256) : 512 * random.between(1, 40),
    );
    const buffer = random.between(0, 3) > 0 ? buffers.take() : Buffer.alloc(mebibyte);
    const bytes = buffer.subarray(0, length);
    patternBytes(at, length, 7).copy(bytes);
    bytes.copy(expected, at);
    writes.push(
      target.write(at, bytes).then(() => {
        buffers.give(buffer);
      }),
    );
    if (writes.length % 4 === 0) await Promise.all(writes.splice(0));
    at += length;
  }
  await Promise.all(writes);
  await target.flush();
  expect((await readFile(path)).equals(expected)).toBe(true);
  await target.close();
  await backend.close();
}

test('a restore past the page cache and through it leaves the bytes that were written', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-target-'));
  try {
    await restoreInto(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('a restore lets go of its file also where the second open of it cannot be closed', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-target-'));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(directory, { recursive: true }));
  const backend = await createFileBackend({ name: 'files', directory, log });
  cleanup.defer(() => backend.close());
  const volume = volumeName(randomUUID());
  await makeVolumeFile(join(directory, volume), { sizeBytes: mebibyte });
  const target = await backend.openTarget(volume);
  const bytes = createPageBuffers().take().subarray(0, 4096);
  patternBytes(0, 4096, 7).copy(bytes);
  const write = vi.spyOn(await fileHandleCalls(), 'write');
  write.mockImplementationOnce(function (this: FileHandle, ...given: Parameters<FileHandle['write']>) {
    const close = this.close.bind(this);
    this.close = async () => {
      await close();
      throw new Error('not closed');
    };
    return this.write(...given);
  });
  await target.write(0, bytes);
  await expect(target.close()).rejects.toThrow('not closed');
  vi.restoreAllMocks();
  expect(await openFilesBelow(directory)).toBe(0);
});

for (const kind of ['xfs', 'btrfs', 'tmpfs'] as const) {
  const obstacle = await loopMountObstacle(kind);
  test.skipIf(obstacle !== null)(`the same on ${kind}`, async () => {
    const mount = await mountLoop(kind, { sizeBytes: 512 * mebibyte });
    try {
      await restoreInto(mount.directory);
    } finally {
      await mount.unmount();
    }
  });
}

test('buffers begin on a page, hold a frame of the usual length, and are used again', () => {
  const buffers = createPageBuffers();
  const buffer = buffers.take();
  expect(buffer.length).toBeGreaterThanOrEqual(mebibyte);
  expect(buffer.byteOffset).toBe(0);
  buffers.give(buffer);
  expect(buffers.take()).toBe(buffer);
  buffers.give(Buffer.alloc(10));
  expect(buffers.take().length).toBe(buffer.length);
});
