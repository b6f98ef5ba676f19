/** Entry of a reader thread. */
import { createScratch, runReaderJob, type ReaderJob, type ReaderResult } from './reader-job.ts';
import { serveJobs } from './thread-jobs.ts';

const scratch = createScratch();

serveJobs<ReaderJob, ReaderResult>((job) => ({
  result: runReaderJob(job, scratch),
  transfer: [job.buffer],
}));
