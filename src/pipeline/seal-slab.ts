/** Sealing inside a worker thread: whole slabs of objects, synchronously, on shared memory. */
import { hash } from 'node:crypto';
import { digestBytes } from '../model/digest.ts';
import { BackupError } from '../model/errors.ts';
import type { Codec } from '../model/codec.ts';
import { directBytes } from '../model/page-memory.ts';
import type { BodyCodecs } from './codecs/open-codecs.ts';
import type { SealJob } from './sealer.ts';

/** A job as it travels: three numbers for each object, which clone at a fraction of the cost of as many objects. */
export type SlabJob = Omit<SealJob, 'objects'> & {
  /** Of each object: start in the slab, length, offset in the volume. */
  readonly objects: Float64Array;
};

/** Where the bodies stand: in `out`, or in the slab if the job has no `out`. */
export type SealedSlab = {
  /** Of each object: start and length of its body, and 1 if it is compressed, else 0. */
  readonly bodies: Float64Array;
  /** The MD5 of each object, 32 hex digits, one after the other. */
  readonly md5s: string;
};

export const numbersOfObject = 3;
export const numbersOfBody = 3;
export const digitsOfMd5 = 32;
/** Bodies of objects from this size on begin on a page where there is room: they can be written past the page cache. */
const alignedBytes = 256 * 1024;

/**
 * Compares every block with its digest, hashes and compresses every object. As in Cinder (_prepare_output_data of
 * cinder/backup/chunkeddriver.py) an object that compression does not make smaller stays as it is. Throws `corrupt`.
 */
export function sealSlab(job: SlabJob, codecs: BodyCodecs): SealedSlab {
  const slab = Buffer.from(job.slab);
  const out = job.out === null ? null : Buffer.from(job.out);
  const count = job.objects.length / numbersOfObject;
  const bodies = new Float64Array(count * numbersOfBody);
  let md5s = '';
  let digestAt = 0;
  let outAt = 0;
  let leftBytes = 0;
  for (let n = 0; n < count; n += 1) leftBytes += job.objects[n * numbersOfObject + 1] ?? 0;
  for (let n = 0; n < count; n += 1) {
    const [start = 0, length = 0, offset = 0] = job.objects.subarray(n * numbersOfObject);
    const bytes = slab.subarray(start, start + length);
    digestAt = checkBlocks(offset, bytes, job, digestAt);
    md5s += hash('md5', bytes, 'hex');
    if (out === null || job.codec === 'none') {
      bodies.set([start, length, 0], n * numbersOfBody);
      continue;
    }
    const toPage = -outAt & (directBytes - 1);
    if (length >= alignedBytes && outAt + toPage + leftBytes <= out.length) outAt += toPage;
    leftBytes -= length;
    const room = out.subarray(outAt, outAt + length - 1);
    const written = codecs[job.codec].compress(bytes, room);
    if (written === null) bytes.copy(out, outAt);
    bodies.set([outAt, written ?? length, written === null ? 0 : 1], n * numbersOfBody);
    outAt += written ?? length;
  }
  return { bodies, md5s };
}

function checkBlocks(offset: number, bytes: Buffer, job: SlabJob, digestAt: number): number {
  let at = digestAt;
  for (let start = 0; start < bytes.length; start += job.blockSize) {
    const block = bytes.subarray(start, start + job.blockSize);
    const said = job.digests.subarray(at, at + digestBytes);
    at += digestBytes;
    if (hash('sha256', block, 'buffer').equals(said)) continue;
    throw new BackupError(
      'corrupt',
      `the agent's bytes do not match its digest at offset ${offset + start}: check the memory and the network of the agent's host, then back up again`,
      { details: { offset: offset + start } },
    );
  }
  return at;
}

/** The body of `length` zero bytes. Zeros are never stored as they are: with codec `none` they become zlib. */
export function sealZeros(
  length: number,
  codec: Codec,
  codecs: BodyCodecs,
): { readonly codec: Codec; readonly md5: string; readonly body: Uint8Array<ArrayBuffer> } {
  const used = codec === 'none' ? 'zlib' : codec;
  const zeros = Buffer.alloc(length);
  for (const room of [Math.ceil(length / 64) + 4096, length + 4096]) {
    const out = Buffer.allocUnsafeSlow(room);
    const written = codecs[used].compress(zeros, out);
    if (written === null) continue;
    return { codec: used, md5: hash('md5', zeros, 'hex'), body: new Uint8Array(out.subarray(0, written)) };
  }
  throw new BackupError('bug', `broken invariant: ${length} zero bytes grow when compressed with ${used}`);
}
