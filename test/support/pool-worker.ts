/** A worker for the test of the thread pool: echoes, fails, dies, or waits for a shared flag. */
import { BackupError } from '../../src/model/errors.ts';
import { serveJobs } from '../../src/agent/thread-jobs.ts';

export type PoolJob =
  | { readonly kind: 'echo'; readonly value: number; readonly buffer?: ArrayBuffer }
  | { readonly kind: 'ours' | 'system' | 'die' }
  /** `begun` counts those that run or have run. */
  | { readonly kind: 'wait'; readonly flag: Int32Array; readonly begun?: Int32Array };

export type PoolResult = { readonly value: number; readonly buffer?: ArrayBuffer | undefined };

serveJobs((job: PoolJob) => {
  switch (job.kind) {
    case 'echo':
      return {
        result: { value: job.value, buffer: job.buffer } satisfies PoolResult,
        transfer: job.buffer === undefined ? [] : [job.buffer],
      };
    case 'ours':
      throw new BackupError('corrupt', 'a damaged thing', { details: { at: 7 } });
    case 'system':
      throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
    case 'die':
      return process.exit(3);
    case 'wait':
      if (job.begun !== undefined) Atomics.add(job.begun, 0, 1);
      Atomics.wait(job.flag, 0, 0);
      return { result: { value: 0 } };
    default:
      return job satisfies never;
  }
});
