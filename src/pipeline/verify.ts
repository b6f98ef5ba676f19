/** Verification: everything that a restore would read is read and checked, and every bad range is told. See read-chain.ts. */
import { sha256FileKey } from '../layout/names.ts';
import { chainLengthBytes } from '../layout/chain.ts';
import type { BadRange, PipelineResources, VerifyJob, VerifyOutcome } from './jobs.ts';
import { readChain } from './read-chain.ts';

/**
 * Checks the newest layer of `job.chain` as a restore would read it. Faults of objects are results, ranges of one object sorted
 * and joined. Throws `chain-broken` where no restore could be planned, `cancelled`, and what the store throws when it cannot be asked.
 */
export async function runVerify(resources: PipelineResources, job: VerifyJob): Promise<VerifyOutcome> {
  const { chain, progress, signal } = job;
  const badRanges: BadRange[] = [];
  const lengthBytes = chainLengthBytes(chain.map(({ metadata }) => metadata));
  const checkedBytes = await readChain(
    resources,
    { chain, progress, signal },
    {
      zero: null,
      data: null,
      fault: (bad) => badRanges.push(bad),
      listFault(error, newest) {
        badRanges.push({
          offset: 0,
          length: lengthBytes,
          backupId: newest.metadata.backupId,
          object: sha256FileKey(newest.place.prefix),
          reason: error.message,
        });
      },
    },
  );
  badRanges.sort((a, b) => a.offset - b.offset || (a.object < b.object ? -1 : 1));
  return { checkedBytes, badRanges };
}
