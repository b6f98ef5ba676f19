import { hash } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { blockCount, endOf } from '../../src/model/extent.ts';
import {
  call,
  codeOf,
  snapshotOf,
  startAgent,
  stream,
  volumeOf,
  volumesPath,
  type KeptFrame,
  type KeptStream,
  type RunningAgent,
} from '../support/running-agent.ts';
import { createRandom, patternBytes, writePattern, writeZeros } from '../support/random-volume.ts';

const kibibyte = 1024;
const mebibyte = 1024 * 1024;

const ranges = ({ frames }: KeptStream) =>
  frames.filter(({ type }) => ['data', 'zero', 'digests'].includes(type));

/** Checks order, block boundaries and every digest, and returns what the frames put into `image`. */
function applied(kept: KeptStream, image: Buffer, blockSize: number): Buffer {
  let end = 0;
  for (const frame of ranges(kept)) {
    expect(frame.offset).toBeGreaterThanOrEqual(end);
    expect(frame.offset % blockSize).toBe(0);
    end = endOf(frame);
    if (end !== image.length) expect(end % blockSize).toBe(0);
    if (frame.type === 'zero') image.fill(0, frame.offset, end);
    if (frame.type !== 'data') continue;
    expect(frame.data.length).toBe(frame.length);
    expect(frame.digests.equals(digestsOf(frame.data, blockSize))).toBe(true);
    frame.data.copy(image, frame.offset);
  }
  return image;
}

function digestsOf(bytes: Buffer, blockSize: number): Buffer {
  const digests: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += blockSize) {
    digests.push(hash('sha256', bytes.subarray(at, at + blockSize), 'buffer'));
  }
  return Buffer.concat(digests);
}

function sums(frames: readonly KeptFrame[]) {
  const sum = (type: KeptFrame['type']) =>
    frames.filter((frame) => frame.type === type).reduce((total, { length }) => total + length, 0);
  return { data_bytes: sum('data') + sum('digests'), zero_bytes: sum('zero') };
}

describe('delta of everything', () => {
  let agent: RunningAgent;
  beforeAll(async () => {
    agent = await startAgent();
  });
  afterAll(() => agent.close());

  test.each([512, 4 * kibibyte, 32 * kibibyte, mebibyte, 4 * mebibyte])(
    'gives every byte with its digest in blocks of %i',
    async (blockSize) => {
      const length = 6 * mebibyte + 12_345;
      const extents = [
        { offset: 0, length: 2 * mebibyte + 512 },
        { offset: 5 * mebibyte, length: mebibyte + 12_345 },
      ];
      const volume = await volumeOf(agent, length, extents);
      await writeZeros(join(agent.directory, volume), [{ offset: mebibyte, length: 100_000 }]);
      const current_snapshot = await snapshotOf(agent, volume);
      const kept = await stream(agent, volume, 'delta', {
        previous_snapshot: null,
        current_snapshot,
        length,
        block_size: blockSize,
      });
      const wanted = Buffer.alloc(length);
      for (const { offset, length: size } of extents) patternBytes(offset, size, 1).copy(wanted, offset);
      wanted.fill(0, mebibyte, mebibyte + 100_000);
      const found = applied(kept, Buffer.alloc(length, 0xee), blockSize);
      expect(found.equals(wanted)).toBe(true);
      expect(kept.totals).toMatchObject(sums(kept.frames));
      expect(kept.plan).toMatchObject({ method: 'allocation' });
      expect(kept.frames.at(-1)?.type).toBe('totals');
      expect(kept.frames.every(({ data }) => data.length <= Math.max(mebibyte, blockSize))).toBe(true);
    },
  );

  test('does not read holes, and sends written zeros as zero frames', async () => {
    const length = 64 * mebibyte;
    const volume = await volumeOf(agent, length, [{ offset: 32 * mebibyte, length: mebibyte }]);
    await writeZeros(join(agent.directory, volume), [{ offset: 32 * mebibyte, length: 64 * kibibyte }]);
    const current_snapshot = await snapshotOf(agent, volume);
    const { totals, frames } = await stream(agent, volume, 'delta', {
      previous_snapshot: null,
      current_snapshot,
      length,
      block_size: 32 * kibibyte,
    });
    expect(totals).toMatchObject({ data_bytes: 15 * 64 * kibibyte, digests: 30 });
    expect(Number(totals?.['read_bytes'])).toBeLessThanOrEqual(mebibyte);
    expect(frames.map(({ type }) => type)).toEqual(['plan', 'zero', 'data', 'zero', 'totals']);
  });

  test('of a terabyte of nothing is one zero frame', async () => {
    const length = 1024 ** 4;
    const volume = await volumeOf(agent, length, []);
    const current_snapshot = await snapshotOf(agent, volume);
    const { frames, totals } = await stream(agent, volume, 'delta', {
      previous_snapshot: null,
      current_snapshot,
      length,
      block_size: 32 * kibibyte,
    });
    expect(ranges({ frames } as KeptStream)).toMatchObject([{ type: 'zero', offset: 0, length }]);
    expect(totals).toEqual({ data_bytes: 0, zero_bytes: length, digests: 0, read_bytes: 0 });
  });
});

