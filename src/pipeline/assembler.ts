/**
 * Turns a stream of changes into objects: contiguous data is copied into slabs and cut at the object size and at gaps; zeros
 * become objects of their own, or are filled in where they are short and touch data. Several small objects share a slab.
 */
import { digestBytes, zeroDigestRuns } from '../model/digest.ts';
import { BackupError, invariant } from '../model/errors.ts';
import { endOf, type Extent } from '../model/extent.ts';
import { maxObjects } from '../layout/metadata.ts';
import type { UnsealedObject } from './sealer.ts';
import type { Slab } from './slabs.ts';

/** Zeros of at most so many bytes that touch data are stored with it: a second object would cost more. */
export const foldedZeroBytes = 1024 * 1024;
/** A slab that holds at least this much in small objects goes on at the next gap. */
const smallBatchBytes = 1024 * 1024;

/** An object and its number, counting from 1 in order of offset. */
export type NumberedObject = UnsealedObject & { readonly number: number };

export type Batch = {
  readonly slab: Slab;
  readonly objects: readonly NumberedObject[];
  /** Digests of all blocks, in order. */
  readonly digests: Buffer;
};

export type AssemblerOutput = {
  takeSlab(): Promise<Slab>;
  /** Starts sealing; resolves when it has been taken on. The slab is freed by the taker. */
  sealBatch(batch: Batch): Promise<void>;
  /** Starts storing an object of zeros. */
  storeZeros(object: Extent & { readonly number: number }): Promise<void>;
};

export type Assembler = {
  data(offset: number, bytes: Buffer, digests: Buffer): Promise<void>;
  zero(offset: number, length: number): Promise<void>;
  /** Throws `limit-exceeded` if so many bytes, none of them handed on yet, need more objects than a backup may have. */
  requireRoom(dataBytes: number, zeroBytes: number): void;
  /** Makes objects of data from here on no longer than `bytes`, a multiple of the block size. */
  limitData(bytes: number): void;
  /** Hands on what is left. */
  end(): Promise<void>;
  /** Frees the slab that was being filled. */
  abandon(): void;
};

type Filling = {
  readonly slab: Slab;
  readonly digests: Buffer;
  readonly objects: NumberedObject[];
  used: number;
  digestsUsed: number;
};

export type AssemblerSizes = {
  /** Of data: a multiple of the block size, at most a slab's. */
  readonly objectBytes: number;
  /** Of zeros: a multiple of the block size. */
  readonly zeroObjectBytes: number;
  readonly slabBytes: number;
  readonly blockSize: number;
  /** What to do about a backup of too many objects, for messages. */
  readonly remedy: string;
};

