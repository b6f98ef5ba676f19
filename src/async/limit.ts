/** Bounded concurrency and bounded bytes. First come, first served; every wait ends when its signal aborts. */

/** A semaphore over a number of units: operations in flight, or bytes held. */
export type Budget = {
  /** Units that may be held at once. */
  readonly capacity: number;
  /** Units held now. */
  readonly held: number;
  /** The most that was ever held. */
  readonly peak: number;
  /** Requests that wait. */
  readonly waiting: number;
  /**
   * Waits until `units` are free, and takes them. A request for more than the capacity waits until it
   * can have all of it. Rejects with the signal's reason. The returned release may be called twice.
   */
  acquire(units: number, signal?: AbortSignal): Promise<() => void>;
  /** The same without waiting: undefined if the units are not free, or others wait for theirs. */
  tryAcquire(units: number): (() => void) | undefined;
};

type Waiter = { readonly units: number; readonly grant: () => void };

export function createBudget(capacity: number): Budget {
  const waiters: Waiter[] = [];
  let held = 0;
  let peak = 0;

  const take = (units: number): (() => void) => {
    held += units;
    peak = Math.max(peak, held);
    let released = false;
    return () => {
      if (released) return;
      released = true;
      held -= units;
      serve();
    };
  };

  function serve(): void {
    for (let next = waiters[0]; next !== undefined && held + next.units <= capacity; next = waiters[0]) {
      waiters.shift();
      next.grant();
    }
  }

  return {
    capacity,
    get held() {
      return held;
    },
    get peak() {
      return peak;
    },
    get waiting() {
      return waiters.length;
    },
    tryAcquire(units) {
      return waiters.length === 0 && held + units <= capacity ? take(units) : undefined;
    },
    acquire(wanted, signal) {
      const units = Math.min(wanted, capacity);
      if (signal?.aborted === true) return Promise.reject(signal.reason);
      if (waiters.length === 0 && held + units <= capacity) return Promise.resolve(take(units));
      return new Promise((resolve, reject) => {
        const abort = () => {
          waiters.splice(waiters.indexOf(waiter), 1);
          reject(signal?.reason);
          serve();
        };
        const waiter: Waiter = {
          units,
          grant: () => {
            signal?.removeEventListener('abort', abort);
            resolve(take(units));
          },
        };
        signal?.addEventListener('abort', abort, { once: true });
        waiters.push(waiter);
      });
    },
  };
}

/** Runs `work` while holding one unit of `budget`. */
export async function withLimit<T>(budget: Budget, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  const release = await budget.acquire(1, signal);
  try {
    return await work();
  } finally {
    release();
  }
}
