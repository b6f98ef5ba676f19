/** Entry of a reader thread. */
import { loadRbdCalls } from './rbd-calls.ts';
import { createRbdReader, type RbdReader } from './rbd-reader.ts';
import {
  createScratch,
  readFully,
  readsOf,
  runReaderJob,
  type ReadBytes,
  type ReaderJob,
  type ReaderResult,
} from './reader-job.ts';
import { serveJobsAhead } from './thread-jobs.ts';

const scratch = createScratch();
let rbd: RbdReader | undefined;

serveJobsAhead((job: ReaderJob) => {
  const { handle } = job;
  const done = (read: ReadBytes) => ({
    result: runReaderJob(job, read, scratch) satisfies ReaderResult,
    transfer: [job.buffer],
  });
  if (handle.kind === 'file') {
    return () => done((target, position) => readFully(handle.fd, target, position));
  }
  rbd ??= createRbdReader(loadRbdCalls());
  const reads = rbd.start(handle, readsOf(job));
  return () => {
    try {
      return done(reads.read);
    } finally {
      reads.close();
    }
  };
});