describe('delta of two snapshots', () => {
  let agent: RunningAgent;
  let volume: string;
  let path: string;
  const blockSize = 4 * kibibyte;
  const length = 512 * blockSize + 1000;
  beforeAll(async () => {
    agent = await startAgent();
    volume = await volumeOf(agent, length, [{ offset: 0, length: 384 * blockSize }]);
    path = join(agent.directory, volume);
  });
  afterAll(() => agent.close());

  test('sends exactly the changed blocks, and zeros for what was zeroed', async () => {
    const previous_snapshot = await snapshotOf(agent, volume);
    const changed = [3, 4, 100, 383, 400, 512];
    await writePattern(
      path,
      changed.map((block) => ({
        offset: block * blockSize,
        length: Math.min(512, length - block * blockSize),
      })),
      2,
    );
    await writeZeros(path, [{ offset: 200 * blockSize, length: 3 * blockSize }]);
    await writePattern(path, [{ offset: 300 * blockSize, length: blockSize }], 1);
    const current_snapshot = await snapshotOf(agent, volume);
    const kept = await stream(agent, volume, 'delta', {
      previous_snapshot,
      current_snapshot,
      length,
      block_size: blockSize,
    });
    const blocksOf = (type: KeptFrame['type']) =>
      kept.frames
        .filter((frame) => frame.type === type)
        .flatMap(({ offset, length: size }) =>
          Array.from({ length: blockCount(size, blockSize) }, (_, at) => offset / blockSize + at),
        );
    expect(blocksOf('data')).toEqual(changed);
    expect(blocksOf('zero')).toEqual([200, 201, 202]);
  });

  test('goes on at every block exactly where it is asked to', async () => {
    const previous_snapshot = await snapshotOf(agent, volume);
    const places = [0, 1, 2, 40, 41, 300, 510, 512].map((block) => ({
      offset: block * blockSize,
      length: 512,
    }));
    await writePattern(path, places, 3);
    await writeZeros(path, [{ offset: 60 * blockSize, length: 20 * blockSize }]);
    const current_snapshot = await snapshotOf(agent, volume);
    const body = { previous_snapshot, current_snapshot, length, block_size: blockSize };
    const whole = await stream(agent, volume, 'delta', body);
    const expected = new Map(blocksOfStream(whole, blockSize));
    const starts = [...Array.from({ length: 84 }, (_, at) => at), 299, 300, 301, 509, 510, 511, 512];
    for (const start of starts) {
      const rest = await stream(agent, volume, 'delta', { ...body, start_offset: start * blockSize });
      const wanted = [...expected].filter(([block]) => block >= start);
      expect(blocksOfStream(rest, blockSize), `from block ${start}`).toEqual(wanted);
      expect(rest.totals).toMatchObject(sums(rest.frames));
    }
    const nothing = await stream(agent, volume, 'delta', { ...body, start_offset: length });
    expect(ranges(nothing)).toEqual([]);
  });

  test('also sends unchanged gaps when that is asked for', async () => {
    const previous_snapshot = await snapshotOf(agent, volume);
    await writePattern(
      path,
      [10, 13, 20].map((block) => ({ offset: block * blockSize, length: 512 })),
      4,
    );
    const current_snapshot = await snapshotOf(agent, volume);
    const body = {
      previous_snapshot,
      current_snapshot,
      length,
      block_size: blockSize,
      merge_gap: 2 * blockSize,
    };
    const kept = await stream(agent, volume, 'delta', body);
    expect(ranges(kept).map(({ offset, length: size }) => [offset / blockSize, size / blockSize])).toEqual([
      [10, 4],
      [20, 1],
    ]);
  });

  test('packs 1310 scattered blocks, each right', async () => {
    const size = 64 * mebibyte;
    const wide = await volumeOf(agent, size);
    const previous_snapshot = await snapshotOf(agent, wide);
    const random = createRandom();
    const blocks = new Set<number>();
    while (blocks.size < 1310) blocks.add(random.between(0, size / (32 * kibibyte) - 1));
    const places = [...blocks].map((block) => ({ offset: block * 32 * kibibyte, length: 512 }));
    await writePattern(join(agent.directory, wide), places, 2);
    const current_snapshot = await snapshotOf(agent, wide);
    const kept = await stream(agent, wide, 'delta', {
      previous_snapshot,
      current_snapshot,
      length: size,
      block_size: 32 * kibibyte,
    });
    expect(kept.totals).toMatchObject({ data_bytes: 1310 * 32 * kibibyte, zero_bytes: 0, digests: 1310 });
    const wanted = patternBytes(0, size, 1);
    for (const { offset } of places) patternBytes(offset, 512, 2).copy(wanted, offset);
    expect(applied(kept, patternBytes(0, size, 1), 32 * kibibyte).equals(wanted)).toBe(true);
  });

  test('is refused as JSON when the snapshots do not allow it', async () => {
    const current_snapshot = await snapshotOf(agent, volume);
    const gone = await snapshotOf(agent, volume);
    await agent.backend.deleteSnapshot(volume, gone);
    const body = { previous_snapshot: gone, current_snapshot, length, block_size: blockSize };
    const answer = await call(agent, 'POST', `${volumesPath(volume)}/delta`, body);
    expect([answer.status, codeOf(answer)]).toEqual([409, 'delta-unavailable']);
    const another = { ...body, previous_snapshot: current_snapshot, previous_identity: 'another' };
    expect(codeOf(await call(agent, 'POST', `${volumesPath(volume)}/delta`, another))).toBe(
      'delta-unavailable',
    );
    const noCurrent = { ...body, previous_snapshot: null, current_snapshot: gone };
    expect(codeOf(await call(agent, 'POST', `${volumesPath(volume)}/delta`, noCurrent))).toBe('not-found');
  });
});

