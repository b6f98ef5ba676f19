import { hash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { endOf, type Extent } from '../../src/model/extent.ts';
import { compareChanges } from '../../src/pipeline/compare.ts';
import type { ChangeEvent } from '../../src/volume/block-source.ts';
import { createMemoryVolume } from '../support/memory-volume.ts';
import { createRandom, scatteredBlocks } from '../support/random-volume.ts';

const blockSize = 512;

function digestsOf(bytes: Buffer): Buffer {
  const digests: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += blockSize) {
    digests.push(hash('sha256', bytes.subarray(at, at + blockSize), 'buffer'));
  }
  return Buffer.concat(digests);
}

/** The list in runs of odd sizes, each overwritten when the next is asked for. */
async function* listOf(digests: Buffer, runDigests: number): AsyncGenerator<Buffer> {
  const run = Buffer.alloc(runDigests * 32);
  for (let at = 0; at < digests.length; at += run.length) {
    const length = digests.copy(run, 0, at, at + run.length);
    yield run.subarray(0, length);
    run.fill(0xdd);
  }
}

type Told = { readonly kind: ChangeEvent['kind']; readonly offset: number; readonly length: number };

async function tell(
  events: AsyncIterable<ChangeEvent>,
  content: Buffer,
): Promise<{ told: Told[]; digests: Buffer }> {
  const told: Told[] = [];
  const digests: Buffer[] = [];
  let position = 0;
  for await (const event of events) {
    if (event.kind === 'plan' || event.kind === 'totals') continue;
    const { kind, offset, length } = event;
    expect(offset, 'the events tile the volume').toBe(position);
    position += length;
    const bytes = content.subarray(offset, offset + length);
    if (event.kind === 'data') expect(event.bytes.equals(bytes)).toBe(true);
    if (event.kind === 'zero') expect(bytes.every((byte) => byte === 0)).toBe(true);
    digests.push(event.kind === 'zero' ? digestsOf(bytes) : Buffer.from(event.digests));
    told.push({ kind, offset, length });
  }
  expect(position).toBe(content.length);
  return { told, digests: Buffer.concat(digests) };
}

function changedBlocks(before: Buffer, now: Buffer): number[] {
  const changed: number[] = [];
  for (let at = 0; at < now.length; at += blockSize) {
    const block = now.subarray(at, at + blockSize);
    if (!block.equals(before.subarray(at, at + blockSize))) changed.push(at / blockSize);
  }
  return changed;
}

function blocksOf(extents: readonly Extent[]): number[] {
  return extents.flatMap(({ offset, length }) =>
    Array.from({ length: Math.ceil(length / blockSize) }, (_, at) => offset / blockSize + at),
  );
}

