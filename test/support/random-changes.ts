/** What guests do to volumes: small writes, long writes, zeros, discards. */
import type { Extent } from '../../src/model/extent.ts';
import { scatteredBlocks, type Random } from './random-volume.ts';
import type { TrackedVolume } from './tracked-volume.ts';

const sectorBytes = 512;

/** An extent of sectors that lies inside the volume. */
export function randomExtent(random: Random, sizeBytes: number, longestBytes: number): Extent {
  const sectors = sizeBytes / sectorBytes;
  const length = random.between(1, Math.min(sectors, longestBytes / sectorBytes));
  return { offset: random.between(0, sectors - length) * sectorBytes, length: length * sectorBytes };
}

/** Makes one change at random, and says which. */
export async function changeAtRandom(random: Random, volume: TrackedVolume): Promise<string> {
  const { sizeBytes } = volume;
  switch (random.between(0, 4)) {
    case 0: {
      const count = random.between(1, 24);
      const blockBytes = random.pick([512, 4096, 32_768]);
      await volume.write(scatteredBlocks(random, { sizeBytes, blockBytes, count }));
      return `wrote ${count} blocks of ${blockBytes}`;
    }
    case 1: {
      const extent = randomExtent(random, sizeBytes, 3 * 1024 * 1024);
      await volume.write([extent]);
      return `wrote ${extent.length} at ${extent.offset}`;
    }
    case 2: {
      const extent = randomExtent(random, sizeBytes, 1024 * 1024);
      await volume.zero([extent]);
      return `zeroed ${extent.length} at ${extent.offset}`;
    }
    case 3: {
      const extent = randomExtent(random, sizeBytes, 2 * 1024 * 1024);
      await volume.punch([extent]);
      return `punched ${extent.length} at ${extent.offset}`;
    }
    default:
      return 'changed nothing';
  }
}
