import { describe, expect, test } from 'vitest';
import { mergeDigests, type ChangedDigests } from '../../src/layout/merge-digests.ts';
import { collect } from '../support/pattern.ts';
import { createRandom } from '../support/random-volume.ts';

/** A digest of 32 bytes that names its block and its generation. */
function digests(first: number, count: number, generation: number): Buffer {
  const out = Buffer.alloc(count * 32);
  for (let n = 0; n < count; n += 1) {
    out.writeUInt32LE(first + n, n * 32);
    out.writeUInt32LE(generation, n * 32 + 4);
    out.fill(generation, n * 32 + 8, n * 32 + 32);
  }
  return out;
}

async function* runsOf(all: Buffer, runBlocks: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < all.length; at += runBlocks * 32) yield all.subarray(at, at + runBlocks * 32);
}

/** Changes whose buffer is overwritten as soon as the next one is asked for. */
async function* changesOf(ranges: readonly (readonly [number, number])[]): AsyncGenerator<ChangedDigests> {
  const shared = Buffer.alloc(Math.max(1, ...ranges.map(([, count]) => count)) * 32);
  for (const [firstBlock, count] of ranges) {
    const view = shared.subarray(0, count * 32);
    digests(firstBlock, count, 2).copy(view);
    yield { firstBlock, digests: view };
    shared.fill(0xee);
  }
}

function overlaid(
  parentBlocks: number,
  ranges: readonly (readonly [number, number])[],
  blocks: number,
): Buffer {
  const out = Buffer.alloc(blocks * 32);
  digests(0, Math.min(parentBlocks, blocks), 1).copy(out);
  for (const [first, count] of ranges) digests(first, count, 2).copy(out, first * 32);
  return out;
}

const merge = (
  parentBlocks: number | null,
  ranges: readonly (readonly [number, number])[],
  blocks: number,
  runBlocks = 4096,
) =>
  collect(
    mergeDigests(
      parentBlocks === null ? null : runsOf(digests(0, parentBlocks, 1), runBlocks),
      changesOf(ranges),
      blocks,
    ),
  );

describe('merging digests', () => {
  const cases: readonly [string, number | null, readonly (readonly [number, number])[], number][] = [
    ['keeps the parent where nothing changed', 10_000, [], 10_000],
    [
      'overlays single blocks at both ends and in the middle',
      10_000,
      [
        [0, 1],
        [5000, 1],
        [9999, 1],
      ],
      10_000,
    ],
    [
      'overlays runs that cross the reader run',
      10_000,
      [
        [4000, 300],
        [4300, 4000],
      ],
      10_000,
    ],
    ['takes everything from the changes', 5000, [[0, 5000]], 5000],
    [
      'needs no parent when the changes cover all',
      null,
      [
        [0, 4096],
        [4096, 905],
      ],
      5001,
    ],
    [
      'lets changes cover what a grown volume has gained',
      5000,
      [
        [10, 2],
        [5000, 3000],
      ],
      8000,
    ],
    ['lets a change begin before the end of the parent and go past it', 5000, [[4990, 3010]], 8000],
    ['gives nothing for an empty volume', null, [], 0],
  ];
  for (const [what, parentBlocks, ranges, blocks] of cases) {
    for (const runBlocks of [1, 777, 4096]) {
      test(`${what} (parent in runs of ${runBlocks})`, async () => {
        const merged = await merge(parentBlocks, ranges, blocks, runBlocks);
        expect(merged.equals(overlaid(parentBlocks ?? 0, ranges, blocks))).toBe(true);
      });
    }
  }

  test('agrees with a plain overlay for random changes', async () => {
    const random = createRandom();
    for (let round = 0; round < 60; round += 1) {
      const blocks = random.between(1, 9000);
      const parentBlocks = random.chance(0.3) ? random.between(0, blocks) : blocks;
      const ranges: [number, number][] = [];
      for (let at = random.between(0, 300); at < blocks; at += random.between(0, 900)) {
        const count = random.between(1, Math.min(blocks - at, 600));
        ranges.push([at, count]);
        at += count;
      }
      if (parentBlocks < blocks) {
        while ((ranges.at(-1)?.[0] ?? -1) >= parentBlocks) ranges.pop();
        const from = Math.max(parentBlocks, ...ranges.slice(-1).map(([first, count]) => first + count));
        if (from < blocks) ranges.push([from, blocks - from]);
      }
      const merged = await merge(parentBlocks, ranges, blocks, random.between(1, 5000));
      expect(merged.equals(overlaid(parentBlocks, ranges, blocks))).toBe(true);
    }
  });

  test('a gap without a parent is a bug', async () => {
    await expect(
      merge(
        null,
        [
          [0, 10],
          [11, 9],
        ],
        20,
      ),
    ).rejects.toMatchObject({ code: 'bug' });
    await expect(merge(null, [[0, 10]], 20)).rejects.toMatchObject({ code: 'bug' });
  });

  test('a parent that ends before an unchanged block is corrupt', async () => {
    await expect(merge(15, [[0, 3]], 20)).rejects.toMatchObject({ code: 'corrupt' });
    await expect(merge(15, [[16, 4]], 20)).rejects.toMatchObject({ code: 'corrupt' });
  });

  test('a parent with more blocks than the volume is corrupt, also if everything changed', async () => {
    await expect(merge(21, [], 20)).rejects.toMatchObject({ code: 'corrupt' });
    await expect(merge(21, [[0, 20]], 20)).rejects.toMatchObject({ code: 'corrupt' });
  });

  test('changes out of order, overlapping or past the end are a bug', async () => {
    await expect(
      merge(
        20,
        [
          [5, 2],
          [3, 1],
        ],
        20,
      ),
    ).rejects.toMatchObject({ code: 'bug' });
    await expect(
      merge(
        20,
        [
          [5, 2],
          [6, 1],
        ],
        20,
      ),
    ).rejects.toMatchObject({ code: 'bug' });
    await expect(merge(20, [[19, 2]], 20)).rejects.toMatchObject({ code: 'bug' });
  });

  test('the parent is released when the reader leaves early', async () => {
    let released = false;
    async function* parent(): AsyncGenerator<Buffer> {
      try {
        yield* runsOf(digests(0, 20_000, 1), 100);
      } finally {
        released = true;
      }
    }
    for await (const run of mergeDigests(parent(), changesOf([]), 20_000)) {
      expect(run.length).toBe(4096 * 32);
      break;
    }
    expect(released).toBe(true);
  });
});
