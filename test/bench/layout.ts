/** Where a bench's volume holds bytes, and which of them change. All of it is a multiple of 32 KiB. */
import type { Extent } from '../../src/model/extent.ts';
import type { Random } from '../support/random-volume.ts';

const MiB = 1024 * 1024;
const blockBytes = 32 * 1024;
/** As ext4 fills its block groups of 128 MiB: a quarter of each. */
const groupBytes = 128 * MiB;
const filledBytes = 32 * MiB;
const runBytes = 16 * MiB;

/** A quarter of the volume: 32 MiB at the head of every 128 MiB. */
export function dataExtents(sizeBytes: number): readonly Extent[] {
  return Array.from({ length: Math.floor(sizeBytes / groupBytes) }, (_, group) => ({
    offset: group * groupBytes,
    length: filledBytes,
  }));
}

/** `changedBytes` in different 32 KiB blocks, spread over the data at random. */
export function scatteredChange(random: Random, sizeBytes: number, changedBytes: number): readonly Extent[] {
  const blocksPerGroup = filledBytes / blockBytes;
  const groups = Math.floor(sizeBytes / groupBytes);
  const chosen = new Set<number>();
  const count = Math.min(Math.round(changedBytes / blockBytes), groups * blocksPerGroup);
  while (chosen.size < count) {
    chosen.add(
      random.between(0, groups - 1) * groupBytes + random.between(0, blocksPerGroup - 1) * blockBytes,
    );
  }
  return [...chosen].toSorted((a, b) => a - b).map((offset) => ({ offset, length: blockBytes }));
}

/** `changedBytes` in runs of 16 MiB (the last may be shorter), each in a group of its own. */
export function clusteredChange(random: Random, sizeBytes: number, changedBytes: number): readonly Extent[] {
  const groups = Math.floor(sizeBytes / groupBytes);
  const chosen = new Set<number>();
  const whole = Math.round(changedBytes / blockBytes) * blockBytes;
  while (chosen.size < Math.min(Math.ceil(whole / runBytes), groups))
    chosen.add(random.between(0, groups - 1));
  return [...chosen]
    .toSorted((a, b) => a - b)
    .map((group, run) => ({
      offset: group * groupBytes + random.between(0, (filledBytes - runBytes) / blockBytes) * blockBytes,
      length: Math.min(runBytes, whole - run * runBytes),
    }));
}
