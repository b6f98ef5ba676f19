/** Verification: everything that a restore would read is read and checked, and what is bad is told. See read-chain.ts. */
import { sha256FileKey } from '../layout/names.ts';
import { chainLengthBytes } from '../layout/chain.ts';
import { createBadRanges } from './bad-ranges.ts';
import type { PipelineResources, VerifyJob, VerifyOutcome } from './jobs.ts';
import { readChain } from './read-chain.ts';

/**
 * Checks the newest layer of `job.chain` as a restore would read it. Faults of objects are results: the first of them
 * by offset, and the numbers of all. Throws `chain-broken` where no restore could be planned, `cancelled`, and what the store throws when it cannot be asked.
 */
export async function runVerify(resources: PipelineResources, job: VerifyJob): Promise<VerifyOutcome> {
  const { chain, progress, signal } = job;
  const bad = createBadRanges();
  const lengthBytes = chainLengthBytes(chain.map(({ metadata }) => metadata));
  const checkedBytes = await readChain(
    resources,
    { chain, progress, signal },
    {
      zero: null,
      data: null,
      fault: (range) => bad.add(range),
      listFault(error, newest) {
        bad.add({
          offset: 0,
          length: lengthBytes,
          backupId: newest.metadata.backupId,
          object: sha256FileKey(newest.place.prefix),
          reason: error.message,
        });
      },
    },
  );
  const badBytes = Math.min(bad.bytes, lengthBytes);
  return { checkedBytes, badCount: bad.count, badBytes, badRanges: bad.first() };
}
