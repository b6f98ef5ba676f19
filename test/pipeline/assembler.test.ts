import { describe, expect, test } from 'vitest';
import { digestBytes, zeroDigest } from '../../src/model/digest.ts';
import { maxObjects } from '../../src/layout/metadata.ts';
import { createAssembler, foldedZeroBytes, type Assembler } from '../../src/pipeline/assembler.ts';
import { patternBytes } from '../support/random-volume.ts';

const block = 4096;

type Piece = {
  readonly number: number;
  readonly offset: number;
  readonly length: number;
  readonly kind: 'data' | 'zero';
};

/** An assembler whose batches are copied out and checked: every object must hold what its place says, and its digests. */
function assemble(objectBlocks: number, slabBlocks: number, zeroBlocks = objectBlocks) {
  const pieces: Piece[] = [];
  const batches: number[] = [];
  let slabs = 0;
  const zeroAt = new Set<number>();
  const assembler: Assembler = createAssembler(
    {
      objectBytes: objectBlocks * block,
      zeroObjectBytes: zeroBlocks * block,
      slabBytes: slabBlocks * block,
      blockSize: block,
      remedy: 'do something',
    },
    {
      async takeSlab() {
        const memory = new SharedArrayBuffer(slabBlocks * block);
        slabs += 1;
        // A recycled slab is full of old bytes.
        const bytes = Buffer.from(memory).fill(0xee);
        return { memory, bytes, free: () => void (slabs -= 1) };
      },
      async sealBatch({ slab, objects, digests }) {
        batches.push(objects.length);
        let digestAt = 0;
        for (const { number, start, offset, length } of objects) {
          pieces.push({ number, offset, length, kind: 'data' });
          for (let at = 0; at < length; at += block, digestAt += digestBytes) {
            const bytes = slab.bytes.subarray(start + at, start + Math.min(length, at + block));
            const place = offset + at;
            const expected = zeroAt.has(place)
              ? Buffer.alloc(bytes.length)
              : patternBytes(place, bytes.length, 1);
            expect(bytes.equals(expected), `bytes at ${place}`).toBe(true);
            const digest = digests.subarray(digestAt, digestAt + digestBytes);
            expect(digest.equals(zeroAt.has(place) ? zeroDigest(bytes.length) : digestOf(place))).toBe(true);
          }
        }
        expect(digestAt).toBe(digests.length);
        slab.free();
      },
      async storeZeros({ number, offset, length }) {
        pieces.push({ number, offset, length, kind: 'zero' });
      },
    },
  );
  return {
    pieces,
    batches,
    slabs: () => slabs,
    requireRoom: (dataBlocks: number, zeroBlockCount: number) =>
      assembler.requireRoom(dataBlocks * block, zeroBlockCount * block),
    limitData: (blocks: number) => assembler.limitData(blocks * block),
    async data(firstBlock: number, blocks: number, lastBytes = block) {
      const length = (blocks - 1) * block + lastBytes;
      const offset = firstBlock * block;
      const digests = Buffer.concat(Array.from({ length: blocks }, (_, at) => digestOf(offset + at * block)));
      await assembler.data(offset, patternBytes(offset, length, 1), digests);
    },
    async zero(firstBlock: number, blocks: number) {
      for (let at = 0; at < blocks; at += 1) zeroAt.add((firstBlock + at) * block);
      await assembler.zero(firstBlock * block, blocks * block);
    },
    end: () => assembler.end(),
    abandon: () => assembler.abandon(),
  };
}

/** Not a real digest: 32 bytes that name a place. */
function digestOf(offset: number): Buffer {
  const digest = Buffer.alloc(digestBytes, 0x11);
  digest.writeUInt32LE(offset, 0);
  return digest;
}

function shown(pieces: readonly Piece[]): string[] {
  return pieces
    .toSorted((a, b) => a.number - b.number)
    .map(({ number, offset, length, kind }) => `${number}: ${offset / block}+${length / block} ${kind}`);
}

