/** The state of a file that a later write is sure to change. */
import type { BigIntStats } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../model/clock.ts';

/** Writes are stamped with the time of the kernel's last tick, of 10 ms at most: two in one tick look alike. */
export const settledMs = 20;

/** `stat` of the file, waited for until its last write is older than a tick, or until another one shows that it is in use. */
export async function settledStat(handle: FileHandle): Promise<BigIntStats> {
  const stats = await handle.stat({ bigint: true });
  const ageMs = systemClock.now().getTime() - Number(stats.mtimeMs);
  if (ageMs < 0 || ageMs > settledMs) return stats;
  await sleep(settledMs - ageMs + 1);
  return await handle.stat({ bigint: true });
}
