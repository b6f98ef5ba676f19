import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  diffExtentMaps,
  parseExtentMap,
  readExtentMap,
  sameMap,
  type ExtentMap,
  type MappedExtent,
} from '../../src/agent/extent-map.ts';
import { endOf } from '../../src/model/extent.ts';
import { fiemapCalls, type PhysicalExtent } from '../support/fiemap.ts';

const flags = {
  last: 1,
  unknown: 2,
  delalloc: 4,
  encoded: 8,
  notAligned: 0x100,
  inline: 0x200,
  unwritten: 0x800,
  shared: 0x2000,
};

function mapOf(extents: readonly PhysicalExtent[], end: number, maxExtents = 64, from = 0): ExtentMap {
  return readExtentMap(
    fiemapCalls(() => extents),
    3,
    from,
    end,
    maxExtents,
  );
}

describe('reading an extent map', () => {
  test('keeps where bytes lie, and leaves out what is not written', () => {
    const map = mapOf(
      [
        { logical: 0, physical: 40_960, length: 8192, flags: flags.shared },
        { logical: 8192, physical: 90_112, length: 4096, flags: flags.unwritten },
        { logical: 16_384, physical: 4096, length: 4096, flags: flags.last },
      ],
      65_536,
    );
    expect(map).toEqual({
      from: 0,
      until: 65_536,
      extents: [
        { offset: 0, end: 8192, shift: 40_960 },
        { offset: 16_384, end: 20_480, shift: -12_288 },
      ],
    });
  });

  test.each(['unknown', 'delalloc', 'encoded', 'notAligned', 'inline'] as const)(
    'does not trust the address of an extent that is %s',
    (flag) => {
      const map = mapOf(
        [{ logical: 0, physical: 40_960, length: 4096, flags: flags[flag] | flags.last }],
        4096,
      );
      expect(map.extents).toEqual([{ offset: 0, end: 4096, shift: null }]);
    },
  );

  test('does not trust an address of zero, nor one beyond 2^53', () => {
    const map = mapOf(
      [
        { logical: 4096, physical: 0, length: 4096, flags: 0 },
        { logical: 8192, physical: 2 ** 60, length: 4096, flags: flags.last },
      ],
      16_384,
    );
    expect(map.extents.map(({ shift }) => shift)).toEqual([null, null]);
  });

  test('ends where its page ends, and goes on from there', () => {
    const extents = Array.from({ length: 5 }, (_, i) => ({
      logical: i * 8192,
      physical: 2 ** 20 + i * 65_536,
      length: 4096,
      flags: i === 4 ? flags.last : 0,
    }));
    const first = mapOf(extents, 65_536, 2);
    expect([first.extents.length, first.until]).toEqual([2, 12_288]);
    const second = mapOf(extents, 65_536, 2, first.until);
    expect([second.extents.length, second.from, second.until]).toEqual([2, 12_288, 28_672]);
    const third = mapOf(extents, 65_536, 2, second.until);
    expect([third.extents.length, third.until]).toEqual([1, 65_536]);
  });

  test('cuts extents at both ends of what was asked for', () => {
    const extents = [{ logical: 0, physical: 2 ** 20, length: 65_536, flags: flags.last }];
    expect(mapOf(extents, 10_000, 8, 5000).extents).toEqual([{ offset: 5000, end: 10_000, shift: 2 ** 20 }]);
  });

  test('of an empty file is one hole', () => {
    const answer = Buffer.alloc(32 + 56);
    expect(parseExtentMap(answer, 0, 4096, 1)).toEqual({ extents: [], from: 0, until: 4096 });
  });
});

/** The map of such letters. */
function toMap(units: string): ExtentMap {
  const extents: MappedExtent[] = [];
  for (const { 0: run, index } of units.matchAll(/(.)\1*/g)) {
    if (run.startsWith('.')) continue;
    const shift = run.startsWith('?') ? null : run.startsWith('a') ? 100 : 2000;
    extents.push({ offset: index, end: index + run.length, shift });
  }
  return { extents, from: 0, until: units.length };
}

describe('comparing extent maps', () => {
  /** One letter for each unit: `.` hole, a letter the place it lies at, `?` an unproven place. */
  const files = fc
    .array(fc.constantFrom('.', 'a', 'b', '?'), { minLength: 24, maxLength: 24 })
    .map((units) => units.join(''));

  test('finds unit by unit what a bitmap finds', () => {
    fc.assert(
      fc.property(files, files, (previous, current) => {
        const found = Array.from({ length: current.length }, () => 'same');
        let end = 0;
        for (const extent of diffExtentMaps(toMap(previous), toMap(current))) {
          expect(extent.offset).toBeGreaterThanOrEqual(end);
          end = endOf(extent);
          for (let at = extent.offset; at < end; at += 1) found[at] = extent.kind;
        }
        const wanted = Array.from(current, (now, at) => {
          const old = previous[at];
          if (now === '.') return old === '.' ? 'same' : 'zero';
          if (old === '.') return 'data';
          if (now === '?' || old === '?') return 'unsure';
          return now === old ? 'same' : 'data';
        });
        expect(found).toEqual(wanted);
      }),
      { numRuns: 1000 },
    );
  });

  test('looks no further than both maps reach', () => {
    const previous: ExtentMap = { extents: [{ offset: 0, end: 10, shift: 5 }], from: 0, until: 10 };
    const current: ExtentMap = { extents: [{ offset: 0, end: 30, shift: 7 }], from: 0, until: 30 };
    expect(diffExtentMaps(previous, current)).toEqual([{ kind: 'data', offset: 0, length: 10 }]);
  });

  test('tells two maps apart by any field', () => {
    const map: ExtentMap = { extents: [{ offset: 0, end: 10, shift: 5 }], from: 0, until: 20 };
    expect(sameMap(map, structuredClone(map))).toBe(true);
    expect(sameMap(map, { ...map, until: 21 })).toBe(false);
    expect(sameMap(map, { ...map, extents: [] })).toBe(false);
    expect(sameMap(map, { ...map, extents: [{ offset: 0, end: 10, shift: 6 }] })).toBe(false);
    expect(sameMap(map, { ...map, extents: [{ offset: 0, end: 11, shift: 5 }] })).toBe(false);
  });
});
