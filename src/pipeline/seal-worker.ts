/** The entry of the sealer's threads: one task at a time, in and out of shared memory. */
import { parentPort, workerData } from 'node:worker_threads';
import { invariant, isBackupError, messageOf } from '../model/errors.ts';
import { openCodecs, type BodyCodecs } from './codecs/open-codecs.ts';
import { sealSlab, sealZeros } from './seal-slab.ts';
import { unsealObject } from './unseal-object.ts';
import { unsealPieces } from './unseal-pieces.ts';
import type { TaskResult, WorkerAnswer, WorkerReady, WorkerSettings, WorkerTask } from './worker-messages.ts';

function run(
  task: WorkerTask,
  codecs: BodyCodecs,
): TaskResult[WorkerTask['kind']] | Promise<TaskResult['pieces']> {
  if (task.kind === 'seal') return sealSlab(restored(task.job), codecs);
  if (task.kind === 'zeros') return sealZeros(task.length, task.codec, codecs);
  if (task.kind === 'unseal') return task.jobs.map((job) => unsealObject(restored(job), codecs));
  return unsealPieces(restored(task.job), codecs);
}

/** A Buffer arrives as a Uint8Array. */
function restored<J extends { readonly digests: Buffer }>(job: J): J {
  const { buffer, byteOffset, byteLength } = job.digests;
  return { ...job, digests: Buffer.from(buffer, byteOffset, byteLength) };
}

async function answer(task: WorkerTask, codecs: BodyCodecs): Promise<WorkerAnswer> {
  try {
    return { kind: 'done', result: await run(task, codecs) };
  } catch (error) {
    return {
      kind: 'failed',
      code: isBackupError(error) ? error.code : 'bug',
      message: messageOf(error),
      stack: error instanceof Error ? error.stack : undefined,
      details: isBackupError(error) ? error.details : {},
    };
  }
}

const port = parentPort;
invariant(port !== null, 'seal-worker.ts runs in a worker thread');
const settings: WorkerSettings = workerData;
const codecs = await openCodecs(settings.effort);
port.on('message', (task: WorkerTask) => {
  void answer(task, codecs).then((message) => port.postMessage(message));
});
const ready: WorkerReady = { kind: 'ready', deflate: codecs.zlib.name };
port.postMessage(ready);
