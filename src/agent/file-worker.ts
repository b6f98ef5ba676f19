/** Entry of the file backend's thread. */
import { createStepRunner, type FileStep, type FileStepResult } from './file-steps.ts';
import { loadLinuxCalls } from './linux-calls.ts';
import { serveJobs } from './thread-jobs.ts';

const run = createStepRunner(await loadLinuxCalls());

serveJobs((step: FileStep) => {
  const result: FileStepResult = run(step);
  return { result, transfer: result.extents.buffer instanceof ArrayBuffer ? [result.extents.buffer] : [] };
});
