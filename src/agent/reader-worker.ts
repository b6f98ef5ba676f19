/** Entry of a reader thread. */
import { createScratch, runReaderJob, type ReaderJob, type ReaderResult } from './reader-job.ts';
import { serveJobs } from './thread-jobs.ts';

const scratch = createScratch();

serveJobs((job: ReaderJob) => ({
  result: runReaderJob(job, scratch) satisfies ReaderResult,
  transfer: [job.buffer],
}));
