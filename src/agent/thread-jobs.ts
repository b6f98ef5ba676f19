/** The worker's side of a thread pool: takes jobs from the parent, one after another, and answers each. */
import { parentPort } from 'node:worker_threads';
import { isBackupError, messageOf, type ErrorDetails } from '../model/errors.ts';

export type JobMessage<Job> = { readonly id: number; readonly job: Job };

/** An error on its way between threads: a code of ours, or the errno name of a system call. */
export type PlainError = {
  readonly ours: boolean;
  readonly code: string;
  readonly message: string;
  readonly details?: ErrorDetails;
};

export type JobAnswer<Result> =
  { readonly id: number; readonly result: Result } | { readonly id: number; readonly error: PlainError };

/** Serves jobs with `handle`, which returns the result and the array buffers to hand over with it. */
export function serveJobs(
  handle: (job: never) => { readonly result: unknown; readonly transfer?: readonly ArrayBuffer[] },
): void {
  const port = parentPort;
  if (port === null) throw new Error('this module runs in a worker thread only');
  port.on('message', ({ id, job }: JobMessage<never>) => {
    let answer: JobAnswer<unknown>;
    let transfer: readonly ArrayBuffer[] = [];
    try {
      const done = handle(job);
      answer = { id, result: done.result };
      transfer = done.transfer ?? [];
    } catch (error) {
      answer = { id, error: plainError(error) };
    }
    port.postMessage(answer, [...transfer]);
  });
}

function plainError(error: unknown): PlainError {
  if (isBackupError(error)) {
    return { ours: true, code: error.code, message: error.message, details: error.details };
  }
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
  return { ours: false, code, message: messageOf(error) };
}
