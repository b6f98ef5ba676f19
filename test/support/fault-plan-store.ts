/**
 * A store that fails by plan, before or after the effect of a call, within bodies and listings (after kopia's internal/fault):
 * each fault waits for its call, fires, and is counted. A test ends with `assertAllFired`.
 */
import { BackupError, cancelledBy } from '../../src/model/errors.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';

export type FaultyCall =
  | 'ensureContainer'
  | 'put'
  | 'putStream'
  | 'flush'
  | 'get'
  | 'getPiece'
  | 'list'
  | 'listPage'
  | 'remove'
  | 'removeContainer';

export type Fault = {
  readonly call: FaultyCall;
  /** Fires from this call of that kind on, counted from 1. */
  readonly at: number;
  /** How many calls in a row: 1 unless given; Infinity for ever. */
  readonly times?: number;
  /** `before`: the call is not made. `after`: it takes effect, then fails. `stall`: it waits until its signal aborts. */
  readonly when: 'before' | 'after' | 'stall';
  /** What is thrown: `store-unavailable` unless given. */
  readonly error?: () => Error;
  /** Only calls whose key or container holds this text are counted. */
  readonly of?: string;
};

export type FaultPlanStore = ObjectStore & {
  /** Calls so far, by kind. */
  readonly calls: ReadonlyMap<FaultyCall, number>;
  /** Adds faults; their calls are counted from now on. */
  plan(...faults: readonly Fault[]): void;
  /** Throws unless every fault has fired at least once. */
  assertAllFired(): void;
};

type Planned = { readonly fault: Fault; seen: number; fired: number };

export function createFaultPlanStore(store: ObjectStore, ...faults: readonly Fault[]): FaultPlanStore {
  const planned: Planned[] = [];
  const calls = new Map<FaultyCall, number>();
  const plan = (...more: readonly Fault[]): void => {
    for (const fault of more) planned.push({ fault, seen: 0, fired: 0 });
  };
  plan(...faults);

  const due = (call: FaultyCall, name: string): Fault | undefined => {
    calls.set(call, (calls.get(call) ?? 0) + 1);
    let found: Planned | undefined;
    for (const each of planned) {
      if (each.fault.call !== call || !name.includes(each.fault.of ?? '')) continue;
      each.seen += 1;
      const { at, times = 1 } = each.fault;
      if (each.seen >= at && each.seen < at + times) found ??= each;
    }
    if (found !== undefined) found.fired += 1;
    return found?.fault;
  };
  const run = async <T>(
    call: FaultyCall,
    name: string,
    signal: AbortSignal,
    work: () => Promise<T>,
  ): Promise<T> => {
    const fault = due(call, name);
    if (fault === undefined) return await work();
    if (fault.when === 'stall') await untilAborted(signal);
    if (fault.when === 'after') await work();
    throw failure(fault);
  };

  async function* checked<T>(
    call: 'getPiece' | 'listPage',
    name: string,
    signal: AbortSignal,
    items: AsyncIterable<T>,
  ): AsyncGenerator<T> {
    for await (const item of items) {
      const fault = due(call, name);
      if (fault?.when === 'stall') await untilAborted(signal);
      if (fault?.when === 'after') yield item;
      if (fault !== undefined) throw failure(fault);
      yield item;
    }
  }

  return {
    kind: store.kind,
    service: store.service,
    calls,
    plan,
    assertAllFired() {
      const idle = planned.filter(({ fired }) => fired === 0).map(({ fault }) => `${fault.call} ${fault.at}`);
      if (idle.length > 0) throw new Error(`planned faults that never fired: ${idle.join(', ')}`);
    },
    ensureContainer: (container, signal) =>
      run('ensureContainer', container, signal, () => store.ensureContainer(container, signal)),
    put: (container, key, body, options) =>
      run('put', key, options.signal, () => store.put(container, key, body, options)),
    putStream: (container, key, body, options) =>
      run('putStream', key, options.signal, () => store.putStream(container, key, body, options)),
    flush: (container, prefix, signal) =>
      run('flush', container, signal, () => store.flush(container, prefix, signal)),
    get: (container, key, options) =>
      run('get', key, options.signal, async () => {
        const { sizeBytes, body } = await store.get(container, key, options);
        return { sizeBytes, body: checked('getPiece', key, options.signal, body) };
      }),
    async *list(container, prefix, signal) {
      const items = await run('list', prefix, signal, async () => store.list(container, prefix, signal));
      yield* checked('listPage', prefix, signal, items);
    },
    remove: (container, key, signal) =>
      run('remove', key, signal, () => store.remove(container, key, signal)),
    removeContainer: (container, signal) =>
      run('removeContainer', container, signal, () => store.removeContainer(container, signal)),
    close: () => store.close(),
  };
}

function failure(fault: Fault): Error {
  return fault.error?.() ?? new BackupError('store-unavailable', `planned fault of ${fault.call}`);
}

function untilAborted(signal: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(cancelledBy(signal));
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort, { once: true });
  return promise;
}
