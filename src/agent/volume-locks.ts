/** One lock for each volume, as long as somebody has it or waits for it. */
import { createBudget, withLimit, type Budget } from '../async/limit.ts';

/** Has `work` done while nobody else does any on the volume: first come, first served. Throws the signal's reason if it aborts in a wait. */
export type VolumeLocks = <T>(volume: string, work: () => Promise<T>, signal?: AbortSignal) => Promise<T>;

export function createVolumeLocks(): VolumeLocks {
  const locks = new Map<string, Budget>();
  return async (volume, work, signal) => {
    const lock = locks.get(volume) ?? createBudget(1);
    locks.set(volume, lock);
    try {
      return await withLimit(lock, work, signal);
    } finally {
      if (lock.held === 0) locks.delete(volume);
    }
  };
}
