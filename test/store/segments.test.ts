import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { cutIntoSegments, growingSegments } from '../../src/store/segments.ts';
import { s3Tuning } from '../../src/store/s3-options.ts';
import { swiftTuning } from '../../src/store/swift-options.ts';
import { inRecycledPieces, patternBytes } from '../support/pattern.ts';

const live = new AbortController().signal;

async function cut(bytes: Buffer, pieceBytes: number, sizeOf: (at: number) => number) {
  const segments: Buffer[] = [];
  const last: boolean[] = [];
  for await (const segment of cutIntoSegments(inRecycledPieces(bytes, pieceBytes), sizeOf, live)) {
    segments.push(Buffer.from(segment.bytes));
    last.push(segment.last);
  }
  return { segments, last };
}

describe('a stream cut into segments', () => {
  test('gives whole segments and a shorter last one, whatever the pieces', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(900_000),
        fc.integer({ min: 1, max: 400_000 }),
        fc.integer({ min: 1000, max: 500_000 }),
        fc.constantFrom(0, 1, 70_000),
        async (size, piece, segment, growth) => {
          const bytes = patternBytes(size, 1);
          const grown = (at: number) => segment + at * growth;
          const { segments, last } = await cut(bytes, Math.max(piece, Math.ceil(size / 50), 1), grown);
          expect(Buffer.concat(segments).equals(bytes)).toBe(true);
          expect(segments.slice(0, -1).every(({ length }, at) => length === grown(at))).toBe(true);
          expect(last).toEqual(segments.map((_, at) => at === segments.length - 1));
          expect(segments.at(-1)?.length === 0).toBe(size === 0);
        },
      ),
      { numRuns: 40 },
    );
  });

  test('that is empty is one empty last segment', async () => {
    expect(await cut(Buffer.alloc(0), 10, () => 100)).toEqual({ segments: [Buffer.alloc(0)], last: [true] });
  });

  test('stops between two pieces when the signal aborts', async () => {
    const controller = new AbortController();
    async function* body(): AsyncGenerator<Buffer> {
      yield patternBytes(10, 1);
      controller.abort(new Error('enough'));
      yield await Promise.resolve(patternBytes(10, 2));
    }
    const segments = cutIntoSegments(body(), () => 1000, controller.signal);
    await expect(segments.next()).rejects.toMatchObject({ code: 'cancelled' });
  });
});

const mebibyte = 2 ** 20;
const sizeOf = growingSegments(swiftTuning.segmentBytes);

/** The hash list of a volume in blocks of 32 KiB. */
function listBytes(volumeBytes: number): number {
  return (volumeBytes / 32_768) * 72;
}

function largest(volumeBytes: number): number {
  let at = 0;
  for (let room = sizeOf(0); room < listBytes(volumeBytes); room += sizeOf(at)) at += 1;
  return sizeOf(at);
}

describe('the segments of a hash list', () => {
  test('of 16 TiB are no more than every Swift allows', () => {
    const all = Array.from({ length: 1000 }, (_, at) => sizeOf(at));
    expect(all.reduce((sum, size) => sum + size, 0)).toBeGreaterThan(listBytes(2 ** 44) + mebibyte);
    expect(Math.max(...all)).toBe(68 * mebibyte);
  });

  test('are 8 MiB for 200 GiB, and at most 16 MiB for 1 TiB', () => {
    expect(largest(200 * 2 ** 30)).toBe(8 * mebibyte);
    expect(largest(2 ** 40)).toBe(16 * mebibyte);
  });

  test('are parts of one size in S3, of which 10 000 hold 16 TiB', () => {
    expect(10_000 * s3Tuning.partBytes).toBeGreaterThan(listBytes(2 ** 44) + mebibyte);
    expect(s3Tuning.partBytes).toBe(8 * mebibyte);
  });
});
