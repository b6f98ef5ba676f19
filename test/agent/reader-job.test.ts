import * as fc from 'fast-check';
import { hash } from 'node:crypto';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  createScratch,
  outputBytes,
  readFully,
  runReaderJob,
  type ReaderJob,
} from '../../src/agent/reader-job.ts';
import { blockCount } from '../../src/model/extent.ts';
import { createFrameDecoder, preamble } from '../../src/protocol/frames.ts';
import { patternBytes } from '../support/random-volume.ts';

const scratch = createScratch();

/** Runs a job with exactly the room that it claims, and decodes what it wrote. */
function read(
  frames: ReaderJob['frames'],
  fd: number,
  blockSize: number,
  extents: readonly (readonly [number, number, number])[],
) {
  const dataBytes = extents.reduce((sum, [, length, flag]) => sum + (flag === 1 ? length : 0), 0);
  const buffer = new SharedArrayBuffer(outputBytes(frames, dataBytes, extents.length, blockSize));
  const result = runReaderJob(
    { frames, handle: { kind: 'file', fd }, blockSize, extents: Float64Array.from(extents.flat()), buffer },
    (target, position) => readFully(fd, target, position),
    scratch,
  );
  const decoder = createFrameDecoder();
  const decoded = [];
  for (const piece of [preamble, Buffer.from(buffer, 0, result.usedBytes)]) {
    for (const { type, offset, length, digests, data } of decoder.push(piece)) {
      decoded.push({ type, offset, length, digests: Buffer.from(digests), data: Buffer.from(data) });
    }
  }
  expect(decoder.atBoundary).toBe(true);
  return { result, frames: decoded };
}

describe('reader job', () => {
  const blockSize = 512;
  const blocks = 64;
  let directory: string;
  let fd: number;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'cinder-delta-reader-'));
    fd = openSync(join(directory, 'file'), 'wx+');
  });
  afterAll(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  /** One letter for each block: `d` data, `z` written zeros. The last block is short by `short` bytes. */
  const prepare = (map: string, short: number): Buffer => {
    const image = patternBytes(0, map.length * blockSize, 1);
    for (const [block, state] of map.split('').entries()) {
      if (state === 'z') image.fill(0, block * blockSize, (block + 1) * blockSize);
    }
    const bytes = image.subarray(0, image.length - short);
    ftruncateSync(fd, 0);
    writeSync(fd, bytes, 0, bytes.length, 0);
    return bytes;
  };

  const layouts = fc.record({
    map: fc
      .array(fc.constantFrom('d', 'z'), { minLength: 1, maxLength: blocks })
      .map((states) => states.join('')),
    short: fc.nat(blockSize - 1),
    cuts: fc.uniqueArray(fc.integer({ min: 1, max: blocks - 1 }), { maxLength: 8 }),
    holes: fc.array(fc.boolean(), { minLength: 9, maxLength: 9 }),
  });

  /** Extents that tile the file, cut at `cuts`; those of zeros only are given as known zeros where `holes` says so. */
  const extentsOf = (
    { map, cuts, holes }: { map: string; cuts: number[]; holes: boolean[] },
    size: number,
  ) => {
    const ends = [...cuts.filter((cut) => cut < map.length).toSorted((a, b) => a - b), map.length];
    let start = 0;
    return ends.map((end, i) => {
      const offset = start * blockSize;
      const length = Math.min(end * blockSize, size) - offset;
      const zeros = /^z+$/.test(map.slice(start, end)) && holes[i] === true;
      start = end;
      return [offset, length, zeros ? 0 : 1] as const;
    });
  };

  test('gives data of every block that is not zero, with its digest, and joins zeros', () => {
    fc.assert(
      fc.property(layouts, (layout) => {
        const image = prepare(layout.map, layout.short);
        const extents = extentsOf(layout, image.length);
        const { frames, result } = read('blocks', fd, blockSize, extents);
        const out = Buffer.alloc(image.length, 0xee);
        let end = 0;
        let wasZero = false;
        for (const frame of frames) {
          expect(frame.offset).toBe(end);
          end += frame.length;
          if (frame.type === 'zero') {
            expect(wasZero, 'zeros are joined').toBe(false);
            out.fill(0, frame.offset, end);
          } else {
            expect(frame.type).toBe('data');
            expect(frame.digests.length / 32).toBe(blockCount(frame.length, blockSize));
            for (let at = 0; at < frame.length; at += blockSize) {
              const block = frame.data.subarray(at, at + blockSize);
              expect(block.equals(Buffer.alloc(block.length))).toBe(false);
              const digest = frame.digests.subarray((at / blockSize) * 32, (at / blockSize) * 32 + 32);
              expect(digest.equals(hash('sha256', block, 'buffer'))).toBe(true);
            }
            frame.data.copy(out, frame.offset);
          }
          wasZero = frame.type === 'zero';
        }
        expect(out.equals(image)).toBe(true);
        expect(result.dataBytes + result.zeroBytes).toBe(image.length);
        expect(result.readBytes).toBe(extents.reduce((sum, [, length, flag]) => sum + flag * length, 0));
      }),
      { numRuns: 300 },
    );
  });

  test('gives digests without the bytes', () => {
    fc.assert(
      fc.property(layouts, (layout) => {
        const image = prepare(layout.map, layout.short);
        const { frames, result } = read('digests', fd, blockSize, extentsOf(layout, image.length));
        let end = 0;
        for (const frame of frames) {
          expect(frame.offset).toBe(end);
          end += frame.length;
          const bytes = image.subarray(frame.offset, end);
          if (frame.type === 'zero') expect(bytes.equals(Buffer.alloc(bytes.length))).toBe(true);
          else {
            expect(frame.type).toBe('digests');
            const digests = [];
            for (let at = 0; at < bytes.length; at += blockSize) {
              digests.push(hash('sha256', bytes.subarray(at, at + blockSize), 'buffer'));
            }
            expect(frame.digests.equals(Buffer.concat(digests))).toBe(true);
          }
        }
        expect(end).toBe(image.length);
        expect(result.dataBytes + result.zeroBytes).toBe(image.length);
      }),
      { numRuns: 200 },
    );
  });

  test('reads only the blocks that are asked for, scattered as they are', () => {
    const image = prepare('d'.repeat(blocks), 0);
    const wanted = [1, 5, 6, 40].map((block) => [block * blockSize, blockSize, 1] as const);
    const { frames, result } = read('blocks', fd, blockSize, wanted);
    expect(frames.map(({ offset }) => offset)).toEqual(wanted.map(([offset]) => offset));
    for (const { offset, data } of frames)
      expect(data.equals(image.subarray(offset, offset + blockSize))).toBe(true);
    expect(result).toMatchObject({ dataBytes: 4 * blockSize, digests: 4, readBytes: 4 * blockSize });
  });

  test('calls a file corrupt that ends before its extents do', () => {
    prepare('dddd', 0);
    expect(() => read('blocks', fd, blockSize, [[0, 8 * blockSize, 1]])).toThrow(
      expect.objectContaining({ code: 'corrupt' }),
    );
  });
});
