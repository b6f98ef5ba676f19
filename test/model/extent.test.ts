import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  blockCount,
  createBlockWidener,
  endOf,
  fromOffset,
  requireInteger,
  splitExtents,
  toBlockExtents,
  totalLength,
  type TypedExtent,
} from '../../src/model/extent.ts';

/** Byte by byte: `d` data, `z` zeros, `.` not named. Small numbers, so that every edge meets every other. */
const maps = fc
  .array(fc.constantFrom('d', 'z', '.'), { minLength: 1, maxLength: 120 })
  .map((states) => states.join(''));
const blockSizes = fc.constantFrom(1, 2, 4, 8, 16);

function extentsOf(map: string): TypedExtent[] {
  const extents: TypedExtent[] = [];
  for (const { 0: run, index } of map.matchAll(/d+|z+/g)) {
    extents.push({ kind: run.startsWith('d') ? 'data' : 'zero', offset: index, length: run.length });
  }
  return extents;
}

function mapOf(extents: Iterable<TypedExtent>, length: number): string {
  const states = Array.from({ length }, () => '.');
  for (const { kind, offset, length: size } of extents) {
    for (let at = offset; at < offset + size; at += 1) {
      expect(states[at], `byte ${at} is inside the volume and named once`).toBe('.');
      states[at] = kind === 'data' ? 'd' : 'z';
    }
  }
  return states.join('');
}

/** A block is data if any byte of it is, or if only some are zeros; zeros if all are; else it is not named. */
function widened(map: string, blockSize: number): string {
  let out = '';
  for (let at = 0; at < map.length; at += blockSize) {
    const block = map.slice(at, at + blockSize);
    const state = /^z+$/.test(block) ? 'z' : /^\.+$/.test(block) ? '.' : 'd';
    out += state.repeat(block.length);
  }
  return out;
}

