/** The slabs of one operation: its least belongs to it, each one more is borrowed from the common budget for one use. See memory.ts. */
import type { Budget } from '../async/limit.ts';
import { BackupError, cancelledBy, invariant } from '../model/errors.ts';
import type { MemoryNeed } from './memory.ts';
import type { SlabShelf } from './sealer.ts';

/** `volume` holds volume bytes, `body` stored bytes. Each use has slabs of its own, so that neither can starve the other. */
export type SlabUse = 'volume' | 'body';

export type Slab = {
  readonly memory: SharedArrayBuffer;
  readonly bytes: Buffer;
  /** Gives it back; may be called twice. */
  free(): void;
};

export type Slabs = {
  /** Waits for a slab. Rejects with the signal's reason. */
  take(use: SlabUse, signal: AbortSignal): Promise<Slab>;
  /** Gives everything back to the budget; every slab has been freed before. */
  close(): void;
};

/** `release` is null for a slab that belongs to the operation's least. */
type Held = { readonly memory: SharedArrayBuffer; readonly release: (() => void) | null };

/**
 * Waits until the budget has the operation's least. `uses` says which uses it has: one slab of each belongs to it until it closes.
 */
export async function openSlabs(
  budget: Budget,
  shelf: SlabShelf,
  need: MemoryNeed,
  uses: readonly SlabUse[],
  signal: AbortSignal,
): Promise<Slabs> {
  const releaseLeast = await budget.acquire(need.leastBytes, signal);
  const idle = new Map<SlabUse, Held[]>();
  const count = new Map<SlabUse, number>();
  const waiting = new Map<SlabUse, ((held: Held) => void)[]>();
  const most = Math.floor(need.mostSlabs / uses.length);
  const undo = () => {
    for (const held of [...idle.values()].flat()) shelf.put(held.memory);
    releaseLeast();
  };
  for (const use of uses) {
    idle.set(use, [{ memory: takeOrUndo(shelf, need, undo), release: null }]);
    count.set(use, 1);
    waiting.set(use, []);
  }
  let lent = 0;

  const drop = (use: SlabUse, held: Held) => {
    shelf.put(held.memory);
    held.release?.();
    count.set(use, (count.get(use) ?? 0) - 1);
  };

  const giveBack = (use: SlabUse, held: Held) => {
    lent -= 1;
    const takers = waiting.get(use) ?? [];
    const isLent = held.release !== null;
    const next = isLent && budget.waiting > 0 ? undefined : takers.shift();
    if (next !== undefined) next(held);
    else if (isLent) drop(use, held);
    else idle.get(use)?.push(held);
  };

  const lend = (use: SlabUse, held: Held): Slab => {
    let freed = false;
    lent += 1;
    return {
      memory: held.memory,
      bytes: Buffer.from(held.memory, 0, need.objectBytes),
      free() {
        if (freed) return;
        freed = true;
        giveBack(use, held);
      },
    };
  };

  return {
    async take(use, taker) {
      if (taker.aborted) throw cancelledBy(taker);
      const ready = idle.get(use)?.pop();
      if (ready !== undefined) return lend(use, ready);
      const release = (count.get(use) ?? 0) < most ? budget.tryAcquire(need.slabCost) : undefined;
      if (release !== undefined) {
        const memory = takeOrUndo(shelf, need, release);
        count.set(use, (count.get(use) ?? 0) + 1);
        return lend(use, { memory, release });
      }
      return new Promise((resolve, reject) => {
        const queue = waiting.get(use) ?? [];
        const abort = () => {
          queue.splice(queue.indexOf(grant), 1);
          reject(cancelledBy(taker));
        };
        const grant = (held: Held) => {
          taker.removeEventListener('abort', abort);
          resolve(lend(use, held));
        };
        queue.push(grant);
        taker.addEventListener('abort', abort, { once: true });
      });
    },
    close() {
      invariant(lent === 0, `${lent} slabs are in use at the end of an operation`);
      for (const [use, held] of idle) for (const one of held.splice(0)) drop(use, one);
      releaseLeast();
    },
  };
}

/** Memory for a slab. Where there is none, what was done for it is undone, and the error is `limit-exceeded`. */
function takeOrUndo(shelf: SlabShelf, { slabBytes }: MemoryNeed, undo: () => void): SharedArrayBuffer {
  try {
    return shelf.take(slabBytes);
  } catch (cause) {
    undo();
    throw new BackupError(
      'limit-exceeded',
      `the system gives no ${slabBytes} bytes of memory for a buffer: raise the memory limits of the process (LimitAS, MemoryMax), or lower its memory ceiling`,
      { cause },
    );
  }
}
