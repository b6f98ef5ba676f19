import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createStepRunner, type FileStepResult } from '../../src/agent/file-steps.ts';
import { loadLinuxCalls } from '../../src/agent/linux-calls.ts';
import { fiemapCalls } from '../support/fiemap.ts';
import { patternBytes } from '../support/random-volume.ts';

const mebibyte = 1024 * 1024;
const real = await loadLinuxCalls();

function triples({ extents }: FileStepResult): number[][] {
  return Array.from({ length: extents.length / 3 }, (_, i) => [...extents.subarray(i * 3, i * 3 + 3)]);
}

function content(fd: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  readSync(fd, bytes, 0, length, 0);
  return bytes;
}

describe.each([
  ['with the calls of Linux', real],
  ['with what Node offers only', null],
])('file steps %s', (_title, calls) => {
  let directory: string;
  let fds: number[];
  const run = createStepRunner(calls);
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'cinder-delta-steps-'));
    fds = [];
  });
  afterEach(() => {
    for (const fd of fds) closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  const file = (sizeBytes: number, ...pieces: readonly (readonly [number, number, number])[]): number => {
    const fd = openSync(join(directory, `file-${fds.length}`), 'wx+');
    fds.push(fd);
    ftruncateSync(fd, sizeBytes);
    for (const [offset, length, generation] of pieces) {
      writeSync(fd, patternBytes(offset, length, generation), 0, length, offset);
    }
    return fd;
  };

  test('allocation tiles a range, and what it calls zeros is zeros', () => {
    const fd = file(4 * mebibyte, [mebibyte, 65_536, 1]);
    const found = triples(run({ kind: 'allocation', fd, from: 0, end: 4 * mebibyte }));
    let end = 0;
    for (const [offset = 0, length = 0, flag] of found) {
      expect(offset).toBe(end);
      end += length;
      const bytes = content(fd, 4 * mebibyte).subarray(offset, end);
      if (flag === 0) expect(bytes.equals(Buffer.alloc(length))).toBe(true);
    }
    expect(end).toBe(4 * mebibyte);
    expect(found.some(([, , flag]) => flag === 0)).toBe(calls !== null);
  });

  test('comparing bytes finds exactly the blocks that differ, and which became zeros', () => {
    const size = 2 * mebibyte + 700;
    const previousFd = file(size, [0, mebibyte, 1], [2 * mebibyte, 700, 1]);
    const currentFd = file(
      size,
      [0, mebibyte, 1],
      [8192, 512, 2],
      [1_572_864, 4096, 2],
      [2 * mebibyte, 700, 3],
    );
    writeSync(currentFd, Buffer.alloc(8192), 0, 8192, 65_536);
    const step = { kind: 'bytes', previousFd, currentFd, from: 0, end: size, blockSize: 4096 } as const;
    const result = run(step);
    expect(result.next).toBe(size);
    expect(triples(result)).toEqual([
      [8192, 4096, 1],
      [65_536, 8192, 0],
      [1_572_864, 4096, 1],
      [2 * mebibyte, 700, 1],
    ]);
  });

  test('comparing bytes stops after a bounded part and goes on from there', () => {
    const size = 40 * mebibyte;
    const previousFd = file(size, [0, size, 1]);
    const currentFd = file(size, [0, size, 1], [39 * mebibyte, 512, 2]);
    const changed: number[][] = [];
    let rounds = 0;
    for (let from = 0; from < size; rounds += 1) {
      const result = run({ kind: 'bytes', previousFd, currentFd, from, end: size, blockSize: 32_768 });
      changed.push(...triples(result));
      from = result.next;
    }
    expect(rounds).toBe(3);
    expect(changed).toEqual([[39 * mebibyte, 32_768, 1]]);
  });

  test('copying makes the same bytes and keeps zeros as holes', () => {
    const size = 20 * mebibyte + 33;
    const sourceFd = file(size, [512, 100_000, 1], [19 * mebibyte, mebibyte + 33, 2]);
    const targetFd = file(size);
    for (let from = 0; from < size;) {
      from = run({ kind: 'copy', sourceFd, targetFd, from, end: size }).next;
    }
    expect(content(targetFd, size).equals(content(sourceFd, size))).toBe(true);
  });

  test('zeroing makes exactly the range zeros', () => {
    const size = 20 * mebibyte;
    const fd = file(size, [0, size, 1]);
    for (let from = 1000; from < 18 * mebibyte + 7;) {
      from = run({ kind: 'zero', fd, from, end: 18 * mebibyte + 7 }).next;
    }
    const wanted = patternBytes(0, size, 1).fill(0, 1000, 18 * mebibyte + 7);
    expect(content(fd, size).equals(wanted)).toBe(true);
  });
});

function at(physical: number) {
  return { logical: 0, physical, length: 4096, flags: 1 };
}

describe('comparing physical extents', () => {
  test('maps again when the previous file was moved meanwhile', () => {
    let asked = 0;
    const places = [at(2 ** 20), at(2 ** 20), at(2 ** 30), at(2 ** 30), at(2 ** 20), at(2 ** 30)];
    const run = createStepRunner(fiemapCalls(() => [places[asked++] ?? at(1)]));
    const result = run({ kind: 'extents', previousFd: 3, currentFd: 4, from: 0, end: 4096 });
    expect(asked).toBe(6);
    expect(triples(result)).toEqual([[0, 4096, 1]]);
  });

  test('gives up on a file system that never rests', () => {
    let asked = 0;
    const run = createStepRunner(fiemapCalls(() => [at(2 ** 20 + (asked += 1) * 4096)]));
    expect(() => run({ kind: 'extents', previousFd: 3, currentFd: 4, from: 0, end: 4096 })).toThrow(
      expect.objectContaining({ code: 'delta-unavailable' }),
    );
  });

  test('goes through two maps of different granularity page by page', () => {
    const many = Array.from({ length: 3000 }, (_, i) => ({
      logical: i * 4096,
      physical: 2 ** 30 + i * 4096 + (i % 100 === 7 ? 2 ** 35 : 0),
      length: 4096,
      flags: i === 2999 ? 1 : 0,
    }));
    const one = [{ logical: 0, physical: 2 ** 30, length: 3000 * 4096, flags: 1 }];
    for (const [previous, current] of [
      [one, many],
      [many, one],
    ] as const) {
      const run = createStepRunner(fiemapCalls((fd) => (fd === 3 ? previous : current)));
      const changed: number[] = [];
      for (let from = 0; from < 3000 * 4096;) {
        const result = run({ kind: 'extents', previousFd: 3, currentFd: 4, from, end: 3000 * 4096 });
        for (const [offset = 0] of triples(result)) changed.push(offset / 4096);
        expect(result.next).toBeGreaterThan(from);
        from = result.next;
      }
      expect(changed).toEqual(Array.from({ length: 30 }, (_, i) => i * 100 + 7));
    }
  });
});
