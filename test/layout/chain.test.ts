import { describe, expect, test } from 'vitest';
import { chainLengthBytes, planRestore, requireChainOrder } from '../../src/layout/chain.ts';
import type { MetadataDocument, ObjectEntry } from '../../src/layout/metadata-document.ts';
import { objectKey } from '../../src/layout/names.ts';
import { createRandom } from '../support/random-volume.ts';

const blockSize = 512;

/** A layer whose objects are [offset, length] in blocks, sorted by offset; numbers follow `order` if given. */
function layer(
  id: string,
  parentId: string | null,
  extents: readonly (readonly [number, number])[],
  order?: readonly number[],
): MetadataDocument {
  const objects: ObjectEntry[] = extents.map(([offset, length], at) => ({
    key: objectKey(id, order?.[at] ?? at + 1),
    offset: offset * blockSize,
    length: length * blockSize,
    md5: 'ab'.repeat(16),
    codec: 'none',
  }));
  return {
    backupId: id,
    volumeId: 'v',
    backupName: null,
    backupDescription: null,
    createdAt: '',
    parentId,
    objects,
    volumeMeta: null,
    extraMetadata: null,
    delta: null,
  };
}

/** The plan as [layer, key, [offset, length] in blocks...]. */
function plan(layers: readonly MetadataDocument[], blocks: number): unknown[] {
  return Array.from(planRestore(layers, blocks * blockSize, blockSize), ({ layer: at, entry, segments }) => [
    at,
    entry.key,
    ...segments.map(({ offset, length }) => [offset / blockSize, length / blockSize]),
  ]);
}

describe('planRestore', () => {
  test('takes a full backup as it is', () => {
    expect(
      plan(
        [
          layer('a', null, [
            [0, 4],
            [4, 4],
          ]),
        ],
        8,
      ),
    ).toEqual([
      [0, 'a-00001', [0, 4]],
      [0, 'a-00002', [4, 4]],
    ]);
  });

  test('lets the newest layer win and leaves the old object its rest, in several segments', () => {
    const chain = [
      layer('a', null, [[0, 10]]),
      layer('b', 'a', [
        [2, 2],
        [6, 1],
      ]),
      layer('c', 'b', [[3, 1]]),
    ];
    expect(plan(chain, 10)).toEqual([
      [0, 'a-00001', [0, 2], [4, 2], [7, 3]],
      [1, 'b-00001', [2, 1]],
      [2, 'c-00001', [3, 1]],
      [1, 'b-00002', [6, 1]],
    ]);
  });

  test('leaves out objects that are hidden altogether', () => {
    const chain = [
      layer('a', null, [
        [0, 4],
        [4, 4],
      ]),
      layer('b', 'a', [[3, 5]]),
    ];
    expect(plan(chain, 8)).toEqual([
      [0, 'a-00001', [0, 3]],
      [1, 'b-00001', [3, 5]],
    ]);
  });

  test('lets the later name win where objects of one layer overlap', () => {
    expect(
      plan(
        [
          layer('a', null, [
            [0, 6],
            [2, 6],
          ]),
        ],
        8,
      ),
    ).toEqual([
      [0, 'a-00001', [0, 2]],
      [0, 'a-00002', [2, 6]],
    ]);
    expect(
      plan(
        [
          layer(
            'a',
            null,
            [
              [0, 8],
              [2, 2],
            ],
            [99999, 100000],
          ),
        ],
        8,
      ),
    ).toEqual([
      [0, 'a-99999', [0, 2], [4, 4]],
      [0, 'a-100000', [2, 2]],
    ]);
  });

  test('covers a volume that grew, with a short last block', () => {
    const chain = [layer('a', null, [[0, 4]]), layer('b', 'a', [[4, 3.5]])];
    expect(plan(chain, 7.5)).toEqual([
      [0, 'a-00001', [0, 4]],
      [1, 'b-00001', [4, 3.5]],
    ]);
  });

  test('is empty for a volume of no bytes', () => {
    expect(plan([layer('a', null, [])], 0)).toEqual([]);
  });

  test('names the range that no object holds', () => {
    const cases: readonly (readonly (readonly [number, number])[])[] = [
      [],
      [[1, 7]],
      [[0, 7]],
      [
        [0, 3],
        [4, 4],
      ],
    ];
    for (const extents of cases) {
      expect(() => plan([layer('a', null, extents)], 8)).toThrow(
        expect.objectContaining({ code: 'chain-broken', message: expect.stringMatching(/bytes \d+ to \d+/) }),
      );
    }
    expect(() =>
      plan(
        [
          layer('a', null, [
            [0, 3],
            [5, 3],
          ]),
        ],
        8,
      ),
    ).toThrow(/bytes 1536 to 2559/);
  });

  test('refuses an object past the end of the volume, off the blocks, or ending inside one', () => {
    expect(() => plan([layer('a', null, [[0, 9]])], 8)).toThrow(expect.objectContaining({ code: 'corrupt' }));
    expect(() => plan([layer('a', null, [[0, 8]]), layer('b', 'a', [[1.5, 1]])], 8)).toThrow(
      expect.objectContaining({ code: 'corrupt', message: expect.stringContaining('b-00001') }),
    );
    expect(() => plan([layer('a', null, [[0, 8]]), layer('b', 'a', [[1, 1.5]])], 8)).toThrow(
      expect.objectContaining({ code: 'corrupt', message: expect.stringContaining('b-00001') }),
    );
  });

  test('gives every block to the newest layer that has it, for random chains, each block once', () => {
    const random = createRandom();
    for (let round = 0; round < 150; round += 1) {
      const blocks = random.between(1, 300);
      const owner = Array.from({ length: blocks }, () => '');
      const chain = Array.from({ length: random.between(1, 12) }, (_, at) => {
        const extents: [number, number][] = [];
        for (let block = at === 0 ? 0 : random.between(0, 30); block < blocks;) {
          const count = random.between(1, Math.min(40, blocks - block));
          extents.push([block, count]);
          block += count + (at === 0 ? 0 : random.between(0, 60));
        }
        const made = layer(`l${at}`, null, extents);
        for (const [n, [first, count]] of extents.entries()) {
          owner.fill(made.objects.at(n)?.key ?? '', first, first + count);
        }
        return made;
      });
      const given = Array.from({ length: blocks }, () => '');
      let previousFirst = -1;
      for (const { entry, segments } of planRestore(chain, blocks * blockSize, blockSize)) {
        expect(segments[0]?.offset).toBeGreaterThan(previousFirst);
        previousFirst = segments[0]?.offset ?? 0;
        for (const { offset, length } of segments) {
          for (let block = offset / blockSize; block < (offset + length) / blockSize; block += 1) {
            expect(given[block]).toBe('');
            given[block] = entry.key;
          }
        }
      }
      expect(given).toEqual(owner);
    }
  });

  test('can be iterated again, and counts its objects and segments', () => {
    const restore = planRestore(
      [layer('a', null, [[0, 9]]), layer('b', 'a', [[4, 1]])],
      9 * blockSize,
      blockSize,
    );
    expect([restore.objectCount, restore.segmentCount]).toEqual([2, 3]);
    expect([...restore]).toEqual([...restore]);
  });
});

