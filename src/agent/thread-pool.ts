/**
 * A pool of worker threads that run one kind of job each. Threads start with the first jobs and are replaced
 * when they die; a job of a dead thread fails. Every worker holds two jobs unless told otherwise, so that it never waits
 * for the main thread between them; the others wait here, first come first served, and leave when their signal aborts.
 */
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { BackupError, cancelledBy, isErrorCode } from '../model/errors.ts';
import { endMessage, type JobAnswer, type JobMessage, type PlainError } from './thread-jobs.ts';

export type ThreadPool<Job, Result> = {
  readonly threads: number;
  /** Jobs that wait or run now. */
  readonly pending: number;
  /**
   * Runs one job. A job that waits when `signal` aborts is dropped and its buffers stay usable here; one that
   * runs is finished first. Rejects with the BackupError of the job, or an Error whose `code` is an errno name.
   */
  run(job: Job, transfer: readonly ArrayBuffer[], signal: AbortSignal): Promise<Result>;
  /** Starts every thread now rather than with the first jobs. */
  warm(): void;
  /** Ends the threads, each after the job that it runs; those that wait fail as `agent-unavailable`. */
  close(): Promise<void>;
};

type Task<Job, Result> = {
  readonly job: Job;
  readonly transfer: readonly ArrayBuffer[];
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
};

type Member<Job, Result> = { readonly worker: Worker; readonly tasks: Map<number, Task<Job, Result>> };

/** The address of a worker module of this directory: `.ts` when run from source, `.js` when compiled. */
export function workerModule(name: string): URL {
  return new URL(`./${name}${extname(fileURLToPath(import.meta.url))}`, import.meta.url);
}

export function createThreadPool<Job, Result>(options: {
  readonly module: URL;
  readonly threads: number;
  /**
   * Jobs that a worker holds at most: two unless given, more where it begins the next while it does one, one where a job
   * may hang.
   */
  readonly jobsPerWorker?: number;
}): ThreadPool<Job, Result> {
  const { jobsPerWorker = 2 } = options;
  const waiting: Task<Job, Result>[] = [];
  const members = new Set<Member<Job, Result>>();
  let nextId = 0;
  const state = { closed: false };

  const start = (): Member<Job, Result> => {
    const worker = new Worker(options.module, { execArgv: [] });
    const member: Member<Job, Result> = { worker, tasks: new Map() };
    members.add(member);
    worker.on('message', (answer: JobAnswer<Result>) => {
      const task = member.tasks.get(answer.id);
      member.tasks.delete(answer.id);
      if ('error' in answer) task?.reject(errorOf(answer.error));
      else task?.resolve(answer.result);
      dispatch();
    });
    const lost = (cause: unknown) => {
      if (!members.delete(member)) return;
      for (const task of member.tasks.values()) {
        task.reject(
          new BackupError('agent-failed', 'a worker thread of the agent died; see its log', { cause }),
        );
      }
      dispatch();
    };
    worker.on('error', lost);
    worker.on('exit', (code) => lost(new Error(`worker thread exited with ${code}`)));
    return member;
  };

  const idlest = (): Member<Job, Result> | undefined => {
    let best: Member<Job, Result> | undefined;
    for (const member of members) {
      if (best === undefined || member.tasks.size < best.tasks.size) best = member;
    }
    if ((best === undefined || best.tasks.size > 0) && members.size < options.threads) return start();
    return best !== undefined && best.tasks.size < jobsPerWorker ? best : undefined;
  };

  function dispatch(): void {
    while (waiting.length > 0 && !state.closed) {
      const member = idlest();
      const task = member === undefined ? undefined : waiting.shift();
      if (member === undefined || task === undefined) return;
      const id = (nextId += 1);
      member.tasks.set(id, task);
      const message: JobMessage<Job> = { id, job: task.job };
      member.worker.postMessage(message, [...task.transfer]);
    }
  }

  return {
    threads: options.threads,
    get pending() {
      let running = 0;
      for (const member of members) running += member.tasks.size;
      return waiting.length + running;
    },
    run(job, transfer, signal) {
      if (state.closed) return Promise.reject(stopping());
      if (signal.aborted) return Promise.reject(cancelledBy(signal));
      return new Promise<Result>((resolve, reject) => {
        const leave = () => {
          const at = waiting.indexOf(task);
          if (at < 0) return;
          waiting.splice(at, 1);
          reject(cancelledBy(signal));
        };
        const settle = () => signal.removeEventListener('abort', leave);
        const task: Task<Job, Result> = {
          job,
          transfer,
          resolve: (result) => {
            settle();
            resolve(result);
          },
          reject: (error) => {
            settle();
            reject(error);
          },
        };
        signal.addEventListener('abort', leave, { once: true });
        waiting.push(task);
        dispatch();
      });
    },
    warm() {
      while (members.size < options.threads && !state.closed) start();
    },
    async close() {
      state.closed = true;
      for (const task of waiting.splice(0)) task.reject(stopping());
      const leaving = [...members];
      members.clear();
      await Promise.all(leaving.map(({ worker }) => ended(worker)));
      for (const { tasks } of leaving) for (const task of tasks.values()) task.reject(stopping());
    },
  };
}

async function ended(worker: Worker): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  worker.once('exit', () => resolve());
  worker.postMessage(endMessage, []);
  await promise;
}

export function stopping(): BackupError {
  return new BackupError('agent-unavailable', 'the agent is stopping; try again when it is back');
}

function errorOf(plain: PlainError): Error {
  if (plain.ours && isErrorCode(plain.code)) {
    return new BackupError(
      plain.code,
      plain.message,
      plain.details === undefined ? {} : { details: plain.details },
    );
  }
  return Object.assign(new Error(plain.message), { code: plain.code });
}
