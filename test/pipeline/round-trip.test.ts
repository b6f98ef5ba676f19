import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Codec } from '../../src/model/codec.ts';
import { createSealer, type Sealer } from '../../src/pipeline/sealer.ts';
import { createMemoryStore } from '../support/memory-store.ts';
import { createMemoryTarget, createMemoryVolume, type MemoryVolume } from '../support/memory-volume.ts';
import { createPipelineRun } from '../support/pipeline-run.ts';
import { createRandom, scatteredBlocks, type Random } from '../support/random-volume.ts';

const mebibyte = 1024 * 1024;
let sealer: Sealer;

beforeAll(async () => {
  sealer = await createSealer({ threads: 2 });
});
afterAll(() => sealer.close());

/** Writes, zeroes and grows a little. */
function change(volume: MemoryVolume, random: Random): void {
  const sizeBytes = volume.bytes.length;
  const sectors = Math.floor(sizeBytes / 512);
  const extent = (longest: number) => {
    const length = random.between(1, Math.min(sectors, longest / 512));
    return { offset: random.between(0, sectors - length) * 512, length: length * 512 };
  };
  for (let count = random.between(0, 6); count > 0; count -= 1) {
    const what = random.between(0, 3);
    if (what === 0)
      volume.write(scatteredBlocks(random, { sizeBytes, blockBytes: 4096, count: random.between(1, 30) }));
    else if (what === 1) volume.write([extent(mebibyte)]);
    else if (what === 2) volume.zero([extent(2 * mebibyte)]);
    else volume.zero(scatteredBlocks(random, { sizeBytes, blockBytes: 4096, count: 5 }));
  }
  if (random.chance(0.2)) volume.grow(sizeBytes + random.between(1, 100) * 512);
}

describe('a chain of random changes restores to the bytes of every snapshot', () => {
  for (const codec of ['none', 'zlib', 'bz2', 'zstd'] as const satisfies Codec[]) {
    test.for([512, 4096, 32_768])(`with ${codec} in blocks of %d bytes`, async (blockSize) => {
      const random = createRandom();
      const ceiling = random.pick([4, 12, 64]) * mebibyte;
      const objectBytes = blockSize * random.between(1, 40);
      const volume = createMemoryVolume(random.between(2000, 10_000) * 512);
      volume.write([{ offset: 0, length: Math.floor(volume.bytes.length / 1024) * 512 }]);
      change(volume, random);
      const run = createPipelineRun(createMemoryStore(), sealer, ceiling);
      let previous = '';
      for (let round = 0; round < 5; round += 1) {
        const snapshot = volume.snapshot();
        const source = volume.source(snapshot, { blockSize });
        const mode = round === 0 ? 'full' : random.pick(['delta', 'compare'] as const);
        const mergeGapBytes = random.pick([0, blockSize * 3]);
        await run.backup({ source, codec, objectBytes, mode, previous, mergeGapBytes });
        const target = createMemoryTarget(volume.bytes.length, random);
        await run.restore(target);
        expect(target.state).toBe('finished');
        expect(target.bytes.equals(volume.contentOf(snapshot)), `round ${round} as ${mode}`).toBe(true);
        const verified = await run.verify();
        expect(verified).toMatchObject({ checkedBytes: volume.bytes.length, badCount: 0, badRanges: [] });
        previous = snapshot;
        change(volume, random);
      }
      expect(run.memory.peak).toBeLessThanOrEqual(ceiling);
      expect(run.memory.held).toBe(0);
    });
  }
});
