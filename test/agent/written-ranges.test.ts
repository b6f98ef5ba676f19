import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createWrittenRanges } from '../../src/agent/written-ranges.ts';

describe('written ranges', () => {
  test('refuse exactly what a bitmap says was written before', () => {
    const range = fc.record({ offset: fc.nat(60), length: fc.integer({ min: 1, max: 12 }) });
    fc.assert(
      fc.property(fc.array(range, { maxLength: 40 }), (ranges) => {
        const written = createWrittenRanges();
        const bitmap = new Set<number>();
        for (const { offset, length } of ranges) {
          const bytes = Array.from({ length }, (_, at) => offset + at);
          const overlaps = bytes.some((at) => bitmap.has(at));
          const add = () => written.add(offset, length);
          if (overlaps) expect(add).toThrow(/overlap/);
          else {
            add();
            for (const at of bytes) bitmap.add(at);
          }
          const runs = [...bitmap].filter((at) => !bitmap.has(at - 1)).length;
          expect(written.count).toBe(runs);
        }
      }),
      { numRuns: 500 },
    );
  });
});
