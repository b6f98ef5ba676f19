/** Entry of a reader thread. */
import { createScratch, readFully, runReaderJob, type ReaderJob, type ReaderResult } from './reader-job.ts';
import { serveJobs } from './thread-jobs.ts';

const scratch = createScratch();

serveJobs((job: ReaderJob) => {
  const { handle } = job;
  return {
    result: runReaderJob(
      job,
      (target, position) => readFully(handle.fd, target, position),
      scratch,
    ) satisfies ReaderResult,
    transfer: [job.buffer],
  };
});
