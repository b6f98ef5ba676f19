/**
 * A fixed number of sealing threads and a queue of tasks before them. A thread that dies is replaced; where that fails, a later task
 * tries it again: the next one if no thread is left, else the first after some seconds, since the others go on.
 */
import { Worker, type Transferable } from 'node:worker_threads';
import type { Logger } from '../log.ts';
import { BackupError, messageOf } from '../model/errors.ts';
import type { TaskResult, WorkerAnswer, WorkerReady, WorkerSettings, WorkerTask } from './worker-messages.ts';

export type SealThreads = {
  readonly deflate: string;
  /** Runs a task when a thread is free. Throws what the task threw, or `bug` if its thread died or none can be started. */
  run<K extends WorkerTask['kind']>(
    task: Extract<WorkerTask, { kind: K }>,
    transfer?: readonly Transferable[],
  ): Promise<TaskResult[K]>;
  /** Ends the threads when they have run what waits; if the last of them dies meanwhile, the rest fails. */
  close(): Promise<void>;
};

type Waiting = {
  readonly task: WorkerTask;
  readonly transfer: readonly Transferable[];
  readonly resolve: (result: unknown) => void;
  readonly reject: (reason: BackupError) => void;
};

type Thread = { readonly worker: Worker; isReady: boolean; current: Waiting | null };

const workerEntry = new URL(
  `./seal-worker.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}`,
  import.meta.url,
);

/** Starts the threads and waits until they are ready. Throws `bug` if one cannot be started. */
export async function startSealThreads(
  count: number,
  settings: WorkerSettings,
  {
    entry = workerEntry,
    log,
    retryMs = 10_000,
  }: { readonly entry?: URL; readonly log?: Logger | undefined; readonly retryMs?: number } = {},
): Promise<SealThreads> {
  const queue: Waiting[] = [];
  /** Those that are ready, and those that start. */
  const threads = new Set<Thread>();
  const idle: Thread[] = [];
  let closing = false;
  let settled: (() => void) | null = null;
  /** When the last thread could not be started, in milliseconds of the process. */
  let failedAt = -Infinity;

  const serve = () => {
    while (idle.length > 0) {
      const next = queue.shift();
      const thread = next === undefined ? undefined : idle.pop();
      if (next === undefined || thread === undefined) break;
      thread.current = next;
      thread.worker.ref();
      thread.worker.postMessage(next.task, next.transfer);
    }
    // Not while one starts: a thread that is terminated while it loads a native module takes the process with it.
    if (queue.length === 0 && idle.length === threads.size) settled?.();
  };

  const finish = (thread: Thread, answer: WorkerAnswer) => {
    const { current } = thread;
    thread.current = null;
    thread.worker.unref();
    idle.push(thread);
    if (answer.kind === 'done') current?.resolve(answer.result);
    else current?.reject(errorOf(answer));
    serve();
  };

  const start = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(entry, { workerData: settings, name: 'seal' });
      const thread: Thread = { worker, isReady: false, current: null };
      threads.add(thread);
      let reason: unknown;
      worker.once('message', (ready: WorkerReady) => {
        worker.on('message', (answer: WorkerAnswer) => finish(thread, answer));
        worker.unref();
        thread.isReady = true;
        idle.push(thread);
        resolve(ready.deflate);
        serve();
      });
      worker.on('error', (error) => {
        reason = error;
      });
      worker.once('exit', (code) => {
        const death = deathOf(reason, reason === undefined ? `exit code ${code}` : messageOf(reason));
        threads.delete(thread);
        const at = idle.indexOf(thread);
        if (at >= 0) idle.splice(at, 1);
        thread.current?.reject(death);
        reject(death);
        if (thread.isReady && !closing) replace();
        else forsake(death);
      });
    });

  /** Nobody runs what waits if there is no thread left. */
  const forsake = (death: BackupError) => {
    if (threads.size === 0) for (const waiting of queue.splice(0)) waiting.reject(death);
    serve();
  };

  const replace = () => {
    start().catch((err: unknown) => {
      failedAt = performance.now();
      log?.error({ err, living: threads.size, wanted: count }, 'a sealing thread could not be started');
      forsake(err instanceof BackupError ? err : deathOf(err, messageOf(err)));
    });
  };

  const restore = () => {
    const isStarting = [...threads].some(({ isReady }) => !isReady);
    if (threads.size === count || isStarting) return;
    if (threads.size === 0 || performance.now() - failedAt >= retryMs) replace();
  };

  const names = await Promise.all(Array.from({ length: count }, start));
  return {
    deflate: names[0] ?? 'none',
    run: (task, transfer = []) => {
      if (closing) return Promise.reject(new BackupError('cancelled', 'the sealer is closed'));
      return new Promise((resolve, reject) => {
        // The kind of a task fixes the type of its result: seal-worker.ts answers by the same table.
        queue.push({ task, transfer, resolve: resolve as (result: unknown) => void, reject });
        restore();
        serve();
      });
    },
    async close() {
      closing = true;
      await new Promise<void>((resolve) => {
        settled = resolve;
        serve();
      });
      await Promise.all([...threads].map((thread) => thread.worker.terminate()));
    },
  };
}

function deathOf(cause: unknown, why: string): BackupError {
  const message = `a sealing thread has died (${why}): see the log of the process, then run the operation again`;
  return new BackupError('bug', message, { cause });
}

function errorOf(answer: Extract<WorkerAnswer, { kind: 'failed' }>): BackupError {
  const error = new BackupError(answer.code, answer.message, { details: answer.details });
  if (answer.code === 'bug' && answer.stack !== undefined) error.stack = answer.stack;
  return error;
}
