import { mkdtemp, open, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { settledMs, settledStat } from '../../src/agent/settled-stat.ts';

async function openFile() {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-stat-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  const path = join(directory, 'volume');
  await writeFile(path, 'bytes');
  const handle = await open(path, 'r+');
  onTestFinished(() => handle.close());
  return { path, handle };
}

test('after a write in this tick the stamp is old enough for the next write to change it', async () => {
  const { handle } = await openFile();
  for (let round = 0; round < 20; round += 1) {
    await handle.write('x', 0);
    const before = await settledStat(handle);
    expect(Date.now() - Number(before.mtimeMs)).toBeGreaterThanOrEqual(settledMs);
    await handle.write('y', 0);
    expect((await handle.stat({ bigint: true })).mtimeNs).not.toBe(before.mtimeNs);
  }
});

test('a file that was not written lately is not waited for', async () => {
  const { path, handle } = await openFile();
  await utimes(path, 1000, 1000);
  const begin = performance.now();
  for (let round = 0; round < 20; round += 1) await settledStat(handle);
  expect(performance.now() - begin).toBeLessThan(20 * settledMs);
});
