/**
 * Connections to one server: at once as many as [database] max_pool_size and max_overflow allow together, of which
 * max_pool_size stay open. The newest idle one is taken first; one that is lost or older than connection_recycle_time is closed
 * instead of being used again.
 */
import { createBudget } from '../../async/limit.ts';
import type { Clock } from '../../model/clock.ts';
import { BackupError } from '../../model/errors.ts';
import type { OpenWire, Wire } from './wire.ts';

export type Pool = {
  /** Waits for a connection; `database-unavailable` if none becomes free in time, or as OpenWire. */
  take(): Promise<Wire>;
  /** Gives back what `take` gave, once. */
  give(wire: Wire): void;
  /** Closes what is idle now, and each other connection when it is given back. */
  close(): Promise<void>;
};

export function createPool(options: {
  /** Names the server in sentences. */
  readonly server: string;
  readonly open: OpenWire;
  readonly maxConnections: number;
  /** At least 1. */
  readonly maxIdleConnections: number;
  readonly waitMs: number;
  /** Negative: for ever. */
  readonly recycleMs: number;
  readonly clock: Clock;
}): Pool {
  const { server, open, maxConnections, maxIdleConnections, waitMs, recycleMs, clock } = options;
  const slots = createBudget(maxConnections);
  const idle: Wire[] = [];
  const taken = new Map<Wire, () => void>();
  const openedAt = new WeakMap<Wire, number>();
  const closings = new Set<Promise<void>>();
  let isClosed = false;

  const dismiss = (wire: Wire) => {
    const closing = wire.close().finally(() => closings.delete(closing));
    closings.add(closing);
  };
  const isFresh = (wire: Wire) => {
    const age = clock.now().getTime() - (openedAt.get(wire) ?? 0);
    return wire.isUsable && (recycleMs < 0 || age < recycleMs);
  };
  const waitForSlot = async () => {
    try {
      return await slots.acquire(1, AbortSignal.timeout(waitMs));
    } catch (cause) {
      throw new BackupError(
        'database-unavailable',
        `none of ${maxConnections} connections to ${server} became free within ${waitMs / 1000} s: raise [database] max_pool_size or max_overflow`,
        { cause },
      );
    }
  };
  const takeIdle = () => {
    for (let wire = idle.pop(); wire !== undefined; wire = idle.pop()) {
      if (isFresh(wire)) return wire;
      dismiss(wire);
    }
    return undefined;
  };

  return {
    async take() {
      const release = await waitForSlot();
      try {
        if (isClosed) throw new BackupError('database-unavailable', `the connection to ${server} is closed`);
        const known = takeIdle();
        const wire = known ?? (await open());
        if (known === undefined) openedAt.set(wire, clock.now().getTime());
        taken.set(wire, release);
        return wire;
      } catch (error) {
        release();
        throw error;
      }
    },
    give(wire) {
      const release = taken.get(wire);
      if (release === undefined) return;
      taken.delete(wire);
      if (isClosed || !isFresh(wire) || idle.length >= maxIdleConnections) dismiss(wire);
      else idle.push(wire);
      release();
    },
    async close() {
      isClosed = true;
      for (const wire of idle.splice(0)) dismiss(wire);
      await Promise.all(closings);
    },
  };
}
