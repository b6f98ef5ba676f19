/** Time that passes only when the test says so. */
import type { Wait } from '../../src/async/periodic.ts';

export type ManualWait = {
  readonly wait: Wait;
  /** Lets time pass: every wait that ends within it ends at its own moment, and what follows from it is done. */
  pass(ms: number): Promise<void>;
  now(): Date;
};

export function createManualWait(start = new Date('2026-11-22T10:00:00Z')): ManualWait {
  let elapsedMs = 0;
  const waiting = new Set<{ readonly atMs: number; readonly end: () => void }>();
  return {
    wait: async (delayMs, signal) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const entry = { atMs: elapsedMs + delayMs, end: resolve };
      waiting.add(entry);
      const abort = () => reject(new Error('the wait was aborted'));
      signal.addEventListener('abort', abort, { once: true });
      if (signal.aborted) abort();
      try {
        await promise;
      } finally {
        waiting.delete(entry);
        signal.removeEventListener('abort', abort);
      }
    },
    async pass(ms) {
      const untilMs = elapsedMs + ms;
      for (;;) {
        await settle();
        const next = Array.from(waiting)
          .filter(({ atMs }) => atMs <= untilMs)
          .toSorted((one, other) => one.atMs - other.atMs)
          .at(0);
        if (next === undefined) break;
        elapsedMs = next.atMs;
        waiting.delete(next);
        next.end();
      }
      elapsedMs = untilMs;
    },
    now: () => new Date(start.getTime() + elapsedMs),
  };
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
