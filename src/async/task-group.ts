/** Runs tasks side by side and fails as one. */
import { anySignal } from './any-signal.ts';
import { createBudget } from './limit.ts';

export type TaskGroup = {
  /** Aborted when a task fails or the outer signal aborts. */
  readonly signal: AbortSignal;
  /** Starts `task` as soon as fewer than the limit are running; resolves when it has started. Throws once the group failed. */
  add(task: (signal: AbortSignal) => Promise<void>): Promise<void>;
  /** Waits for all tasks. Throws the first failure, after every task has settled. */
  settle(): Promise<void>;
  /** Aborts the tasks with `reason`. */
  cancel(reason: unknown): void;
};

export function createTaskGroup(limit: number, outer: AbortSignal): TaskGroup {
  const controller = new AbortController();
  const signal = anySignal([outer, controller.signal]);
  const slots = createBudget(limit);
  const running = new Set<Promise<void>>();
  let failure: { readonly reason: unknown } | undefined;

  const fail = (reason: unknown) => {
    failure ??= { reason };
    controller.abort(reason);
  };

  return {
    signal,
    async add(task) {
      const release = await slots.acquire(1, signal);
      const job = task(signal)
        .catch(fail)
        .finally(() => {
          release();
          running.delete(job);
        });
      running.add(job);
    },
    async settle() {
      while (running.size > 0) await Promise.all(running);
      if (failure !== undefined) throw failure.reason;
      if (outer.aborted) throw outer.reason;
    },
    cancel: fail,
  };
}
