/**
 * The worker's side of a thread pool: takes jobs from the parent, one after another, and answers each. It ends by itself
 * when it is told to: a thread that is terminated while it is inside of a native module (while it loads one, above all)
 * can take the whole process with it. A thread that begins jobs ahead may see the end when jobs behind the finished one have
 * begun; their reads are abandoned.
 */
import { parentPort, receiveMessageOnPort } from 'node:worker_threads';
import { isBackupError, messageOf, type ErrorDetails } from '../model/errors.ts';
import { errnoOf } from './file-errors.ts';

export type JobMessage<Job> = { readonly id: number; readonly job: Job };

/** Tells the thread to end: after the job that runs, before those that wait. */
export const endMessage = 'end';

/** An error on its way between threads: a code of ours, or the errno name of a system call. */
export type PlainError = {
  readonly ours: boolean;
  readonly code: string;
  readonly message: string;
  readonly details?: ErrorDetails;
};

export type JobAnswer<Result> =
  { readonly id: number; readonly result: Result } | { readonly id: number; readonly error: PlainError };

/** The result of a job, and the array buffers to hand over with it. */
export type JobDone = { readonly result: unknown; readonly transfer?: readonly ArrayBuffer[] };

/** Serves jobs with `handle`. */
export function serveJobs(handle: (job: never) => JobDone): void {
  serveJobsAhead((job: never) => () => handle(job));
}

/**
 * Serves jobs that have a part which goes on by itself: `begin` is called as soon as a job is here, also while another
 * is still to be finished, and what it returns is called when its turn has come.
 */
export function serveJobsAhead(begin: (job: never) => () => JobDone): void {
  const port = parentPort;
  if (port === null) throw new Error('this module runs in a worker thread only');
  const beginOne = (
    message: JobMessage<never> | typeof endMessage,
  ): { readonly id: number; readonly finish: () => JobDone } => {
    if (message === endMessage) return process.exit();
    const { id, job } = message;
    try {
      return { id, finish: begin(job) };
    } catch (error) {
      return {
        id,
        finish() {
          throw error;
        },
      };
    }
  };
  port.on('message', (message: JobMessage<never> | typeof endMessage) => {
    const begun = [beginOne(message)];
    for (let one = begun.shift(); one !== undefined; one = begun.shift()) {
      for (let more = receiveMessageOnPort(port); more !== undefined; more = receiveMessageOnPort(port)) {
        begun.push(beginOne(more.message));
      }
      let answer: JobAnswer<unknown>;
      let transfer: readonly ArrayBuffer[] = [];
      try {
        const done = one.finish();
        answer = { id: one.id, result: done.result };
        transfer = done.transfer ?? [];
      } catch (error) {
        answer = { id: one.id, error: plainError(error) };
      }
      port.postMessage(answer, [...transfer]);
    }
  });
}

function plainError(error: unknown): PlainError {
  if (isBackupError(error)) {
    return { ours: true, code: error.code, message: error.message, details: error.details };
  }
  return { ours: false, code: errnoOf(error), message: messageOf(error) };
}
