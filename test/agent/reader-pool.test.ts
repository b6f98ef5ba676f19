import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createReaderPool } from '../../src/agent/reader-pool.ts';
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
