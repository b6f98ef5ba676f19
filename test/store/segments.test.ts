import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { cutIntoSegments } from '../../src/store/segments.ts';
import { inRecycledPieces, patternBytes } from '../support/pattern.ts';

const live = new AbortController().signal;

async function cut(bytes: Buffer, pieceBytes: number, segmentBytes: number) {
  const segments: Buffer[] = [];
  const last: boolean[] = [];
  for await (const segment of cutIntoSegments(inRecycledPieces(bytes, pieceBytes), segmentBytes, live)) {
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
        async (size, piece, segment) => {
          const bytes = patternBytes(size, 1);
          const { segments, last } = await cut(bytes, Math.max(piece, Math.ceil(size / 50), 1), segment);
          expect(Buffer.concat(segments).equals(bytes)).toBe(true);
          expect(segments.slice(0, -1).every(({ length }) => length === segment)).toBe(true);
          expect(last).toEqual(segments.map((_, at) => at === segments.length - 1));
          expect(segments.at(-1)?.length === 0).toBe(size === 0);
        },
      ),
      { numRuns: 40 },
    );
  });

  test('that is empty is one empty last segment', async () => {
    expect(await cut(Buffer.alloc(0), 10, 100)).toEqual({ segments: [Buffer.alloc(0)], last: [true] });
  });

  test('stops between two pieces when the signal aborts', async () => {
    const controller = new AbortController();
    async function* body(): AsyncGenerator<Buffer> {
      yield patternBytes(10, 1);
      controller.abort(new Error('enough'));
      yield await Promise.resolve(patternBytes(10, 2));
    }
    const segments = cutIntoSegments(body(), 1000, controller.signal);
    await expect(segments.next()).rejects.toMatchObject({ code: 'cancelled' });
  });
});
