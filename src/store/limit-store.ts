/**
 * Bounds what a store is asked for at once, over all operations of the process. A put holds a slot until it is done. A get
 * holds one while it opens and while a piece is awaited, not between pieces: a body may stay open for hours (the parent's hash
 * list in a comparison) while its reader waits for a put, and must not keep others from reading. `putStream` holds none: its
 * body may itself wait for gets, and there is one for each running backup.
 */
import { createBudget, withLimit, type Budget } from '../async/limit.ts';
import { cancelledBy, isBackupError } from '../model/errors.ts';
import type { ObjectStore } from './object-store.ts';

/** What stores of one service share. */
export type StoreLimits = {
  /** Calls of `put` at once. */
  readonly puts: Budget;
  /** Pieces of `get`, and calls of `getInto`, at once. */
  readonly gets: Budget;
};

/** Limits of so many calls. */
export function createStoreLimits(most: { readonly puts: number; readonly gets: number }): StoreLimits {
  return { puts: createBudget(most.puts), gets: createBudget(most.gets) };
}

/** Wraps `store`. A wait for a slot ends as `cancelled` when the call's signal aborts. */
export function createLimitStore(store: ObjectStore, { puts, gets }: StoreLimits): ObjectStore {
  async function* limitedBody(body: AsyncIterable<Buffer>, signal: AbortSignal): AsyncGenerator<Buffer> {
    const pieces = body[Symbol.asyncIterator]();
    let ended = false;
    try {
      for (;;) {
        const next = await limited(gets, signal, () => pieces.next());
        if (next.done === true) {
          ended = true;
          return;
        }
        yield next.value;
      }
    } finally {
      if (!ended) await pieces.return?.();
    }
  }

  const putMany = store.putMany?.bind(store);
  const getInto = store.getInto?.bind(store);
  const removePrefix = store.removePrefix?.bind(store);
  return {
    kind: store.kind,
    service: store.service,
    ensureContainer: (container, signal) => store.ensureContainer(container, signal),
    put: (container, key, body, put) => limited(puts, put.signal, () => store.put(container, key, body, put)),
    ...(putMany === undefined
      ? {}
      : {
          putMany: (container, objects, put) =>
            limited(puts, put.signal, () => putMany(container, objects, put)),
        }),
    putStream: (container, key, body, put) => store.putStream(container, key, body, put),
    flush: (container, prefix, signal) => store.flush(container, prefix, signal),
    async get(container, key, get) {
      const { sizeBytes, body } = await limited(gets, get.signal, () => store.get(container, key, get));
      return { sizeBytes, body: limitedBody(body, get.signal) };
    },
    ...(getInto === undefined
      ? {}
      : {
          getInto: (container, key, target, get) =>
            limited(gets, get.signal, () => getInto(container, key, target, get)),
        }),
    list: (container, prefix, signal) => store.list(container, prefix, signal),
    remove: (container, key, signal) => store.remove(container, key, signal),
    ...(removePrefix === undefined
      ? {}
      : { removePrefix: (container, prefix, signal) => removePrefix(container, prefix, signal) }),
    removeContainer: (container, signal) => store.removeContainer(container, signal),
    close: () => store.close(),
  };
}

async function limited<T>(budget: Budget, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    return await withLimit(budget, work, signal);
  } catch (error) {
    if (signal.aborted && !isBackupError(error)) throw cancelledBy(signal);
    throw error;
  }
}