describe('a comparison', () => {
  test.for([1, 7, 4096])(
    'finds exactly what changed, whatever the runs of the list (%d)',
    async (runDigests) => {
      const random = createRandom();
      for (let round = 0; round < 8; round += 1) {
        const sizeBytes = random.between(100, 3000) * 512 - random.between(0, 1) * 100;
        const volume = createMemoryVolume(sizeBytes);
        volume.write([{ offset: 0, length: Math.floor(sizeBytes / 2048) * 1024 }]);
        const before = Buffer.from(volume.bytes);
        const options = { sizeBytes, blockBytes: 512 };
        volume.write(scatteredBlocks(random, { ...options, count: random.between(0, 200) }));
        volume.zero(scatteredBlocks(random, { ...options, count: random.between(0, 50) }));
        if (random.chance(0.5)) volume.grow(sizeBytes + random.between(1, 4000));
        const now = Buffer.from(volume.bytes);
        const source = volume.source(volume.snapshot(), { blockSize, frameBytes: random.pick([512, 8192]) });
        const list = listOf(digestsOf(before), runDigests);
        const signal = new AbortController().signal;
        const { told, digests } = await tell(
          compareChanges(source, list, 0, () => undefined, signal),
          now,
        );
        expect(digests.equals(digestsOf(now))).toBe(true);
        const fetched = told.filter(({ kind }) => kind !== 'digests');
        expect(blocksOf(fetched)).toEqual(changedBlocks(before, now));
      }
    },
  );

  test('fetches short unchanged gaps between two changed ranges too, if it may', async () => {
    const volume = createMemoryVolume(100 * blockSize);
    volume.write([{ offset: 0, length: 100 * blockSize }]);
    const before = Buffer.from(volume.bytes);
    volume.write([10, 12, 20, 40].map((block) => ({ offset: block * blockSize, length: blockSize })));
    const source = volume.source(volume.snapshot(), { blockSize });
    const signal = new AbortController().signal;
    const list = listOf(digestsOf(before), 4096);
    const gap = 7 * blockSize;
    const { told } = await tell(
      compareChanges(source, list, gap, () => undefined, signal),
      volume.bytes,
    );
    expect(
      told
        .filter(({ kind }) => kind === 'data')
        .map((each) => [each.offset / blockSize, endOf(each) / blockSize]),
    ).toEqual([
      [10, 21],
      [40, 41],
    ]);
  });

  test('asks for blocks that differ, and not for those that have become zeros', async () => {
    const volume = createMemoryVolume(100 * blockSize);
    volume.write([{ offset: 0, length: 100 * blockSize }]);
    const before = Buffer.from(volume.bytes);
    volume.write([{ offset: 20 * blockSize, length: blockSize }]);
    volume.zero([{ offset: 21 * blockSize, length: 5 * blockSize }]);
    const honest = volume.source(volume.snapshot(), { blockSize });
    const asked: Extent[] = [];
    const source = {
      ...honest,
      blocks(ranges: readonly Extent[], signal: AbortSignal) {
        asked.push(...ranges.map(({ offset, length }) => ({ offset, length })));
        return honest.blocks(ranges, signal);
      },
    };
    const signal = new AbortController().signal;
    const list = listOf(digestsOf(before), 4096);
    await tell(
      compareChanges(source, list, 0, () => undefined, signal),
      volume.bytes,
    );
    expect(asked).toEqual([{ offset: 20 * blockSize, length: blockSize }]);
  });

  test.each([
    ['a changed block', 20, 'another'],
    ['an unchanged block of a gap', 22, 'another'],
    ['a zero block of a gap', 23, 'another'],
    ['the block after a gap', 24, 'zeros'],
  ] as const)('is corrupt when %s is not fetched as it was hashed', async (_what, block, sent) => {
    const volume = createMemoryVolume(100 * blockSize);
    volume.write([{ offset: 0, length: 100 * blockSize }]);
    volume.zero([{ offset: 23 * blockSize, length: blockSize }]);
    const before = Buffer.from(volume.bytes);
    volume.write([20, 24].map((each) => ({ offset: each * blockSize, length: blockSize })));
    const hashed = volume.source(volume.snapshot(), { blockSize });
    const one = [{ offset: block * blockSize, length: blockSize }];
    if (sent === 'zeros') volume.zero(one);
    else volume.write(one);
    const other = volume.source(volume.snapshot(), { blockSize });
    const blocks = other.blocks.bind(other);
    const { signal } = new AbortController();
    const list = listOf(digestsOf(before), 4096);
    const gap = 7 * blockSize;
    const read = async () => {
      for await (const event of compareChanges({ ...hashed, blocks }, list, gap, () => undefined, signal)) {
        if (event.kind === 'data') expect(endOf(event)).toBeLessThanOrEqual(block * blockSize);
      }
    };
    await expect(read()).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining(`offset ${block * blockSize} `),
    });
  });

  test('with a list that is longer than the volume is corrupt', async () => {
    const volume = createMemoryVolume(10 * blockSize);
    const list = listOf(digestsOf(Buffer.alloc(11 * blockSize)), 4096);
    const source = volume.source(volume.snapshot(), { blockSize });
    const events = compareChanges(source, list, 0, () => undefined, new AbortController().signal);
    await expect(tell(events, volume.bytes)).rejects.toMatchObject({ code: 'corrupt' });
  });

  test('that its reader leaves stops the source and releases the list', async () => {
    const blocks = 40_000;
    const volume = createMemoryVolume(blocks * blockSize);
    volume.write([{ offset: 0, length: blocks * blockSize }]);
    const digests = digestsOf(volume.bytes);
    // Every other block differs, so that there are more ranges than one batch takes.
    for (let at = 0; at < digests.length; at += 64) digests.fill(1, at, at + 32);
    let released = false;
    async function* list() {
      try {
        yield* listOf(digests, 4096);
      } finally {
        released = true;
      }
    }
    let steps = 0;
    const source = volume.source(volume.snapshot(), { blockSize, step: () => void (steps += 1) });
    const events = compareChanges(source, list(), 0, () => undefined, new AbortController().signal);
    for await (const event of events) if (event.kind === 'data') break;
    const after = steps;
    expect(after).toBeLessThan(blocks / 16);
    await new Promise(setImmediate);
    expect(released).toBe(true);
    expect(steps).toBe(after);
  });

  test('tells how much the source reads, and sums what both of its streams did', async () => {
    const volume = createMemoryVolume(100 * blockSize);
    volume.write([{ offset: 0, length: 50 * blockSize }]);
    const before = Buffer.from(volume.bytes);
    volume.write([{ offset: 0, length: 5 * blockSize }]);
    const source = volume.source(volume.snapshot(), { blockSize });
    let read = 0;
    const signal = new AbortController().signal;
    const list = listOf(digestsOf(before), 4096);
    let totals: ChangeEvent | undefined;
    for await (const event of compareChanges(source, list, 0, (bytes) => void (read += bytes), signal)) {
      if (event.kind === 'totals') totals = event;
    }
    expect(read).toBe(50 * blockSize);
    expect(totals).toMatchObject({
      totals: { data_bytes: 5 * blockSize, zero_bytes: 0, read_bytes: 55 * blockSize },
    });
  });
});