function blocksOfStream(kept: KeptStream, blockSize: number): [number, string][] {
  return ranges(kept).flatMap(({ type, offset, length, data }) =>
    Array.from({ length: blockCount(length, blockSize) }, (_, at): [number, string] => [
      offset / blockSize + at,
      type === 'zero' ? 'zero' : hash('sha1', data.subarray(at * blockSize, (at + 1) * blockSize)),
    ]),
  );
}

describe('digests and blocks', () => {
  let agent: RunningAgent;
  let volume: string;
  let snapshot: string;
  const blockSize = 4 * kibibyte;
  const length = 40 * mebibyte + 100;
  const extents = [
    { offset: 0, length: 20 * mebibyte },
    { offset: 40 * mebibyte, length: 100 },
  ];
  const image = Buffer.alloc(length);
  beforeAll(async () => {
    agent = await startAgent();
    volume = await volumeOf(agent, length, extents);
    for (const { offset, length: size } of extents) patternBytes(offset, size, 1).copy(image, offset);
    await writeZeros(join(agent.directory, volume), [{ offset: 2 * mebibyte, length: 3 * blockSize }]);
    image.fill(0, 2 * mebibyte, 2 * mebibyte + 3 * blockSize);
    snapshot = await snapshotOf(agent, volume);
  });
  afterAll(() => agent.close());

  test.each([0, 2 * mebibyte, 19 * mebibyte, 40 * mebibyte])(
    'digests from %i on tile the rest with right digests, and holes are not read',
    async (start_offset) => {
      const body = { snapshot, length, block_size: blockSize, start_offset };
      const kept = await stream(agent, volume, 'digests', body);
      let at = start_offset;
      for (const frame of ranges(kept)) {
        expect(frame.offset).toBe(at);
        at = endOf(frame);
        const bytes = image.subarray(frame.offset, at);
        if (frame.type === 'zero') expect(bytes.equals(Buffer.alloc(bytes.length))).toBe(true);
        else expect(frame.digests.equals(digestsOf(bytes, blockSize))).toBe(true);
        expect(frame.digests.length / 32).toBeLessThanOrEqual(4096);
      }
      expect(at).toBe(length);
      expect(Number(kept.totals?.['read_bytes'])).toBeLessThanOrEqual(21 * mebibyte);
    },
  );

  test('blocks tile exactly the ranges that are named', async () => {
    const named = [
      [0, blockSize],
      [mebibyte, 2 * mebibyte],
      [20 * mebibyte - blockSize, 2 * blockSize],
      [40 * mebibyte, 100],
    ] as const;
    const body = { snapshot, length, block_size: blockSize, ranges: named };
    const kept = await stream(agent, volume, 'blocks', body);
    const found = applied(kept, Buffer.alloc(length, 0xee), blockSize);
    const wanted = Buffer.alloc(length, 0xee);
    for (const [offset, size] of named) image.copy(wanted, offset, offset, offset + size);
    expect(found.equals(wanted)).toBe(true);
    expect(kept.plan).toMatchObject({ method: 'named', data_bytes: 2 * mebibyte + 3 * blockSize + 100 });
    const rest = await stream(agent, volume, 'blocks', { ...body, start_offset: 2 * mebibyte });
    expect(ranges(rest)[0]?.offset).toBe(2 * mebibyte);
    expect(sums(rest.frames).data_bytes + sums(rest.frames).zero_bytes).toBe(mebibyte + 2 * blockSize + 100);
  });

  test.each([
    [
      'unsorted ranges',
      {
        ranges: [
          [blockSize, blockSize],
          [0, blockSize],
        ],
      },
    ],
    [
      'overlapping ranges',
      {
        ranges: [
          [0, 2 * blockSize],
          [blockSize, blockSize],
        ],
      },
    ],
    ['a range off the blocks', { ranges: [[512, blockSize]] }],
    ['a range that ends off the blocks', { ranges: [[0, blockSize + 1]] }],
    ['a range over the end', { ranges: [[40 * mebibyte, blockSize]] }],
    ['a range far behind the end', { ranges: [[2 ** 52, blockSize]] }],
    ['an empty range', { ranges: [[0, 0]] }],
    ['a negative range', { ranges: [[-blockSize, blockSize]] }],
    ['no ranges', { ranges: [] }],
    ['too many ranges', { ranges: Array.from({ length: 4097 }, (_, at) => [at * blockSize, blockSize]) }],
    ['a start off the blocks', { start_offset: 100 }],
    ['a start behind the end', { start_offset: 48 * mebibyte }],
    ['a shorter length', { length: length - 100 }],
    ['a longer length', { length: length + blockSize }],
    ['no power of two', { block_size: 5000 }],
    ['blocks too small', { block_size: 256 }],
    ['blocks too large', { block_size: 8 * mebibyte }],
    ['a field that is not known', { offset: 1 }],
    ['a hostile snapshot', { snapshot: '../../etc/passwd' }],
  ])('refuses %s', async (_title, change) => {
    const body = { snapshot, length, block_size: blockSize, ranges: [[0, blockSize]], ...change };
    const answer = await call(agent, 'POST', `${volumesPath(volume)}/blocks`, body);
    expect([answer.status, codeOf(answer)]).toEqual([400, 'message-invalid']);
  });
});
