/** A worker in the place of a reader thread: what is to be read of a cluster comes when the file is there that `thing` names. */
import { existsSync } from 'node:fs';
import type { ReaderJob, ReaderResult } from '../../src/agent/reader-job.ts';
import { serveJobs } from '../../src/agent/thread-jobs.ts';

const clock = new Int32Array(new SharedArrayBuffer(4));

serveJobs(({ handle }: ReaderJob) => {
  if (handle.kind === 'rbd') while (!existsSync(handle.thing)) Atomics.wait(clock, 0, 0, 5);
  const result: ReaderResult = { usedBytes: 0, dataBytes: 512, zeroBytes: 0, digests: 1, readBytes: 512 };
  return { result };
});
