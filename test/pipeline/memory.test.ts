import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createBudget } from '../../src/async/limit.ts';
import { BackupError } from '../../src/model/errors.ts';
import { largestSlabBytes, memoryNeed } from '../../src/pipeline/memory.ts';
import { createSealer, type Sealer } from '../../src/pipeline/sealer.ts';
import { openSlabs } from '../../src/pipeline/slabs.ts';
import { cutCells } from '../../src/pipeline/unseal-pieces.ts';
import { createFaultyStore } from '../support/faulty-store.ts';
import { createMemoryStore } from '../support/memory-store.ts';
import { createMemoryTarget, createMemoryVolume } from '../support/memory-volume.ts';
import { createPipelineRun } from '../support/pipeline-run.ts';
import { createRandom } from '../support/random-volume.ts';

const mebibyte = 1024 * 1024;
let sealer: Sealer;

beforeAll(async () => {
  sealer = await createSealer({ threads: 2 });
});
afterAll(() => sealer.close());

describe('the formula', () => {
  test('under the default ceiling a slab is 25 MiB, and one operation takes less than a third of it', () => {
    const capacity = 512 * mebibyte;
    const need = memoryNeed('backup', capacity, { blockSize: 32_768, threads: 2, codec: 'zlib' });
    expect(need.slabBytes).toBe(largestSlabBytes);
    expect(need.leastBytes).toBe(8 * mebibyte + 2 * (25 * mebibyte + 800 * 32));
    expect(need.leastBytes + (need.mostSlabs - need.leastSlabs) * need.slabCost).toBeLessThan(capacity / 3);
  });

  test('under any ceiling that is accepted the least fits, and larger objects pass through a slab, with every block size', () => {
    for (const blockSize of [512, 4096, 32_768, 65_536, 131_071, mebibyte, 4 * mebibyte]) {
      for (let capacity = mebibyte / 4; capacity < 1024 * mebibyte; capacity *= 1.3) {
        for (const kind of ['backup', 'restore'] as const) {
          try {
            const need = memoryNeed(kind, Math.floor(capacity), { blockSize, threads: 4, codec: 'zstd' });
            expect(need.leastBytes).toBeLessThanOrEqual(capacity);
            expect(need.objectBytes % blockSize).toBe(0);
            expect(need.objectBytes).toBeGreaterThan(0);
            expect(need.slabBytes).toBeGreaterThanOrEqual(need.objectBytes);
            expect(need.slabCost).toBeGreaterThan(need.slabBytes);
            const { inCells, inBytes, outCells, outBytes, outStart } = cutCells(need.slabBytes, blockSize);
            expect(inBytes).toBeGreaterThan(0);
            expect(inCells * inBytes).toBeLessThanOrEqual(outStart);
            expect(outStart + outCells * outBytes).toBe(need.slabBytes);
          } catch (error) {
            expect(error).toMatchObject({ code: 'limit-exceeded' });
            expect(capacity).toBeLessThan(4 * blockSize + 2 * mebibyte);
          }
        }
      }
    }
  });

  test('a ceiling that is too low is refused with the least that would do', () => {
    expect(() => memoryNeed('backup', mebibyte, { blockSize: 4 * mebibyte, threads: 1 })).toThrow(/at least/);
  });
});

