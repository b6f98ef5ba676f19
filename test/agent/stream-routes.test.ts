import { hash } from 'node:crypto';
import { once } from 'node:events';
import { truncate } from 'node:fs/promises';
import http from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { blockCount, endOf } from '../../src/model/extent.ts';
import { createFrameDecoder } from '../../src/protocol/frames.ts';
import {
  call,
  codeOf,
  freshVolumeName,
  openFilesBelow,
  snapshotOf,
  startAgent,
  stream,
  volumesPath,
  type KeptFrame,
  type KeptStream,
  type RunningAgent,
} from '../support/running-agent.ts';
import {
  createRandom,
  makeVolumeFile,
  patternBytes,
  writePattern,
  writeZeros,
} from '../support/random-volume.ts';

const kibibyte = 1024;
const patience = { timeout: 20_000 };
const mebibyte = 1024 * 1024;

async function volumeOf(
  agent: RunningAgent,
  sizeBytes: number,
  extents?: { offset: number; length: number }[],
): Promise<string> {
  const volume = freshVolumeName();
  const path = join(agent.directory, volume);
  await makeVolumeFile(path, extents === undefined ? { sizeBytes } : { sizeBytes, extents });
  return volume;
}

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

describe('streams that do not end well', () => {
  test('a snapshot that is cut under the stream ends in an error frame, never in totals', async () => {
    let cut: (() => Promise<void>) | undefined;
    const agent = await startAgent({
      wrap: (backend) => ({
        ...backend,
        findRanges: async (asked) => {
          const found = await backend.findRanges(asked);
          await cut?.();
          return found;
        },
      }),
    });
    try {
      const length = 64 * mebibyte;
      const volume = await volumeOf(agent, length);
      const current_snapshot = await snapshotOf(agent, volume);
      const { path } = await agent.backend.snapshotSource(volume, current_snapshot);
      cut = () => truncate(path, 40 * mebibyte);
      const body = { previous_snapshot: null, current_snapshot, length, block_size: 32 * kibibyte };
      const kept = await stream(agent, volume, 'delta', body);
      expect(kept.totals).toBeUndefined();
      expect(kept.error).toMatchObject({ code: 'corrupt' });
      expect(kept.frames.at(-1)?.type).toBe('error');
    } finally {
      await agent.close();
    }
  });

  test('idle frames keep a stream alive while finding finds nothing', async () => {
    const gate = Promise.withResolvers<void>();
    const agent = await startAgent({
      idleMs: 5,
      wrap: (backend) => ({
        ...backend,
        findRanges: async () => ({
          method: 'bytes',
          reason: 'test',
          extents: (async function* () {
            yield { kind: 'data', offset: 0, length: mebibyte } as const;
            await gate.promise;
            yield { kind: 'data', offset: mebibyte, length: mebibyte } as const;
          })(),
          readBytes: () => 77,
          close: async () => {},
        }),
      }),
    });
    try {
      const volume = await volumeOf(agent, 2 * mebibyte);
      const current_snapshot = await snapshotOf(agent, volume);
      const body = { previous_snapshot: null, current_snapshot, length: 2 * mebibyte, block_size: 512 };
      const answer = await begin(agent, volume, body);
      const decoder = createFrameDecoder();
      const seen: string[] = [];
      for await (const piece of answer as AsyncIterable<Buffer>) {
        for (const { type, offset, data } of decoder.push(piece)) {
          seen.push(`${type} ${offset}`);
          if (type === 'idle' && seen.filter((line) => line.startsWith('idle')).length === 3) gate.resolve();
          if (type === 'totals')
            expect(JSON.parse(data.toString())).toMatchObject({ read_bytes: 2 * mebibyte + 77 });
        }
      }
      expect(seen.filter((line) => !line.startsWith('idle'))).toEqual([
        'plan 0',
        'data 0',
        `data ${mebibyte}`,
        'totals 0',
      ]);
    } finally {
      gate.resolve();
      await agent.close();
    }
  });

  test('a client that leaves in the middle sets free every file and every job', async () => {
    const agent = await startAgent();
    try {
      const length = 256 * mebibyte;
      const volume = await volumeOf(agent, length, [{ offset: 0, length: 128 * mebibyte }]);
      const previous_snapshot = await snapshotOf(agent, volume);
      await writePattern(join(agent.directory, volume), [{ offset: 0, length: 96 * mebibyte }], 2);
      const current_snapshot = await snapshotOf(agent, volume);
      const body = { current_snapshot, length, block_size: 32 * kibibyte };
      for (const previous of [null, previous_snapshot]) {
        const answer = await begin(agent, volume, { ...body, previous_snapshot: previous });
        await once(answer, 'readable');
        expect(await openFilesBelow(agent.directory)).toBeGreaterThan(0);
        answer.destroy();
        await vi.waitFor(async () => {
          expect(await openFilesBelow(agent.directory)).toBe(0);
          expect(agent.readers.pending).toBe(0);
        }, patience);
      }
    } finally {
      await agent.close();
    }
  });

  test('a client that leaves stops finding that finds nothing, and a snapshot that is being made', async () => {
    const signals: AbortSignal[] = [];
    const untilAborted = async (signal: AbortSignal): Promise<never> => {
      signals.push(signal);
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      throw signal.reason;
    };
    const agent = await startAgent({
      wrap: (backend) => ({
        ...backend,
        createSnapshot: (_volume, _snapshot, signal) => untilAborted(signal),
        findRanges: async ({ signal }) => ({
          method: 'bytes',
          reason: 'test',
          extents: (async function* () {
            yield await untilAborted(signal);
          })(),
          readBytes: () => 0,
          close: async () => {},
        }),
      }),
    });
    try {
      const volume = await volumeOf(agent, mebibyte, []);
      const current_snapshot = await snapshotOf(agent, volume);
      const body = { previous_snapshot: null, current_snapshot, length: mebibyte, block_size: 512 };
      const answer = await begin(agent, volume, body);
      const making = http.request(`${agent.url}${volumesPath(volume)}/snapshots`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
      });
      making.on('error', () => {});
      making.end(JSON.stringify({ name: current_snapshot }));
      await vi.waitFor(() => expect(signals.map(({ aborted }) => aborted)).toEqual([false, false]), patience);
      answer.destroy();
      making.destroy();
      await vi.waitFor(() => expect(signals.map(({ aborted }) => aborted)).toEqual([true, true]), patience);
      await vi.waitFor(async () => expect(await openFilesBelow(agent.directory)).toBe(0), patience);
    } finally {
      await agent.close();
    }
  });

  test('a client that does not read holds finding and reading back', async () => {
    let asked = 0;
    const pieces = 512;
    const agent = await startAgent({
      wrap: (backend) => ({
        ...backend,
        findRanges: async () => ({
          method: 'all',
          reason: 'test',
          extents: (async function* () {
            for (; asked < pieces; asked += 1) {
              yield { kind: 'data', offset: asked * mebibyte, length: mebibyte } as const;
            }
          })(),
          readBytes: () => 0,
          close: async () => {},
        }),
      }),
    });
    try {
      const length = pieces * mebibyte;
      const volume = await volumeOf(agent, length, []);
      await writePattern(join(agent.directory, volume), [{ offset: 0, length: 64 * mebibyte }], 1);
      const current_snapshot = await snapshotOf(agent, volume);
      const body = { previous_snapshot: null, current_snapshot, length, block_size: 32 * kibibyte };
      const answer = await begin(agent, volume, body);
      answer.pause();
      await once(answer, 'readable');
      let before = -1;
      await vi.waitFor(
        () => {
          const still = asked === before && agent.readers.pending === 0;
          before = asked;
          expect(still).toBe(true);
        },
        { ...patience, interval: 300 },
      );
      expect(asked).toBeLessThan(128);
      answer.destroy();
    } finally {
      await agent.close();
    }
  });

  test('streams beyond the limit are told to come again', async () => {
    const agent = await startAgent({ maxStreams: 1 });
    try {
      const length = 128 * mebibyte;
      const volume = await volumeOf(agent, length);
      const current_snapshot = await snapshotOf(agent, volume);
      const body = { previous_snapshot: null, current_snapshot, length, block_size: 32 * kibibyte };
      const answer = await begin(agent, volume, body);
      const second = await call(agent, 'POST', `${volumesPath(volume)}/delta`, body);
      expect([second.status, codeOf(second)]).toEqual([503, 'agent-unavailable']);
      answer.destroy();
      await vi.waitFor(async () => {
        const third = await begin(agent, volume, body);
        third.destroy();
      }, patience);
    } finally {
      await agent.close();
    }
  });

  test('closing the agent cuts streams without totals and leaves no file open', async () => {
    const agent = await startAgent();
    const length = 128 * mebibyte;
    const volume = await volumeOf(agent, length);
    const current_snapshot = await snapshotOf(agent, volume);
    const body = { previous_snapshot: null, current_snapshot, length, block_size: 32 * kibibyte };
    const answer = await begin(agent, volume, body);
    await once(answer, 'readable');
    const reading = readTypes(answer);
    await agent.close();
    expect(await reading).not.toContain('totals');
    expect(await openFilesBelow(agent.directory)).toBe(0);
  });
});

async function readTypes(answer: http.IncomingMessage): Promise<string[]> {
  const decoder = createFrameDecoder();
  const types: string[] = [];
  try {
    for await (const piece of answer as AsyncIterable<Buffer>) {
      for (const { type } of decoder.push(piece)) types.push(type);
    }
  } catch {
    types.push('cut');
  }
  return types;
}

/** A delta that has begun: its body is not read yet. */
async function begin(agent: RunningAgent, volume: string, body: unknown): Promise<http.IncomingMessage> {
  const outgoing = http.request(`${agent.url}${volumesPath(volume)}/delta`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
  });
  outgoing.end(JSON.stringify(body));
  const [answer] = (await once(outgoing, 'response')) as [http.IncomingMessage];
  answer.on('error', () => {});
  expect(answer.statusCode).toBe(200);
  return answer;
}
