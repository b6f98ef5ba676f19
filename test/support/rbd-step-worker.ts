/**
 * A worker in the place of librbd's. It notes each step as it begins in the file `steps` of a folder; a flush hangs there until
 * the file `go` is there.
 */
import { appendFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import type { RbdStep, RbdStepResult } from '../../src/agent/rbd-steps.ts';
import { serveJobs } from '../../src/agent/thread-jobs.ts';

const folder = process.env['RBD_STEPS'] ?? '';
const clock = new Int32Array(new SharedArrayBuffer(4));

serveJobs((step: RbdStep) => {
  appendFileSync(join(folder, 'steps'), `${step.kind}\n`);
  if (step.kind === 'flush') while (!existsSync(join(folder, 'go'))) Atomics.wait(clock, 0, 0, 5);
  return { result: resultOf(step) };
});

function resultOf(step: RbdStep): RbdStepResult {
  if (step.kind === 'connect')
    return { kind: 'pool', pool: { cluster: 1n, ioctx: 2n, fsid: 'f', poolId: '3' } };
  if (step.kind === 'write') return { kind: 'written', bytes: step.bytes };
  return { kind: 'done' };
}
