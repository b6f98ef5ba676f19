/** Unsealing inside a worker thread: a whole object at once, synchronously, on shared memory. */
import { hash } from 'node:crypto';
import { digestBytes } from '../model/digest.ts';
import { BodyFault, faults } from './codecs/body-codec.ts';
import type { BodyCodecs } from './codecs/open-codecs.ts';
import type { ObjectFault, UnsealJob } from './sealer.ts';

/** Every fault of the object: one for all of it, or one for each run of blocks that differ. */
export function unsealObject(job: UnsealJob, codecs: BodyCodecs): ObjectFault[] {
  const body = Buffer.from(job.body, job.bodyStart, job.bodyBytes);
  const bytes = job.codec === 'none' ? body : Buffer.from(job.out, job.outStart, job.length);
  try {
    if (job.codec !== 'none') codecs[job.codec].decompress(body, bytes);
    else if (body.length > job.length) throw faults.long(job.length);
    else if (body.length < job.length) throw faults.short(job.length, body.length);
  } catch (error) {
    if (error instanceof BodyFault) return [{ offset: 0, length: null, reason: error.message }];
    throw error;
  }
  const found: ObjectFault[] = [];
  let digestAt = 0;
  for (const segment of job.segments) {
    const run = bytes.subarray(segment.offset, segment.offset + segment.length);
    const digests = job.digests.subarray(digestAt);
    digestAt += Math.ceil(run.length / job.blockSize) * digestBytes;
    found.push(...differingBlocks(run, digests, job.blockSize, segment.offset));
  }
  if (found.length > 0) return found;
  const md5 = hash('md5', bytes, 'hex');
  return md5 === job.md5 ? [] : [md5Fault(md5, job.md5)];
}

export function md5Fault(md5: string, expected: string): ObjectFault {
  return { offset: 0, length: null, reason: `its MD5 is ${md5} where its metadata says ${expected}` };
}

/** Runs of blocks in `bytes` whose SHA-256 is not that of `digests`; `offset` is that of the first byte in the object. */
export function differingBlocks(
  bytes: Buffer,
  digests: Buffer,
  blockSize: number,
  offset: number,
): ObjectFault[] {
  const reason = 'its bytes do not match the SHA-256 in the sha256file of the newest backup';
  const found: ObjectFault[] = [];
  for (let start = 0, at = 0; start < bytes.length; start += blockSize, at += digestBytes) {
    const block = bytes.subarray(start, start + blockSize);
    if (hash('sha256', block, 'buffer').equals(digests.subarray(at, at + digestBytes))) continue;
    const last = found.at(-1);
    if (last !== undefined && last.length !== null && last.offset + last.length === offset + start) {
      found[found.length - 1] = { ...last, length: last.length + block.length };
    } else {
      found.push({ offset: offset + start, length: block.length, reason });
    }
  }
  return found;
}
