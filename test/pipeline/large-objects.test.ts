import { hash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { BackupError } from '../../src/model/errors.ts';
import { createSealer, type ObjectFault, type Sealer } from '../../src/pipeline/sealer.ts';
import type { StreamPlan } from '../../src/protocol/calls.ts';
import type { BlockSource } from '../../src/volume/block-source.ts';
import { createFaultPlanStore } from '../support/fault-plan-store.ts';
import { createFaultyStore } from '../support/faulty-store.ts';
import { createMemoryStore } from '../support/memory-store.ts';
import { createMemoryTarget, createMemoryVolume } from '../support/memory-volume.ts';
import { createPipelineRun, testContainer } from '../support/pipeline-run.ts';
import { createRandom, patternBytes } from '../support/random-volume.ts';

const mebibyte = 1024 * 1024;
const codecs = ['none', 'zlib', 'bz2', 'zstd'] as const;
let sealer: Sealer;

beforeAll(async () => {
  sealer = await createSealer({ threads: 2 });
});
afterAll(() => sealer.close());

describe('objects larger than a slab', () => {
  test.for(codecs)('are restored and verified in the memory of a few cells (%s)', async (codec) => {
    const random = createRandom();
    const blockSize = 4096;
    const store = createMemoryStore();
    const writer = createPipelineRun(store, sealer, 64 * mebibyte);
    const volume = createMemoryVolume(5 * mebibyte + 1536);
    volume.write([{ offset: 0, length: 4 * mebibyte }]);
    const first = volume.snapshot();
    await writer.backup({ source: volume.source(first, { blockSize }), codec, objectBytes: 3 * mebibyte });
    volume.write([
      { offset: mebibyte, length: 8192 },
      { offset: 4.5 * mebibyte, length: 0.5 * mebibyte + 1536 },
    ]);
    const source = volume.source(volume.snapshot(), { blockSize });
    await writer.backup({ source, codec, objectBytes: 3 * mebibyte, mode: 'delta', previous: first });

    const ceiling = 4 * mebibyte;
    const reader = createPipelineRun(store, sealer, ceiling);
    reader.chain.push(...writer.chain);
    expect(writer.chain[0]?.metadata.objects.at(0)?.length).toBeGreaterThan(ceiling / 10);
    const target = createMemoryTarget(volume.bytes.length, random);
    await reader.restore(target);
    expect(target.bytes.equals(volume.bytes)).toBe(true);
    expect(await reader.verify()).toMatchObject({
      checkedBytes: volume.bytes.length,
      badCount: 0,
      badRanges: [],
    });
    expect(reader.memory.peak).toBeLessThanOrEqual(ceiling);

    const key = writer.chain[0]?.metadata.objects.at(0)?.key ?? '';
    const body = store.containers.get(testContainer)?.get(key) ?? Buffer.alloc(0);
    for (const at of [2, random.between(0, body.length - 1), body.length - 3]) {
      store.corrupt(testContainer, key, (bytes) => {
        bytes[at] = (bytes[at] ?? 0) ^ 0xff;
        return bytes;
      });
      const spoiled = createMemoryTarget(volume.bytes.length, random);
      await expect(reader.restore(spoiled)).rejects.toMatchObject({
        code: 'corrupt',
        details: { object: key },
      });
      expect(spoiled.state).toBe('aborted');
      const { badRanges } = await reader.verify();
      expect(badRanges.map(({ object }) => object)).toContain(key);
      store.corrupt(testContainer, key, () => Buffer.from(body));
    }
    expect(reader.memory.held).toBe(0);
  });

  test.for([
    [64 * 1024, mebibyte],
    [4 * mebibyte, 48 * mebibyte],
  ] as const)(
    'are restored and verified also where a slab is one block of %d bytes',
    { timeout: 15_000 },
    async ([blockSize, ceiling]) => {
      const store = createMemoryStore();
      const writer = createPipelineRun(store, sealer, 512 * mebibyte);
      const volume = createMemoryVolume(9 * blockSize + 512);
      volume.write([{ offset: 0, length: 9 * blockSize + 512 }]);
      const source = volume.source(volume.snapshot(), { blockSize });
      const { layer } = await writer.backup({ source, objectBytes: 9 * blockSize });
      expect(layer.metadata.objects.at(0)?.length).toBeGreaterThan(blockSize);
      const reader = createPipelineRun(store, sealer, ceiling);
      reader.chain.push(...writer.chain);
      const target = createMemoryTarget(volume.bytes.length, createRandom());
      await reader.restore(target);
      expect(target.bytes.equals(volume.bytes)).toBe(true);
      expect(await reader.verify()).toMatchObject({ checkedBytes: volume.bytes.length, badCount: 0 });
      expect(reader.memory.peak).toBeLessThanOrEqual(ceiling);
    },
  );

  test('a body that breaks off, or is cancelled, ends the restore and gives everything back', async () => {
    const store = createMemoryStore();
    const writer = createPipelineRun(store, sealer, 64 * mebibyte);
    const volume = createMemoryVolume(4 * mebibyte);
    volume.write([{ offset: 0, length: 4 * mebibyte }]);
    const source = volume.source(volume.snapshot(), { blockSize: 4096 });
    await writer.backup({ source, codec: 'none', objectBytes: 4 * mebibyte });
    const broken = createFaultPlanStore(store, { call: 'getPiece', at: 9, when: 'before' });
    const reader = createPipelineRun(broken, sealer, 4 * mebibyte);
    reader.chain.push(...writer.chain);
    const target = createMemoryTarget(volume.bytes.length, createRandom());
    await expect(reader.restore(target)).rejects.toMatchObject({ code: 'store-unavailable' });
    expect(reader.memory.held).toBe(0);

    broken.plan({ call: 'getPiece', at: 9, when: 'stall' });
    const controller = new AbortController();
    const again = createMemoryTarget(volume.bytes.length, createRandom());
    const running = reader.restore(again, controller.signal);
    running.catch(() => undefined);
    await vi.waitFor(() => broken.assertAllFired());
    controller.abort(new BackupError('cancelled', 'enough'));
    await expect(running).rejects.toMatchObject({ code: 'cancelled' });
    expect([target.state, again.state]).toEqual(['aborted', 'aborted']);
    expect(reader.memory.held).toBe(0);
    await expect(sealer.sealZeros(512, 'zlib')).resolves.toBeDefined();
  });
});

describe('a body in pieces', () => {
  const blockSize = 512;
  const bytes = patternBytes(0, 300_000, 5);

  /** Seals through the threads, then unseals what `spoil` makes of it. */
  async function unseal(
    codec: (typeof codecs)[number],
    spoil: (body: Buffer) => Buffer,
    length = bytes.length,
    md5 = hash('md5', bytes.subarray(0, length), 'hex'),
  ): Promise<{ faults: readonly ObjectFault[]; taken: Buffer }> {
    const slab = new SharedArrayBuffer(bytes.length);
    const out = codec === 'none' ? null : new SharedArrayBuffer(bytes.length);
    bytes.copy(Buffer.from(slab));
    const digests = blockDigests(bytes, blockSize);
    const objects = [{ start: 0, offset: 0, length: bytes.length }];
    const [sealed] = await sealer.seal({ codec, blockSize, slab, out, objects, digests });
    if (sealed === undefined) throw new Error('nothing was sealed');
    const body = spoil(Buffer.from(sealed.body));
    const taken: Buffer[] = [];
    async function* pieces() {
      for (let at = 0; at < body.length; at += 7001) yield body.subarray(at, at + 7001);
    }
    const segments = [
      { offset: 1024, length: 51_200 },
      { offset: 102_400, length: length - 102_400 },
    ];
    const faults = await sealer.unsealStream({
      codec: sealed.codec,
      length,
      md5,
      blockSize,
      segments,
      digests: Buffer.concat(
        segments.map((segment) =>
          blockDigests(bytes.subarray(segment.offset, segment.offset + segment.length), blockSize),
        ),
      ),
      slab: new SharedArrayBuffer(65_536),
      pieces: pieces(),
      take: async (offset, part) => {
        expect(bytes.compare(part, 0, part.length, offset, offset + part.length)).toBe(0);
        taken.push(Buffer.from(part));
      },
      signal: new AbortController().signal,
    });
    return { faults, taken: Buffer.concat(taken) };
  }

  test.for(codecs)('gives the segments and nothing else, checked (%s)', async (codec) => {
    const { faults, taken } = await unseal(codec, (body) => body);
    expect(faults).toEqual([]);
    expect(taken.equals(Buffer.concat([bytes.subarray(1024, 52_224), bytes.subarray(102_400)]))).toBe(true);
  });

  test('stops before the first block that differs, and gives nothing of it', async () => {
    const { faults, taken } = await unseal('none', (body) => {
      body[204_800 + 700] = (body[204_800 + 700] ?? 0) ^ 1;
      return body;
    });
    expect(faults).toMatchObject([{ offset: 204_800 + 512, length: 512 }]);
    const right = Buffer.concat([bytes.subarray(1024, 52_224), bytes.subarray(102_400, 204_800 + 512)]);
    expect(taken.length).toBeLessThanOrEqual(right.length);
    expect(taken.equals(right.subarray(0, taken.length))).toBe(true);
  });

  test('whose MD5 differs is faulty though every block that is needed is right', async () => {
    const inFirstBlock = await unseal('none', (body) => {
      body[5] = (body[5] ?? 0) ^ 1;
      return body;
    });
    const otherMd5 = await unseal('zlib', (body) => body, bytes.length, '0'.repeat(32));
    for (const { faults } of [inFirstBlock, otherMd5]) {
      expect(faults).toMatchObject([{ length: null, reason: expect.stringContaining('MD5') }]);
    }
  });

  test.for(codecs)('that ends early, goes on after its end, or is too long is faulty (%s)', async (codec) => {
    const cut = await unseal(codec, (body) => body.subarray(0, body.length - 9));
    const junk = await unseal(codec, (body) => Buffer.concat([body, Buffer.from('junk')]));
    const long = await unseal(codec, (body) => body, 204_800);
    for (const { faults } of [cut, junk, long]) {
      expect(faults).toHaveLength(1);
      expect(faults[0]?.length === null || faults[0]?.length === 512).toBe(true);
    }
    expect(long.faults[0]?.reason).toContain('more than the 204800 bytes');
  });
});

function blockDigests(bytes: Buffer, blockSize: number): Buffer {
  const digests: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += blockSize) {
    digests.push(hash('sha256', bytes.subarray(at, at + blockSize), 'buffer'));
  }
  return Buffer.concat(digests);
}