describe('data', () => {
  test('that adjoins becomes one object up to the object size', async () => {
    const scene = assemble(10, 16);
    for (let at = 0; at < 24; at += 3) await scene.data(at, 3);
    await scene.end();
    expect(shown(scene.pieces)).toEqual(['1: 0+10 data', '2: 10+10 data', '3: 20+4 data']);
    expect(scene.slabs()).toBe(0);
  });

  test('becomes smaller objects once it is limited, and never larger ones', async () => {
    const scene = assemble(10, 16);
    scene.limitData(3);
    await scene.data(0, 8);
    scene.limitData(40);
    await scene.data(8, 11);
    await scene.end();
    expect(shown(scene.pieces)).toEqual(['1: 0+3 data', '2: 3+3 data', '3: 6+10 data', '4: 16+3 data']);
  });

  test('behind a gap begins another object in the same slab', async () => {
    const scene = assemble(64, 4096);
    for (let at = 0; at < 100; at += 1) await scene.data(at * 3, 1);
    await scene.end();
    expect(scene.pieces).toHaveLength(100);
    expect(scene.batches).toEqual([100]);
  });

  test('that is scattered is handed on in parts, so that sealing begins before the slab is full', async () => {
    const scene = assemble(64, 4096);
    for (let at = 0; at < 2500; at += 1) await scene.data(at * 2, 1);
    await scene.end();
    expect(scene.batches).toEqual([...Array.from({ length: 9 }, () => 256), 196]);
  });

  test('may end with a short block', async () => {
    const scene = assemble(4, 4);
    await scene.data(0, 6, 100);
    await scene.end();
    expect(scene.pieces.map(({ length }) => length)).toEqual([4 * block, block + 100]);
  });
});

describe('zeros', () => {
  const folded = foldedZeroBytes / block;

  test('that are long become objects of their own, cut at the object size', async () => {
    const scene = assemble(600, 1200);
    await scene.data(0, 2);
    await scene.zero(2, 600);
    await scene.zero(602, 700);
    await scene.data(1302, 1);
    await scene.end();
    expect(shown(scene.pieces)).toEqual([
      '1: 0+2 data',
      '2: 2+600 zero',
      '3: 602+600 zero',
      '4: 1202+100 zero',
      '5: 1302+1 data',
    ]);
  });

  test('are cut at an object size of their own', async () => {
    const scene = assemble(600, 1200, 1500);
    await scene.zero(0, 3100);
    await scene.data(3100, 700);
    await scene.end();
    expect(shown(scene.pieces)).toEqual([
      '1: 0+1500 zero',
      '2: 1500+1500 zero',
      '3: 3000+100 zero',
      '4: 3100+600 data',
      '5: 3700+100 data',
    ]);
  });

  test('that are short are stored with the data they touch, on either side', async () => {
    const scene = assemble(5000, 10_000);
    await scene.zero(0, folded);
    await scene.data(folded, 1);
    await scene.zero(folded + 1, 3);
    await scene.data(folded + 4, 1);
    await scene.zero(folded + 5, 2);
    await scene.end();
    expect(shown(scene.pieces)).toEqual([`1: 0+${folded + 7} data`]);
  });

  test('that are short and touch no data are objects of their own', async () => {
    const scene = assemble(100, 200);
    await scene.data(0, 1);
    await scene.zero(5, 1);
    await scene.zero(8, 2);
    await scene.data(12, 1);
    await scene.end();
    expect(shown(scene.pieces)).toEqual(['1: 0+1 data', '2: 5+1 zero', '3: 8+2 zero', '4: 12+1 data']);
  });

  test('that are folded are cut where the object ends', async () => {
    const scene = assemble(4, 6);
    await scene.data(0, 3);
    await scene.zero(3, 7);
    await scene.data(10, 1);
    await scene.end();
    expect(shown(scene.pieces)).toEqual(['1: 0+4 data', '2: 4+4 data', '3: 8+3 data']);
  });
});

test('more objects than a backup may have are refused before there are any, with the remedy', () => {
  const scene = assemble(2, 4, 10);
  const refused = expect.objectContaining({
    code: 'limit-exceeded',
    message: expect.stringContaining('do something'),
  });
  scene.requireRoom(2 * (maxObjects - 3), 30);
  expect(() => scene.requireRoom(2 * maxObjects, 1)).toThrow(refused);
  expect(() => scene.requireRoom(0, 10 * maxObjects + 1)).toThrow(refused);
});

test('a slab that was being filled is freed when the work is abandoned', async () => {
  const scene = assemble(4, 6);
  await scene.data(0, 3);
  expect(scene.slabs()).toBe(1);
  scene.abandon();
  expect(scene.slabs()).toBe(0);
});
