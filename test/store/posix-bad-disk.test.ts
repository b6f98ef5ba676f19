import { execFile } from 'node:child_process';
import { truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readFileInPieces } from '../../src/store/posix-files.ts';
import { loopMountObstacle, mountLoop, type LoopMount } from '../support/loop-mount.ts';
import { patternBytes } from '../support/pattern.ts';

const run = promisify(execFile);
const obstacle = await loopMountObstacle('xfs');
const { signal } = new AbortController();
const MiB = 1024 * 1024;

describe.skipIf(obstacle !== null)('a disk that has lost a part of itself', () => {
  let mount: LoopMount;
  beforeAll(async () => {
    mount = await mountLoop('xfs', { sizeBytes: 512 * MiB });
    for (const name of ['small', 'large']) {
      await writeFile(join(mount.directory, name), patternBytes(name === 'small' ? MiB : 5 * MiB, 1), {
        flush: true,
      });
    }
    // Mounted anew, so that nothing of it is in memory when its end is gone.
    const image = join(dirname(mount.directory), 'image');
    await run('umount', [mount.directory]);
    await run('mount', ['-o', 'loop', image, mount.directory]);
    // What is left are the headers and the inodes of the root directory, as mkfs.xfs lays them out.
    await truncate(image, 96 * 1024);
  });
  afterAll(() => mount.unmount());

  test.each(['small', 'large'])('a %s object on it is corrupt: the store is not away', async (name) => {
    const read = async () => {
      const { body } = await readFileInPieces(join(mount.directory, name), signal);
      for await (const piece of body) expect(piece.length).toBeGreaterThan(0);
    };
    await expect(read()).rejects.toMatchObject({
      code: 'corrupt',
      retryable: false,
      message: expect.stringContaining('EIO'),
    });
  });
});