describe('requireChainOrder', () => {
  test('accepts a full backup and its increments', () => {
    expect(() =>
      requireChainOrder([layer('a', null, []), layer('b', 'a', []), layer('c', 'b', [])]),
    ).not.toThrow();
  });

  const bad: readonly [string, readonly MetadataDocument[]][] = [
    ['an empty chain', []],
    ['a chain without its full backup', [layer('b', 'a', []), layer('c', 'b', [])]],
    ['a chain with a layer missing', [layer('a', null, []), layer('c', 'b', [])]],
    ['a chain the wrong way round', [layer('a', null, []), layer('c', 'b', []), layer('b', 'a', [])]],
    ['a second full backup', [layer('a', null, []), layer('b', null, [])]],
    ['another volume', [layer('a', null, []), { ...layer('b', 'a', []), volumeId: 'other' }]],
  ];
  for (const [what, chain] of bad) {
    test(`refuses ${what}`, () => {
      expect(() => requireChainOrder(chain)).toThrow(expect.objectContaining({ code: 'chain-broken' }));
    });
  }
});

describe('chainLengthBytes', () => {
  test('is what the newest layer recorded', () => {
    const delta = {
      mode: 'full',
      reason: '',
      lengthBytes: 12345,
      blockSize,
      base: null,
      readBytes: 0,
      storedBytes: 0,
    } as const;
    expect(chainLengthBytes([layer('a', null, [[0, 4]]), { ...layer('b', 'a', []), delta }])).toBe(12345);
  });

  test('is the last byte of the chain for layers of Python', () => {
    expect(
      chainLengthBytes([
        layer('a', null, [
          [0, 4],
          [4, 2],
        ]),
        layer('b', 'a', [[1, 1]]),
      ]),
    ).toBe(6 * blockSize);
  });
});
