import { describe, expect, test } from 'vitest';
import { findRbdRanges, type RbdDiffSource } from '../../src/agent/rbd-ranges.ts';
import type { RbdStep, RbdStepResult } from '../../src/agent/rbd-steps.ts';
import type { FindRequest } from '../../src/agent/volume-backend.ts';
import { BackupError } from '../../src/model/errors.ts';
import type { TypedExtent } from '../../src/model/extent.ts';

const objectBytes = 4096;
const objects = 10_000;
const lengthBytes = objects * objectBytes;

type Diff = RbdStep & { kind: 'diff' };

/** An image in which these objects differ. */
function imageOf(changed: readonly number[]) {
  const asked: Diff[] = [];
  const answer = (step: Diff): RbdStepResult => {
    asked.push(step);
    const inside = changed.filter((at) => at * objectBytes >= step.offset && at * objectBytes < step.end);
    return {
      kind: 'extents',
      extents: Float64Array.from(inside.flatMap((at) => [at * objectBytes, 512, 1])),
    };
  };
  const image: RbdDiffSource = {
    handle: 1n,
    facts: {
      imageId: 'abc',
      sizeBytes: lengthBytes,
      objectBytes,
      stripeCount: 1,
      snapshots: [],
    },
    run(kind, _thing, step) {
      if (step.kind !== 'diff') return Promise.reject(new Error(`step ${step.kind} is not expected`));
      const result = answer(step);
      if (isOf(result, kind)) return Promise.resolve(result);
      return Promise.reject(new Error(`a result of kind ${kind} is not expected`));
    },
  };
  return { image, asked };
}

function isOf<K extends RbdStepResult['kind']>(
  result: RbdStepResult,
  kind: K,
): result is Extract<RbdStepResult, { kind: K }> {
  return result.kind === kind;
}

async function find(
  image: RbdDiffSource,
  given: Partial<FindRequest> = {},
  confirm = () => Promise.resolve(),
) {
  let closed = 0;
  const request: FindRequest = {
    volume: 'volume-x',
    previous: 'before',
    previousIdentity: null,
    current: 'now',
    lengthBytes,
    blockSize: 512,
    startOffset: 0,
    signal: new AbortController().signal,
    ...given,
  };
  const close = () => {
    closed += 1;
    return Promise.resolve();
  };
  const previousBytes = request.previous === null ? null : lengthBytes;
  const found = await findRbdRanges({ image, request, previousBytes, confirm, close });
  const extents: TypedExtent[] = [];
  for await (const extent of found.extents) extents.push(extent);
  await found.close();
  expect(closed).toBeGreaterThan(0);
  return { extents, reason: found.reason };
}

const at = (object: number) => ({ kind: 'data', offset: object * objectBytes, length: 512 });

describe('changed ranges of an image', () => {
  const changed = [3, 4, 700, 9999];

  test('are found by comparing all objects, each once, and the reason says how many', async () => {
    const { image, asked } = imageOf(changed);
    const { extents, reason } = await find(image);
    expect(extents).toEqual(changed.map(at));
    expect(reason).toMatch(/compared all 10000 objects/);
    expect(asked.reduce((sum, { offset, end }) => sum + end - offset, 0)).toBe(lengthBytes);
  });

  test('begin at the start offset', async () => {
    const { image, asked } = imageOf(changed);
    expect((await find(image, { startOffset: 700 * objectBytes })).extents).toEqual([at(700), at(9999)]);
    expect(asked.every(({ offset }) => offset >= 700 * objectBytes)).toBe(true);
  });

  test('are not believed when a snapshot has gone meanwhile', async () => {
    const { image } = imageOf(changed);
    const gone = new BackupError('delta-unavailable', 'gone');
    await expect(find(image, {}, () => Promise.reject(gone))).rejects.toBe(gone);
  });
});

test('allocated ranges and the zeros between them tile the image', async () => {
  const { image } = imageOf([1, 2, 9999]);
  const { extents } = await find(image, { previous: null });
  let end = 0;
  for (const { offset, length } of extents) {
    expect(offset).toBe(end);
    end += length;
  }
  expect(end).toBe(lengthBytes);
  expect(extents.filter(({ kind }) => kind === 'data')).toEqual([1, 2, 9999].map(at));
});
