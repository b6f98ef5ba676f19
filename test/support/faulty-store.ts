/** An object store whose calls fail, or wait, as planned. */
import type { ObjectStore } from '../../src/store/object-store.ts';

type StoreCall =
  'ensureContainer' | 'put' | 'putStream' | 'flush' | 'get' | 'list' | 'remove' | 'removeContainer';

export type PlannedFault = {
  /** Any call unless given. */
  readonly call?: StoreCall;
  /** Any key unless given; calls without a key have the empty one. */
  readonly key?: RegExp;
  /** The how manieth matching call fails, from 1. */
  readonly at?: number;
  /** How many fail from there on: 1 unless given. */
  readonly times?: number;
  readonly error: Error;
};

export type FaultyStore = ObjectStore & {
  plan(fault: PlannedFault): void;
  /** Forgets all plans. */
  heal(): void;
  /** Calls so far. */
  readonly calls: number;
  /** Faults that have been given out. */
  readonly fired: number;
  /** Every call and key, in order. */
  readonly history: readonly string[];
  /** Makes the next matching call wait: `reached` resolves when it is there, with its signal, `open` lets it go on. */
  hold(call: StoreCall, key?: RegExp): { readonly reached: Promise<AbortSignal>; open(): void };
};

export function createFaultyStore(store: ObjectStore): FaultyStore {
  let plans: { readonly fault: PlannedFault; seen: number }[] = [];
  let holds: {
    readonly call: StoreCall;
    readonly key: RegExp;
    reached(signal: AbortSignal): void;
    readonly opened: Promise<void>;
  }[] = [];
  const history: string[] = [];
  let fired = 0;

  const enter = async (call: StoreCall, key: string, signal: AbortSignal): Promise<void> => {
    history.push(key === '' ? call : `${call} ${key}`);
    const hold = holds.find((each) => each.call === call && each.key.test(key));
    if (hold !== undefined) {
      holds = holds.filter((each) => each !== hold);
      hold.reached(signal);
      await hold.opened;
    }
    for (const plan of plans) {
      const { fault } = plan;
      if (fault.call !== undefined && fault.call !== call) continue;
      if (fault.key !== undefined && !fault.key.test(key)) continue;
      plan.seen += 1;
      const first = fault.at ?? 1;
      if (plan.seen < first || plan.seen >= first + (fault.times ?? 1)) continue;
      fired += 1;
      throw fault.error;
    }
  };

  return {
    kind: store.kind,
    service: store.service,
    plan: (fault) => void plans.push({ fault, seen: 0 }),
    heal: () => {
      plans = [];
    },
    get calls() {
      return history.length;
    },
    get fired() {
      return fired;
    },
    history,
    hold(call, key = /(?:)/) {
      const reached = Promise.withResolvers<AbortSignal>();
      const opened = Promise.withResolvers<void>();
      holds.push({ call, key, reached: reached.resolve, opened: opened.promise });
      return { reached: reached.promise, open: opened.resolve };
    },
    async ensureContainer(container, signal) {
      await enter('ensureContainer', '', signal);
      await store.ensureContainer(container, signal);
    },
    async put(container, key, body, options) {
      await enter('put', key, options.signal);
      await store.put(container, key, body, options);
    },
    async putStream(container, key, body, options) {
      await enter('putStream', key, options.signal);
      await store.putStream(container, key, body, options);
    },
    async flush(container, prefix, signal) {
      await enter('flush', '', signal);
      await store.flush(container, prefix, signal);
    },
    async get(container, key, options) {
      await enter('get', key, options.signal);
      return await store.get(container, key, options);
    },
    async *list(container, prefix, signal) {
      await enter('list', prefix, signal);
      yield* store.list(container, prefix, signal);
    },
    async remove(container, key, signal) {
      await enter('remove', key, signal);
      await store.remove(container, key, signal);
    },
    async removeContainer(container, signal) {
      await enter('removeContainer', '', signal);
      await store.removeContainer(container, signal);
    },
    close: () => store.close(),
  };
}
