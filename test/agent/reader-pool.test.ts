import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createReaderPool } from '../../src/agent/reader-pool.ts';
import type { ReadHandle } from '../../src/agent/volume-backend.ts';
import { patternBytes } from '../support/random-volume.ts';

const mebibyte = 1024 * 1024;
const { signal } = new AbortController();

test('buffers of every size are used again once they are released', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-readers-'));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(directory, { recursive: true }));
  await writeFile(join(directory, 'volume'), patternBytes(0, 8 * mebibyte, 1));
  const file = await open(join(directory, 'volume'));
  cleanup.defer(() => file.close());
  const pool = createReaderPool({ threads: 1 });
  cleanup.defer(() => pool.close());

  const seen = new Map<number, Set<ArrayBufferLike>>();
  for (let round = 0; round < 6; round += 1) {
    for (const blockSize of [512, 32_768, 4 * mebibyte]) {
      const used = seen.get(blockSize) ?? new Set();
      seen.set(blockSize, used);
      const request = {
        handle: { kind: 'file', fd: file.fd },
        frames: 'blocks',
        blockSize,
        extents: [{ kind: 'data', offset: 0, length: 8 * mebibyte }],
      } as const;
      let dataBytes = 0;
      for await (const piece of pool.stream(request, signal)) {
        used.add(piece.bytes.buffer);
        dataBytes += piece.dataBytes;
        piece.release();
      }
      expect(dataBytes).toBe(8 * mebibyte);
    }
  }
  // Without being kept, each round would have used as many again.
  for (const [blockSize, used] of seen) expect(used.size, `${blockSize}`).toBeLessThanOrEqual(6);
});

test('a cluster that does not answer holds up its own streams, and no others', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-readers-'));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(directory, { recursive: true }));
  const [away, here] = [join(directory, 'away'), join(directory, 'here')];
  await writeFile(here, '');
  const pool = createReaderPool({
    threads: 1,
    module: new URL('../support/stuck-reader-worker.ts', import.meta.url),
  });
  cleanup.defer(() => pool.close());
  cleanup.defer(() => writeFile(away, ''));

  const read = async (handle: ReadHandle): Promise<number> => {
    const extents = [{ kind: 'data', offset: 0, length: 512 }] as const;
    let dataBytes = 0;
    for await (const piece of pool.stream({ handle, frames: 'blocks', blockSize: 512, extents }, signal)) {
      dataBytes += piece.dataBytes;
      piece.release();
    }
    return dataBytes;
  };
  const rbd = { kind: 'rbd', image: 1n, cluster: 'ceph' } as const;
  const held = read({ ...rbd, fsid: 'f-1', thing: away });
  expect(await read({ kind: 'file', fd: 0 })).toBe(512);
  expect(await read({ ...rbd, fsid: 'f-2', thing: here })).toBe(512);
  expect(pool.pending).toBe(1);
  await writeFile(away, '');
  expect(await held).toBe(512);
});

test('a pool that is closed starts no threads for another cluster', async () => {
  const pool = createReaderPool({ threads: 1 });
  await pool.close();
  const handle = { kind: 'rbd', image: 1n, cluster: 'ceph', fsid: 'f', thing: 'snapshot' } as const;
  const extents = [{ kind: 'data', offset: 0, length: 512 }] as const;
  const pieces = pool.stream({ handle, frames: 'blocks', blockSize: 512, extents }, signal);
  await expect(pieces.next()).rejects.toMatchObject({ code: 'agent-unavailable' });
});
