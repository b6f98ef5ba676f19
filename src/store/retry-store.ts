/**
 * Tries again what a store says may succeed later (`retryable`), with growing waits, or those that it asks for. The only retry on the path to a store.
 *
 * | call | tried again |
 * |---|---|
 * | put, putMany, remove, ensureContainer, flush, ... | as a whole: they may be repeated |
 * | get | also after bytes have been delivered: the object is read anew and those are passed over. Objects of the layout never change, and a different size ends it |
 * | getInto | as a whole |
 * | list | also after names have been delivered, if the new listing begins with the same names |
 * | putStream | never: its body is consumed. Stores over a network try each of its segments again |
 */
import { crc32 } from 'node:zlib';
import { jitteredBackoffMs, type RetryPolicy } from '../async/backoff.ts';
import type { Logger } from '../log.ts';
import { BackupError, messageOf, throwIfAborted } from '../model/errors.ts';
import type { ObjectStore, StoredObject } from './object-store.ts';
import { askedMs, isRetryable, pause, retryCall } from './retry-call.ts';

export type RetryStoreOptions = { readonly policy: RetryPolicy; readonly log: Logger };

/** Wraps `store`. Every call throws the error of its last try, or `cancelled` when its signal aborts in a wait. */
export function createRetryStore(store: ObjectStore, options: RetryStoreOptions): ObjectStore {
  const { policy, log } = options;

  const tell = (call: string, error: unknown, attempt: number, delayMs: number): void => {
    log.warn(
      { store: store.kind, call, attempt, delayMs, reason: messageOf(error) },
      'the store failed, trying again',
    );
  };

  const again = async <T>(call: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> =>
    await retryCall(policy, signal, work, (error, attempt, delayMs) => tell(call, error, attempt, delayMs));

  /** Waits before another try of a stream, or throws `error` if there is none. `failures` are those without progress. */
  const waitOrGiveUp = async (
    call: string,
    error: unknown,
    failures: number,
    signal: AbortSignal,
  ): Promise<void> => {
    if (!isRetryable(error) || failures >= policy.attempts) throw error;
    throwIfAborted(signal);
    const delayMs = jitteredBackoffMs(policy, failures, askedMs(error));
    tell(call, error, failures, delayMs);
    await pause(delayMs, signal);
  };

  type Opened = Awaited<ReturnType<ObjectStore['get']>>;

  async function* resumedBody(
    first: Opened,
    what: string,
    reopen: () => Promise<Opened>,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer> {
    let source = first;
    let delivered = 0;
    for (let failures = 0; ;) {
      const before = delivered;
      let passed = 0;
      try {
        for await (const piece of source.body) {
          const fresh = piece.subarray(Math.min(piece.length, delivered - passed));
          passed += piece.length;
          if (fresh.length === 0) continue;
          delivered += fresh.length;
          yield fresh;
        }
        return;
      } catch (error) {
        failures = delivered > before ? 1 : failures + 1;
        await waitOrGiveUp('get', error, failures, signal);
      }
      source = await reopen();
      if (source.sizeBytes === first.sizeBytes) continue;
      await source.body[Symbol.asyncIterator]().return?.();
      throw new BackupError(
        'store-unavailable',
        `${what} had ${first.sizeBytes} bytes and has ${source.sizeBytes} now: it was replaced while it was read; start the operation again`,
        { retryable: false },
      );
    }
  }

  async function* resumedList(
    container: string,
    prefix: string,
    signal: AbortSignal,
  ): AsyncGenerator<readonly StoredObject[]> {
    let delivered = 0;
    let fingerprint = 0;
    for (let failures = 0; ;) {
      const before = delivered;
      const wanted = { count: delivered, fingerprint };
      let seen = 0;
      let seenFingerprint = 0;
      try {
        for await (const page of store.list(container, prefix, signal)) {
          const first = seen;
          for (const { key } of page) {
            seen += 1;
            seenFingerprint = crc32(key, seenFingerprint);
            if (seen === wanted.count && seenFingerprint !== wanted.fingerprint)
              throw changedListing(container);
          }
          const fresh = first < wanted.count ? page.slice(wanted.count - first) : page;
          if (fresh.length === 0) continue;
          delivered = seen;
          fingerprint = seenFingerprint;
          yield fresh;
        }
        if (seen < wanted.count) throw changedListing(container);
        return;
      } catch (error) {
        failures = delivered > before ? 1 : failures + 1;
        await waitOrGiveUp('list', error, failures, signal);
      }
    }
  }

  const putMany = store.putMany?.bind(store);
  const getInto = store.getInto?.bind(store);
  const removePrefix = store.removePrefix?.bind(store);
  return {
    kind: store.kind,
    service: store.service,
    ensureContainer: (container, signal) =>
      again('ensureContainer', signal, () => store.ensureContainer(container, signal)),
    put: (container, key, body, put) => again('put', put.signal, () => store.put(container, key, body, put)),
    ...(putMany === undefined
      ? {}
      : {
          putMany: (container, objects, put) =>
            again('putMany', put.signal, () => putMany(container, objects, put)),
        }),
    putStream: (container, key, body, put) => store.putStream(container, key, body, put),
    flush: (container, prefix, signal) =>
      again('flush', signal, () => store.flush(container, prefix, signal)),
    async get(container, key, get) {
      const open = () => again('get', get.signal, () => store.get(container, key, get));
      const first = await open();
      const what = `object ${key} in container ${container}`;
      return { sizeBytes: first.sizeBytes, body: resumedBody(first, what, open, get.signal) };
    },
    ...(getInto === undefined
      ? {}
      : {
          getInto: (container, key, target, get) =>
            again('getInto', get.signal, () => getInto(container, key, target, get)),
        }),
    list: resumedList,
    remove: (container, key, signal) => again('remove', signal, () => store.remove(container, key, signal)),
    ...(removePrefix === undefined
      ? {}
      : {
          removePrefix: (container, prefix, signal) =>
            again('removePrefix', signal, () => removePrefix(container, prefix, signal)),
        }),
    removeContainer: (container, signal) =>
      again('removeContainer', signal, () => store.removeContainer(container, signal)),
    close: () => store.close(),
  };
}

function changedListing(container: string): BackupError {
  return new BackupError(
    'store-unavailable',
    `the listing of container ${container} failed midway, and a second one gives other names: objects are being written or deleted there; start the operation again`,
    { retryable: false },
  );
}