function unused(): never {
  throw new Error('not asked for in a full backup');
}

describe('large volumes', () => {
  const tebibyte = 1024 ** 4;
  const { signal } = new AbortController();
  const reached = new BackupError('bug', 'the first block was asked for');

  /** A full backup of a volume of which only the plan is ever told. */
  async function plan(
    lengthBytes: number,
    told: Pick<StreamPlan, 'method' | 'data_bytes' | 'zero_bytes'>,
    objectBytes = 50 * mebibyte,
  ) {
    const source: BlockSource = {
      lengthBytes,
      blockSize: 32_768,
      async *delta() {
        await Promise.resolve();
        yield { kind: 'plan', plan: { ...told, reason: 'a test' } };
        throw reached;
      },
      digests: unused,
      blocks: unused,
    };
    const store = createFaultyStore(createMemoryStore());
    const failure = await createPipelineRun(store, sealer, 512 * mebibyte)
      .backup({ source, objectBytes })
      .catch((error: unknown) => error);
    expect(store.history.filter((call) => call.startsWith('put '))).toEqual([]);
    return failure;
  }

  test('of up to 25 TiB of data, and up to 50 TiB of zeros, are begun', async () => {
    const bytes = (data: number, zero: number) => ({
      method: 'allocation' as const,
      data_bytes: data * tebibyte,
      zero_bytes: zero * tebibyte,
    });
    expect(await plan(25 * tebibyte, bytes(25, 0))).toBe(reached);
    expect(await plan(49 * tebibyte, bytes(0.5, 48.5))).toBe(reached);
    expect(await plan(40 * tebibyte, { method: 'all', data_bytes: null, zero_bytes: null })).toBe(reached);
  });

  test('that need more objects are refused before the first byte, with what helps', async () => {
    const data = 26 * tebibyte;
    const full = { method: 'allocation', data_bytes: data, zero_bytes: 0 } as const;
    expect(await plan(data, full)).toMatchObject({
      code: 'limit-exceeded',
      message: expect.stringMatching(/1048576 objects, .*with cinder-backup/),
    });
    expect(await plan(data, full, 8 * mebibyte)).toMatchObject({
      code: 'limit-exceeded',
      message: expect.stringMatching(/raise the object size/),
    });
    const unknown = { method: 'all', data_bytes: null, zero_bytes: null } as const;
    expect(await plan(51 * tebibyte, unknown)).toMatchObject({ code: 'limit-exceeded' });
  });

  test('have zeros in objects larger than a slab, which verify checks without inflating them', async () => {
    const random = createRandom();
    const store = createMemoryStore();
    let inflated = 0;
    const counting: Sealer = {
      ...sealer,
      unsealStream(job) {
        inflated += 1;
        return sealer.unsealStream(job);
      },
    };
    const run = createPipelineRun(store, counting, 8 * mebibyte);
    const volume = createMemoryVolume(60 * mebibyte);
    volume.write([{ offset: 0, length: 4096 }]);
    const source = volume.source(volume.snapshot(), { blockSize: 4096 });
    const { layer } = await run.backup({ source, objectBytes: 50 * mebibyte });
    const lengths = Array.from(layer.metadata.objects, ({ length }) => length);
    expect(lengths).toEqual([4096, 50 * mebibyte, 10 * mebibyte - 4096]);
    expect(await run.verify(signal)).toMatchObject({ checkedBytes: 60 * mebibyte, badCount: 0 });
    expect(inflated).toBe(0);
    const target = createMemoryTarget(volume.bytes.length, random);
    await run.restore(target);
    expect(target.bytes.equals(volume.bytes)).toBe(true);
    const key = layer.metadata.objects.at(1)?.key ?? '';
    store.corrupt(testContainer, key, (bytes) => bytes.fill(9, 1000, 1001));
    expect((await run.verify(signal)).badRanges).toMatchObject([{ object: key }]);
  });
});