/** Throws `limit-exceeded` beyond `maxObjects`. */
export function createAssembler(sizes: AssemblerSizes, output: AssemblerOutput): Assembler {
  const { objectBytes, zeroObjectBytes, slabBytes, blockSize, remedy } = sizes;
  const enough = Math.min(smallBatchBytes, Math.floor(slabBytes / 4));
  let filling: Filling | null = null;
  /** Whether the last object of `filling` may grow. */
  let isOpen = false;
  let heldZero: Extent | null = null;
  let objectCount = 0;
  let dataBytes = objectBytes;

  const nextNumber = (): number => {
    objectCount += 1;
    requireCount(objectCount);
    return objectCount;
  };

  const requireCount = (count: number): void => {
    if (count <= maxObjects) return;
    throw new BackupError(
      'limit-exceeded',
      `this backup would have more than ${maxObjects} objects, of at most ${objectBytes} bytes of data or ${zeroObjectBytes} of zeros: ${remedy}`,
    );
  };

  const dispatch = async (): Promise<void> => {
    if (filling === null) return;
    const { slab, objects, digests, digestsUsed } = filling;
    filling = null;
    isOpen = false;
    await output.sealBatch({ slab, objects, digests: digests.subarray(0, digestsUsed) });
  };

  /** Ends the open object: at a gap, or when it is as long as an object may be. */
  const close = async (): Promise<void> => {
    isOpen = false;
    if (filling !== null && filling.used >= enough) await dispatch();
  };

  /** Appends to the open object, or opens one; `write` puts `length` bytes, from `done` on, into the slab. */
  const append = async (
    offset: number,
    length: number,
    write: (target: Filling, done: number, taken: number) => void,
  ): Promise<void> => {
    for (let done = 0; done < length;) {
      if (filling === null) {
        const slab = await output.takeSlab();
        const digests = Buffer.allocUnsafe((slabBytes / blockSize) * digestBytes);
        filling = { slab, digests, objects: [], used: 0, digestsUsed: 0 };
      }
      const last = isOpen ? filling.objects.at(-1) : undefined;
      invariant(
        last === undefined || endOf(last) === offset + done,
        `bytes at ${offset + done} do not adjoin`,
      );
      const taken = Math.min(length - done, slabBytes - filling.used, dataBytes - (last?.length ?? 0));
      if (taken <= 0) {
        await close();
        continue;
      }
      write(filling, done, taken);
      if (last === undefined) {
        const object = { number: nextNumber(), start: filling.used, offset: offset + done, length: taken };
        filling.objects.push(object);
      } else filling.objects[filling.objects.length - 1] = { ...last, length: last.length + taken };
      isOpen = true;
      filling.used += taken;
      done += taken;
      // A short last block leaves the slab without alignment; nothing follows it.
      if (filling.used + blockSize > slabBytes) await dispatch();
    }
  };

  const fold = ({ offset, length }: Extent): Promise<void> =>
    append(offset, length, (target, done, taken) => {
      target.slab.bytes.fill(0, target.used, target.used + taken);
      for (const run of zeroDigestRuns(taken, blockSize)) {
        run.copy(target.digests, target.digestsUsed);
        target.digestsUsed += run.length;
      }
      invariant(done + taken === length || taken % blockSize === 0, 'zeros are cut inside a block');
    });

  const touchesData = (offset: number): boolean => {
    const last = isOpen ? filling?.objects.at(-1) : undefined;
    return last !== undefined && endOf(last) === offset;
  };

  /** Decides about the held zeros; `next` is where the next data begins, if there is any. */
  const releaseZero = async (next: number | null): Promise<void> => {
    if (heldZero === null) return;
    const zero = heldZero;
    heldZero = null;
    const touches = touchesData(zero.offset);
    if (zero.length <= foldedZeroBytes && (touches || next === endOf(zero))) {
      if (!touches) await close();
      await fold(zero);
      return;
    }
    await close();
    for (let done = 0; done < zero.length; done += zeroObjectBytes) {
      const length = Math.min(zeroObjectBytes, zero.length - done);
      await output.storeZeros({ number: nextNumber(), offset: zero.offset + done, length });
    }
  };

  return {
    async data(offset, bytes, digests) {
      await releaseZero(offset);
      if (!touchesData(offset)) await close();
      await append(offset, bytes.length, (target, done, taken) => {
        bytes.copy(target.slab.bytes, target.used, done, done + taken);
        const first = (done / blockSize) * digestBytes;
        const count = Math.ceil(taken / blockSize) * digestBytes;
        digests.copy(target.digests, target.digestsUsed, first, first + count);
        target.digestsUsed += count;
      });
    },
    async zero(offset, length) {
      if (heldZero !== null && endOf(heldZero) === offset) {
        heldZero = { offset: heldZero.offset, length: heldZero.length + length };
        return;
      }
      await releaseZero(null);
      heldZero = { offset, length };
    },
    requireRoom(data, zero) {
      requireCount(Math.ceil(data / objectBytes) + Math.ceil(zero / zeroObjectBytes));
    },
    limitData(bytes) {
      dataBytes = Math.min(objectBytes, bytes);
    },
    async end() {
      await releaseZero(null);
      await dispatch();
    },
    abandon() {
      filling?.slab.free();
      filling = null;
    },
  };
}