describe('toBlockExtents', () => {
  test('names the same blocks as a bitmap does', () => {
    fc.assert(
      fc.property(maps, blockSizes, (map, blockSize) => {
        const found = [...toBlockExtents(extentsOf(map), blockSize, map.length)];
        expect(mapOf(found, map.length)).toBe(widened(map, blockSize));
      }),
      { numRuns: 2000 },
    );
  });

  test('starts and ends on blocks, in order, with nothing left to join', () => {
    fc.assert(
      fc.property(maps, blockSizes, (map, blockSize) => {
        let before: TypedExtent | undefined;
        for (const extent of toBlockExtents(extentsOf(map), blockSize, map.length)) {
          expect(extent.offset % blockSize).toBe(0);
          if (endOf(extent) !== map.length) expect(endOf(extent) % blockSize).toBe(0);
          expect(extent.length).toBeGreaterThan(0);
          if (before !== undefined) {
            expect(extent.offset).toBeGreaterThanOrEqual(endOf(before));
            if (extent.offset === endOf(before)) expect(extent.kind).not.toBe(before.kind);
          }
          before = extent;
        }
      }),
    );
  });

  test('joins data over gaps of at most the merge gap, and never over zeros', () => {
    fc.assert(
      fc.property(maps, blockSizes, fc.nat(40), (map, blockSize, gap) => {
        const merged = mapOf(toBlockExtents(extentsOf(map), blockSize, map.length, gap), map.length);
        const wanted = widened(map, blockSize).replaceAll(/(?<=d)\.+(?=d)/g, (run) =>
          run.length <= gap ? 'd'.repeat(run.length) : run,
        );
        expect(merged).toBe(wanted);
      }),
      { numRuns: 2000 },
    );
  });

  test('cuts what reaches over the end', () => {
    const extents: TypedExtent[] = [
      { kind: 'data', offset: 10, length: 100 },
      { kind: 'zero', offset: 200, length: 5 },
    ];
    expect([...toBlockExtents(extents, 8, 60)]).toEqual([{ kind: 'data', offset: 8, length: 52 }]);
  });

  test('widens extents that are cut anywhere the same', () => {
    fc.assert(
      fc.property(maps, blockSizes, fc.integer({ min: 1, max: 7 }), (map, blockSize, piece) => {
        const whole = [...toBlockExtents(extentsOf(map), blockSize, map.length)];
        const cut = [...toBlockExtents(splitExtents(extentsOf(map), piece), blockSize, map.length)];
        for (const extent of whole.filter(({ kind }) => kind === 'data')) {
          expect(mapOf(cut, map.length).slice(extent.offset, endOf(extent))).toMatch(/^d+$/);
        }
        expect(mapOf(cut, map.length).replaceAll('z', 'd')).toBe(
          mapOf(whole, map.length).replaceAll('z', 'd'),
        );
      }),
    );
  });

  test('names the same blocks when long data is given away in parts, and holds no more than it may', () => {
    fc.assert(
      fc.property(maps, blockSizes, fc.nat(30), fc.nat(40), (map, blockSize, gap, hold) => {
        const whole = mapOf(toBlockExtents(extentsOf(map), blockSize, map.length, gap), map.length);
        const widener = createBlockWidener(blockSize, map.length, gap, hold);
        // Zeros stay whole: where they are cut inside a block, that block counts as data, and may join data behind a gap.
        const pieces = extentsOf(map).flatMap((extent) =>
          extent.kind === 'data' ? [...splitExtents([extent], 3)] : [extent],
        );
        const parts = pieces.flatMap((extent) => widener.push(extent));
        const last = widener.end();
        expect(mapOf([...parts, ...last], map.length).replaceAll('z', 'd')).toBe(whole.replaceAll('z', 'd'));
        const rest = last[0];
        if (rest?.kind === 'data') expect(rest.length).toBeLessThanOrEqual(hold + blockSize);
      }),
      { numRuns: 1000, examples: [['zzzz..d', 2, 2, 0]] },
    );
  });

  test('gives nothing away that a later extent may still change', () => {
    const widener = createBlockWidener(8, 64);
    expect(widener.push({ kind: 'data', offset: 1, length: 2 })).toEqual([]);
    expect(widener.push({ kind: 'data', offset: 6, length: 3 })).toEqual([]);
    expect(widener.push({ kind: 'data', offset: 40, length: 1 })).toEqual([
      { kind: 'data', offset: 0, length: 16 },
    ]);
    expect(widener.end()).toEqual([{ kind: 'data', offset: 40, length: 8 }]);
    expect(widener.end()).toEqual([]);
  });
});

describe('fromOffset', () => {
  test('keeps exactly the bytes from the offset on', () => {
    fc.assert(
      fc.property(maps, fc.nat(130), (map, start) => {
        const wanted = map.slice(start).padStart(map.length, '.');
        expect(mapOf(fromOffset(extentsOf(map), start), map.length)).toBe(wanted);
      }),
    );
  });
});

describe('splitExtents', () => {
  test('cuts into pieces of at most the given length without losing a byte', () => {
    fc.assert(
      fc.property(maps, fc.integer({ min: 1, max: 50 }), (map, limit) => {
        const pieces = [...splitExtents(extentsOf(map), limit)];
        expect(pieces.every(({ length }) => length > 0 && length <= limit)).toBe(true);
        expect(mapOf(pieces, map.length)).toBe(map);
        expect(totalLength(pieces)).toBe(map.replaceAll('.', '').length);
      }),
    );
  });
});

describe('blockCount', () => {
  test('counts a short last block', () => {
    expect([0, 1, 511, 512, 513, 2 ** 45].map((length) => blockCount(length, 512))).toEqual([
      0,
      1,
      1,
      1,
      2,
      2 ** 36,
    ]);
  });
});

describe('requireInteger', () => {
  test('refuses what is not a safe integer of at least the minimum', () => {
    expect(requireInteger('length', 7, 1)).toBe(7);
    for (const value of [-1, 0.5, NaN, Infinity, 2 ** 53]) {
      expect(() => requireInteger('length', value)).toThrow(/length is/);
    }
    expect(() => requireInteger('length', 0, 1)).toThrow(/at least 1/);
  });
});
