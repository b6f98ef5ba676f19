/** A bounded queue between one producer and one consumer that is read as an async iterable. */

export type Queue<T> = AsyncIterable<T> & {
  /** Waits for room, then adds. Throws the reason if the queue failed or its consumer left. */
  push(item: T): Promise<void>;
  /** No more items: the consumer ends after those that wait. */
  end(): void;
  /** Both sides get `reason`; waiting items are dropped. */
  fail(reason: unknown): void;
};

export function createQueue<T>(limit: number): Queue<T> {
  const items: T[] = [];
  const state: { ended: boolean; failure?: { readonly reason: unknown } } = { ended: false };
  let wake: (() => void)[] = [];

  const changed = () => {
    const waiting = wake;
    wake = [];
    for (const resume of waiting) resume();
  };
  const change = () => new Promise<void>((resolve) => wake.push(resolve));

  return {
    async push(item) {
      while (state.failure === undefined && items.length >= limit) await change();
      if (state.failure !== undefined) throw state.failure.reason;
      items.push(item);
      changed();
    },
    end() {
      state.ended = true;
      changed();
    },
    fail(reason) {
      state.failure ??= { reason };
      items.length = 0;
      changed();
    },
    async *[Symbol.asyncIterator]() {
      try {
        for (;;) {
          if (state.failure !== undefined) throw state.failure.reason;
          const item = items.shift();
          if (item !== undefined) {
            changed();
            yield item;
          } else if (state.ended) return;
          else await change();
        }
      } finally {
        state.failure ??= { reason: new Error('the reader of the queue has left') };
        changed();
      }
    },
  };
}
