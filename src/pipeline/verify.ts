/** Verification: everything that a restore would read is read and checked, and what is bad is told. See read-chain.ts. */
import { metadataKey, sha256FileKey } from '../layout/names.ts';
import { chainLengthBytes } from '../layout/chain.ts';
import { isBackupError, type ErrorCode } from '../model/errors.ts';
import { createBadRanges } from './bad-ranges.ts';
import type { Layer, PipelineResources, VerifyJob, VerifyOutcome } from './jobs.ts';
import { readChain, readLayerAlone, type ChainReader } from './read-chain.ts';

/** What the store says of one object, and not of itself: a store that cannot be reached is no finding. */
export const objectFaultCodes = [
  'object-missing',
  'corrupt',
  'store-denied',
  'message-invalid',
] as const satisfies readonly ErrorCode[];

/**
 * Checks the newest layer of `job.chain` as a restore would read it, or all layers one by one where some cannot be read. Faults of
 * objects are results: the first of them by offset, and the numbers of all. Throws `chain-broken` where no restore could be planned,
 * `cancelled`, and what the store throws when it cannot be asked.
 */
export async function runVerify(resources: PipelineResources, job: VerifyJob): Promise<VerifyOutcome> {
  const { chain, unreadable, progress, signal } = job;
  const bad = createBadRanges();
  const whole = { offset: 0, length: chainLengthBytes(chain.map(({ metadata }) => metadata)) };
  const reader: ChainReader = {
    openTaker: null,
    faultCodes: objectFaultCodes,
    fault: (range) => bad.add(range),
    listFault(error, { metadata: { backupId }, place }) {
      bad.add({ ...whole, backupId, object: sha256FileKey(place.prefix), reason: error.message });
    },
  };
  for (const layer of unreadable) bad.add({ ...whole, ...layer });
  const readAlone = async (layer: Layer): Promise<number> => {
    try {
      return await readLayerAlone(resources, { layer, progress, signal }, reader);
    } catch (error) {
      if (!isBackupError(error, 'corrupt')) throw error;
      const { metadata, place } = layer;
      bad.add({
        ...whole,
        backupId: metadata.backupId,
        object: metadataKey(place.prefix),
        reason: error.message,
      });
      return 0;
    }
  };
  let checkedBytes = 0;
  if (unreadable.length === 0) checkedBytes = await readChain(resources, { chain, progress, signal }, reader);
  else for (const layer of chain) checkedBytes += await readAlone(layer);
  const badBytes = Math.min(bad.bytes, whole.length);
  return { checkedBytes, badCount: bad.count, badBytes, badRanges: bad.first() };
}
