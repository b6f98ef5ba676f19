/** Sealing inside a worker thread: whole slabs of objects, synchronously, on shared memory. */
import { hash } from 'node:crypto';
import { digestBytes } from '../model/digest.ts';
import { BackupError } from '../model/errors.ts';
import type { Codec } from '../model/codec.ts';
import type { BodyCodecs } from './codecs/open-codecs.ts';
import type { SealJob, UnsealedObject } from './sealer.ts';

/** Where a body stands: in `out`, or in the slab if the job has no `out`. */
export type SealedPlace = {
  readonly codec: Codec;
  readonly md5: string;
  readonly start: number;
  readonly length: number;
};

/**
 * Compares every block with its digest, hashes and compresses every object. As in Cinder (_prepare_output_data of
 * cinder/backup/chunkeddriver.py) an object that compression does not make smaller stays as it is. Throws `corrupt`.
 */
export function sealSlab(job: SealJob, codecs: BodyCodecs): SealedPlace[] {
  const slab = Buffer.from(job.slab);
  const out = job.out === null ? null : Buffer.from(job.out);
  const places: SealedPlace[] = [];
  let digestAt = 0;
  let outAt = 0;
  for (const object of job.objects) {
    const bytes = slab.subarray(object.start, object.start + object.length);
    digestAt = checkBlocks(object, bytes, job, digestAt);
    const md5 = hash('md5', bytes, 'hex');
    if (out === null || job.codec === 'none') {
      places.push({ codec: 'none', md5, start: object.start, length: object.length });
      continue;
    }
    const room = out.subarray(outAt, outAt + object.length - 1);
    const written = codecs[job.codec].compress(bytes, room);
    if (written === null) bytes.copy(out, outAt);
    const length = written ?? object.length;
    places.push({ codec: written === null ? 'none' : job.codec, md5, start: outAt, length });
    outAt += length;
  }
  return places;
}

function checkBlocks(object: UnsealedObject, bytes: Buffer, job: SealJob, digestAt: number): number {
  let at = digestAt;
  for (let start = 0; start < bytes.length; start += job.blockSize) {
    const block = bytes.subarray(start, start + job.blockSize);
    const said = job.digests.subarray(at, at + digestBytes);
    at += digestBytes;
    if (hash('sha256', block, 'buffer').equals(said)) continue;
    throw new BackupError(
      'corrupt',
      `the agent's bytes do not match its digest at offset ${object.offset + start}: check the memory and the network of the agent's host, then back up again`,
      { details: { offset: object.offset + start } },
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
