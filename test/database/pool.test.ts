import { expect, test } from 'vitest';
import { createPool } from '../../src/database/server/pool.ts';
import type { Wire } from '../../src/database/server/wire.ts';
import { BackupError } from '../../src/model/errors.ts';

type FakeWire = Wire & { isUsable: boolean; isClosed: boolean };

function rig(
  changes: {
    maxConnections?: number;
    maxIdleConnections?: number;
    waitMs?: number;
    recycleMs?: number;
  } = {},
) {
  const wires: FakeWire[] = [];
  const time = { ms: 0, refuse: false };
  const pool = createPool({
    server: 'db:3306',
    maxConnections: 2,
    maxIdleConnections: 2,
    waitMs: 20,
    recycleMs: 1000,
    clock: { now: () => new Date(time.ms) },
    ...changes,
    async open() {
      if (time.refuse) throw new BackupError('database-unavailable', 'refused');
      const wire: FakeWire = {
        isUsable: true,
        isClosed: false,
        run: () => Promise.resolve({ rows: [], affectedRows: 0 }),
        close() {
          wire.isClosed = true;
          return Promise.resolve();
        },
      };
      wires.push(wire);
      return await Promise.resolve(wire);
    },
  });
  return { pool, wires, time };
}

test('a connection that is given back is taken again', async () => {
  const { pool, wires } = rig();
  const first = await pool.take();
  pool.give(first);
  expect(await pool.take()).toBe(first);
  expect(wires).toHaveLength(1);
});

test('no more connections are open than allowed, and the next waits for one', async () => {
  const { pool, wires } = rig({ waitMs: 10_000 });
  const first = await pool.take();
  await pool.take();
  const third = pool.take();
  pool.give(first);
  expect(await third).toBe(first);
  expect(wires).toHaveLength(2);
});

test('of the connections that are given back only so many stay open', async () => {
  const { pool, wires } = rig({ maxConnections: 3, maxIdleConnections: 1 });
  const taken = [await pool.take(), await pool.take(), await pool.take()];
  for (const wire of taken) pool.give(wire);
  expect(wires.map(({ isClosed }) => isClosed)).toEqual([false, true, true]);
  expect(await pool.take()).toBe(taken[0]);
});

test('there may be any number of connections', async () => {
  const { pool, wires } = rig({ maxConnections: Infinity, maxIdleConnections: Infinity });
  const taken = [];
  for (let count = 0; count < 100; count += 1) taken.push(await pool.take());
  for (const wire of taken) pool.give(wire);
  expect(wires.filter(({ isClosed }) => isClosed)).toEqual([]);
});

test('who waits too long is told which option to raise', async () => {
  const { pool } = rig({ maxConnections: 1 });
  await pool.take();
  await expect(pool.take()).rejects.toMatchObject({
    code: 'database-unavailable',
    message: expect.stringContaining('max_pool_size or max_overflow'),
  });
});

test('a lost connection is not used again, whether it was lost in use or idle', async () => {
  const { pool, wires } = rig();
  const first = await pool.take();
  if (wires[0] !== undefined) wires[0].isUsable = false;
  pool.give(first);
  const second = await pool.take();
  expect(second).not.toBe(first);
  pool.give(second);
  if (wires[1] !== undefined) wires[1].isUsable = false;
  expect(await pool.take()).toBe(wires[2]);
  expect(wires.map(({ isClosed }) => isClosed)).toEqual([true, true, false]);
});

test('a connection older than its time is closed instead of being used again', async () => {
  const { pool, wires, time } = rig();
  pool.give(await pool.take());
  time.ms = 999;
  pool.give(await pool.take());
  expect(wires).toHaveLength(1);
  time.ms = 1000;
  pool.give(await pool.take());
  expect(wires.map(({ isClosed }) => isClosed)).toEqual([true, false]);
});

test('a connection may live for ever', async () => {
  const { pool, wires, time } = rig({ recycleMs: -1000 });
  pool.give(await pool.take());
  time.ms = 1e12;
  pool.give(await pool.take());
  expect(wires).toHaveLength(1);
});

test('a connection that cannot be opened takes no place', async () => {
  const { pool, time } = rig({ maxConnections: 1 });
  time.refuse = true;
  for (let tries = 0; tries < 3; tries += 1) await expect(pool.take()).rejects.toThrow('refused');
  time.refuse = false;
  await pool.take();
});

test('a connection that is given back twice does not make room for two', async () => {
  const { pool } = rig({ maxConnections: 1 });
  const wire = await pool.take();
  pool.give(wire);
  pool.give(wire);
  await pool.take();
  await expect(pool.take()).rejects.toMatchObject({ code: 'database-unavailable' });
});

test('closing closes what is idle, and what is in use when it comes back', async () => {
  const { pool, wires } = rig();
  const [used, idle] = [await pool.take(), await pool.take()];
  pool.give(idle);
  await pool.close();
  expect(wires.map(({ isClosed }) => isClosed)).toEqual([false, true]);
  pool.give(used);
  expect(wires.map(({ isClosed }) => isClosed)).toEqual([true, true]);
  await expect(pool.take()).rejects.toMatchObject({ code: 'database-unavailable' });
});
