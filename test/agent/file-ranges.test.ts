import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { findFileRanges } from '../../src/agent/file-ranges.ts';
import type { OpenRecord } from '../../src/agent/file-snapshots.ts';
import { stepFlags, type FileStep, type FileStepResult } from '../../src/agent/file-steps.ts';

const blockSize = 4096;
const lengthBytes = 100 * blockSize + 512;
const { signal } = new AbortController();

type Found = readonly (readonly [offset: number, length: number, flag: number])[];

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-ranges-'));
});
afterEach(() => rm(directory, { recursive: true }));

async function snapshot(name: string): Promise<OpenRecord> {
  const handle: FileHandle = await open(join(directory, name), 'wx');
  const record = {
    name,
    identity: `identity of ${name}`,
    volume: 'volume',
    volume_identity: 'identity of the volume',
    size_bytes: lengthBytes,
    created_at: '2026-01-01T00:00:00.000Z',
    method: 'reflink',
  } as const;
  return { handle, record };
}

/** The ranges between two snapshots, with `answer` in the place of the threads. */
async function find(answer: (step: FileStep) => Promise<Pick<FileStepResult, 'next'> & { found: Found }>) {
  const [previous, current] = [await snapshot('before'), await snapshot('now')];
  return await findFileRanges({
    threads: {
      threads: 2,
      pending: 0,
      warm: () => undefined,
      close: async () => undefined,
      async run(step) {
        const { next, found } = await answer(step);
        return { next, extents: Float64Array.from(found.flat()), readBytes: 0 };
      },
    },
    extentsWork: true,
    holesWork: true,
    request: {
      volume: 'volume',
      previous: 'before',
      previousIdentity: null,
      current: 'now',
      lengthBytes,
      blockSize,
      startOffset: 0,
      signal,
    },
    previous,
    current,
  });
}

describe('changed ranges by extents', () => {
  test('are told in order, and never two steps run at once', async () => {
    let running = 0;
    const ranges = await find(async (step) => {
      if (step.kind !== 'extents') throw new Error(`no ${step.kind}`);
      running += 1;
      expect(running).toBe(1);
      await new Promise((resolve) => setTimeout(resolve, 1));
      running -= 1;
      const next = Math.min(step.end, step.from + 25 * blockSize);
      return { next, found: [[step.from, blockSize, stepFlags.data]] };
    });
    const from = [0, 25, 50, 75, 100].map((block) => block * blockSize);
    expect(ranges.extents).toEqual(from.map((offset) => ({ kind: 'data', offset, length: blockSize })));
  });

  test('that addresses do not prove are compared by bytes, between those that are proven', async () => {
    const ranges = await find(async (step) => {
      if (step.kind === 'bytes') {
        expect([step.from, step.end]).toEqual([10 * blockSize, 12 * blockSize - 1]);
        return { next: step.end, found: [[10 * blockSize, 2 * blockSize, stepFlags.zero]] };
      }
      if (step.kind !== 'extents') throw new Error(`no ${step.kind}`);
      const found: Found = [
        [0, 512, stepFlags.data],
        [10 * blockSize + 1, 2 * blockSize - 2, stepFlags.unsure],
        [20 * blockSize, 512, stepFlags.zero],
      ];
      return { next: step.end, found };
    });
    expect(ranges.extents).toEqual([
      { kind: 'data', offset: 0, length: 512 },
      { kind: 'zero', offset: 10 * blockSize + 1, length: 2 * blockSize - 2 },
      { kind: 'zero', offset: 20 * blockSize, length: 512 },
    ]);
  });

  test('that cannot be had end in the error of their step, and no step is left running', async () => {
    let running = 0;
    const failing = find(async (step) => {
      running += 1;
      await new Promise((resolve) => setTimeout(resolve, 5));
      running -= 1;
      if (step.kind === 'extents' && step.from > 0) throw new Error('the map is damaged');
      return { next: blockSize, found: [] };
    });
    await expect(failing).rejects.toThrow('the map is damaged');
    expect(running).toBe(0);
  });
});
