import { expect, test } from 'vitest';
import { createBudget } from '../../src/async/limit.ts';
import { bytesPerObject } from '../../src/layout/chain.ts';
import { divideMemory, mostObjects, reserveObjects } from '../../src/pipeline/object-room.ts';

const { signal } = new AbortController();
const roomFor = (objects: number) => createBudget(objects * bytesPerObject);

test('a ceiling is divided into buffers and lists, and nothing is counted twice', () => {
  const { buffers, objectLists } = divideMemory(512 * 1024 * 1024);
  expect(buffers.capacity + objectLists.capacity).toBe(512 * 1024 * 1024);
  expect(mostObjects(objectLists)).toBe(2 ** 20);
});

test('a chain with more objects than there will ever be room for is refused at once, with the remedy', async () => {
  const reserving = reserveObjects(roomFor(1000), 18_000_000, signal);
  await expect(reserving).rejects.toMatchObject({
    code: 'limit-exceeded',
    message: expect.stringMatching(/18000000 objects.*--memory-mib 8790 .*full/),
  });
});

test('the objects of a chain count until they are released', async () => {
  const lists = roomFor(5000);
  const first = await reserveObjects(lists, 3000, signal);
  for (let object = 0; object < 3000; object += 1) first.take();
  expect(lists.held).toBe(3000 * bytesPerObject);
  const second = reserveObjects(lists, 3000, signal);
  expect(lists.waiting).toBe(1);
  first.release();
  first.release();
  (await second).release();
  expect(lists.held).toBe(0);
});

test('objects beyond those of the rows are counted too, and refused where there is no room', async () => {
  const lists = roomFor(3000);
  const room = await reserveObjects(lists, 10, signal);
  for (let object = 0; object < 1034; object += 1) room.take();
  expect(lists.held).toBe(1034 * bytesPerObject);
  expect(() => {
    for (let object = 0; object < 3000; object += 1) room.take();
  }).toThrow(expect.objectContaining({ code: 'limit-exceeded' }));
  room.release();
  expect(lists.held).toBe(0);
});

test('waiting for room ends with its signal', async () => {
  const lists = roomFor(10);
  const room = await reserveObjects(lists, 10, signal);
  const stop = new AbortController();
  const waiting = reserveObjects(lists, 5, stop.signal);
  stop.abort(new Error('stopped'));
  await expect(waiting).rejects.toThrow('stopped');
  room.release();
});
