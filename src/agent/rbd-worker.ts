/** Entry of a thread of the RBD backend. */
import { loadRbdCalls } from './rbd-calls.ts';
import { createRbdStepRunner, type RbdStep, type RbdStepResult, type RbdStepRunner } from './rbd-steps.ts';
import { serveJobs } from './thread-jobs.ts';

let run: RbdStepRunner | undefined;

serveJobs((step: RbdStep) => {
  run ??= createRbdStepRunner(loadRbdCalls());
  const result: RbdStepResult = run(step);
  if (result.kind === 'extents') return { result, transfer: [result.extents.buffer] };
  return { result, transfer: result.kind === 'written' ? [result.bytes.buffer] : [] };
});