describe('slabs of an operation', () => {
  const need = memoryNeed('backup', 100 * mebibyte, { blockSize: 4096, threads: 2, codec: 'zlib' });
  const signal = new AbortController().signal;

  test('what is borrowed beyond the least goes back with each use, and all of it at the end', async () => {
    const budget = createBudget(100 * mebibyte);
    const slabs = await openSlabs(budget, sealer.shelf, need, ['volume', 'body'], signal);
    expect(budget.held).toBe(need.leastBytes);
    const taken = [];
    for (let count = 0; count < 3; count += 1) taken.push(await slabs.take('volume', signal));
    expect(budget.held).toBe(need.leastBytes + 2 * need.slabCost);
    for (const slab of taken) slab.free();
    expect(budget.held).toBe(need.leastBytes);
    slabs.close();
    expect(budget.held).toBe(0);
  });

  test('nothing is borrowed while another operation waits, and the own slab still comes', async () => {
    const budget = createBudget(need.leastBytes + need.slabCost);
    const slabs = await openSlabs(budget, sealer.shelf, need, ['volume', 'body'], signal);
    const first = await slabs.take('volume', signal);
    const borrowed = await slabs.take('volume', signal);
    const other = openSlabs(budget, sealer.shelf, need, ['volume', 'body'], signal);
    const waiting = slabs.take('volume', signal);
    borrowed.free();
    expect(budget.held).toBe(need.leastBytes);
    first.free();
    (await waiting).free();
    slabs.close();
    (await other).close();
    expect(budget.held).toBe(0);
    expect(budget.peak).toBeLessThanOrEqual(budget.capacity);
  });

  test('a wait for a slab ends when its signal aborts', async () => {
    const budget = createBudget(need.leastBytes);
    const slabs = await openSlabs(budget, sealer.shelf, need, ['volume', 'body'], signal);
    const slab = await slabs.take('body', signal);
    const controller = new AbortController();
    const waiting = slabs.take('body', controller.signal);
    controller.abort(new BackupError('cancelled', 'enough'));
    await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
    slab.free();
    (await slabs.take('body', signal)).free();
    slabs.close();
  });

  test('memory that the system does not give is an error with a remedy, and costs the budget nothing', async () => {
    const budget = createBudget(100 * mebibyte);
    let given = 0;
    const shelf = {
      take(bytes: number): SharedArrayBuffer {
        if (given === 2) throw new RangeError('could not allocate memory');
        given += 1;
        return new SharedArrayBuffer(bytes);
      },
      put: () => {
        given -= 1;
      },
    };
    const slabs = await openSlabs(budget, shelf, need, ['volume', 'body'], signal);
    const first = await slabs.take('volume', signal);
    const refusal = { code: 'limit-exceeded', message: expect.stringMatching(/LimitAS/) };
    await expect(slabs.take('volume', signal)).rejects.toMatchObject(refusal);
    expect(budget.held).toBe(need.leastBytes);
    const held = budget.held;
    await expect(openSlabs(budget, shelf, need, ['volume', 'body'], signal)).rejects.toMatchObject(refusal);
    expect(budget.held).toBe(held);
    first.free();
    slabs.close();
    expect([budget.held, given]).toEqual([0, 0]);
  });

  test('a slab that is still in use at the end is a bug', async () => {
    const slabs = await openSlabs(createBudget(need.leastBytes), sealer.shelf, need, ['volume'], signal);
    const slab = await slabs.take('volume', signal);
    expect(() => slabs.close()).toThrow(/slabs are in use/);
    slab.free();
    slabs.close();
  });
});

describe('operations under one ceiling', () => {
  test('a store that stalls holds back its operation and those that need its memory; all end when it goes on', async () => {
    const blockSize = 4096;
    const ceiling = 5 * mebibyte;
    const store = createFaultyStore(createMemoryStore());
    const first = createPipelineRun(store, sealer, ceiling);
    const volume = createMemoryVolume(6 * mebibyte);
    volume.write([{ offset: 0, length: 6 * mebibyte }]);
    const source = volume.source(volume.snapshot(), { blockSize });
    const holds = [store.hold('put'), store.hold('put'), store.hold('put'), store.hold('put')];
    const objectBytes = mebibyte;
    const running = (['zlib', 'none', 'zlib', 'none'] as const).map((codec) =>
      first.backup({ source, objectBytes, codec }),
    );
    await Promise.all(holds.slice(0, 2).map((hold) => hold.reached));
    expect(first.memory.held).toBeGreaterThan(ceiling / 2);
    expect(first.memory.held).toBeLessThanOrEqual(ceiling);
    expect(first.memory.waiting).toBeGreaterThan(0);
    for (const hold of holds) hold.open();
    await Promise.all(running);
    expect(first.memory.peak).toBeLessThanOrEqual(ceiling);
    expect(first.memory.held).toBe(0);
    const target = createMemoryTarget(volume.bytes.length, createRandom());
    await first.restore(target);
    expect(target.bytes.equals(volume.bytes)).toBe(true);
    expect(first.memory.peak).toBeLessThanOrEqual(ceiling);
  });
});
