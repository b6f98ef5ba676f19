/**
 * The restore pipeline: the merged volume of a chain goes into a target, each byte once and only after it was checked. See
 * read-chain.ts for how it is read. Nothing is retried into place, guessed, or filled with zeros: the first fault ends it, and
 * what the target holds then is undefined.
 */
import { createBudget, withLimit } from '../async/limit.ts';
import { digestBytes, zeroDigest } from '../model/digest.ts';
import { BackupError, invariant, isBackupError } from '../model/errors.ts';
import type { RestoreTarget } from '../volume/block-source.ts';
import { absentReason } from './fetch-batch.ts';
import type { BadRange, Layer, PipelineResources, Progress, RestoreJob } from './jobs.ts';
import { readChain, type VolumeTaker } from './read-chain.ts';

/** Zeros inside data that are at least so long are written as zeros: a hole is worth that much more than a longer write. */
const leastZeroBytes = 64 * 1024;

/**
 * Restores the newest layer of `job.chain`. When it returns, the target has everything on stable storage. Throws `corrupt` or
 * `object-missing` naming the object, `chain-broken`, `cancelled`, and what store and target throw, after the target, if it was opened,
 * was aborted.
 */
export async function runRestore(resources: PipelineResources, job: RestoreJob): Promise<void> {
  const { chain, progress, signal } = job;
  const opened: { target: RestoreTarget | null } = { target: null };
  try {
    await readChain(
      resources,
      { chain, progress, signal },
      {
        openTaker: async () => {
          opened.target = await job.openTarget();
          return takerOf(opened.target, progress);
        },
        faultCodes: ['object-missing'],
        fault: (bad, layer) => {
          throw faultError(bad, layer);
        },
        listFault: (error) => {
          throw error;
        },
      },
    );
    invariant(opened.target !== null, 'what was read had a taker');
    await opened.target.finish();
  } catch (error) {
    const reason = signal.aborted && !isBackupError(error) ? signal.reason : error;
    await Promise.allSettled([opened.target?.abort(reason)]);
    throw reason;
  }
}

/** Writes to the target, one call at a time. */
function takerOf(target: RestoreTarget, progress: Progress): VolumeTaker {
  const turn = createBudget(1);
  const write = (work: () => Promise<void>) => withLimit(turn, work);
  return {
    async zero({ offset, length }) {
      await write(() => target.writeZero(offset, length));
      progress.doneBytes += length;
    },
    data: (offset, bytes, digests, blockSize) =>
      write(async () => {
        for (const run of zeroRuns(bytes.length, digests, blockSize)) {
          if (run.isZero) await target.writeZero(offset + run.start, run.length);
          else {
            await target.writeData(offset + run.start, bytes.subarray(run.start, run.start + run.length));
            progress.sentBytes += run.length;
          }
        }
      }),
  };
}

type ByteRun = { readonly start: number; readonly length: number; readonly isZero: boolean };

/** Cuts `length` bytes into data, and zeros of at least `leastZeroBytes`, by the digests of their blocks. */
export function zeroRuns(length: number, digests: Buffer, blockSize: number): ByteRun[] {
  const runs: ByteRun[] = [];
  const push = (run: ByteRun) => {
    const last = runs.at(-1);
    if (last?.isZero === run.isZero) runs[runs.length - 1] = { ...last, length: last.length + run.length };
    else if (run.length > 0) runs.push(run);
  };
  let zeroStart = 0;
  const endZeros = (end: number) => {
    const zeros = end - zeroStart;
    push({ start: zeroStart, length: zeros, isZero: zeros >= leastZeroBytes || zeros === length });
  };
  for (let start = 0, at = 0; start < length; start += blockSize, at += digestBytes) {
    const block = Math.min(blockSize, length - start);
    if (digests.compare(zeroDigest(block), 0, digestBytes, at, at + digestBytes) === 0) continue;
    if (zeroStart < start) endZeros(start);
    push({ start, length: block, isZero: false });
    zeroStart = start + block;
  }
  if (zeroStart < length) endZeros(length);
  return runs;
}

function faultError(bad: BadRange, layer: Layer): BackupError {
  const { object, backupId, offset, length, reason } = bad;
  const isAbsent = reason === absentReason;
  return new BackupError(
    isAbsent ? 'object-missing' : 'corrupt',
    `object ${object} of backup ${backupId} in container ${layer.place.container} cannot be restored: ${reason} (bytes ${offset} to ${offset + length - 1} of the volume); verify the backup to see all that is damaged, and restore from another one`,
    { details: { object, backupId, container: layer.place.container, offset, length } },
  );
}
