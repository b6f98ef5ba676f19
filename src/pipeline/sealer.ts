/**
 * The sealer: worker threads that turn blocks into stored objects (check the agent's SHA-256, MD5, compress) and back.
 * Buffers between the threads are shared memory, so nothing is copied on the way; a buffer belongs to the sealer
 * from the call until its promise settles.
 */
import type { Logger } from '../log.ts';
import type { Codec } from '../model/codec.ts';

/** What zlib is to favour where it is ours to choose. */
export type DeflateEffort = 'speed' | 'balanced' | 'size';

export type SealerOptions = {
  /** Worker threads; as many as there are processors, at most 4, unless given. */
  readonly threads?: number;
  readonly log?: Logger;
  readonly zlibEffort?: DeflateEffort;
};

/** One object before sealing: where it lies in the slab and in the volume. */
export type UnsealedObject = { readonly start: number; readonly length: number; readonly offset: number };

export type SealJob = {
  readonly codec: Codec;
  readonly blockSize: number;
  /** Volume bytes of all objects. */
  readonly slab: SharedArrayBuffer;
  /** Receives the bodies; as long as the slab. Null with codec `none`: the bodies are then the slab's own bytes. */
  readonly out: SharedArrayBuffer | null;
  readonly objects: readonly UnsealedObject[];
  /** What the source says of every block of every object, in order: 32 bytes each. */
  readonly digests: Buffer;
};

/** A body ready to be stored: a view that lives as long as the buffers of its job are left alone. */
export type SealedObject = { readonly codec: Codec; readonly md5: string; readonly body: Buffer };

export type UnsealJob = {
  readonly codec: Codec;
  /** The stored bytes: the first `bodyBytes` of it. */
  readonly body: SharedArrayBuffer;
  readonly bodyBytes: number;
  /** Receives the volume bytes; null with codec `none`. */
  readonly out: SharedArrayBuffer | null;
  readonly length: number;
  readonly md5: string;
  readonly blockSize: number;
  /** What has to be checked: extents relative to the object, on block boundaries but for the last end. */
  readonly segments: readonly { readonly offset: number; readonly length: number }[];
  /** The digests of the blocks of all segments, in order. */
  readonly digests: Buffer;
};

/** What is wrong with an object: with all of it (`length` null), or with some blocks. Offsets are relative to the object. */
export type ObjectFault = { readonly offset: number; readonly length: number | null; readonly reason: string };

export type UnsealStreamJob = Omit<UnsealJob, 'body' | 'bodyBytes' | 'out'> & {
  /** Shared memory for the pieces that travel both ways. */
  readonly slab: SharedArrayBuffer;
  readonly pieces: AsyncIterable<Buffer>;
  /** Takes checked bytes of the segments, in order; `bytes` may be reused when it resolves. Null to check only. */
  readonly take: ((offset: number, bytes: Buffer) => Promise<void>) | null;
  readonly signal: AbortSignal;
};

export type Sealer = {
  /** Which deflate is in force: `isa-l 1`, `libdeflate 1`, `zlib 1`. */
  readonly deflate: string;
  readonly threads: number;
  /** Bodies in the order of the job's objects. Throws `corrupt` if bytes and digests differ. */
  seal(job: SealJob): Promise<readonly SealedObject[]>;
  /** The body of `lengthBytes` zeros: made once, then shared. Do not write to it. */
  sealZeros(lengthBytes: number, codec: Codec): Promise<SealedObject>;
  /** Every fault of the object; none if it is whole. With none, the volume bytes stand in `out` (or `body`). */
  unseal(job: UnsealJob): Promise<readonly ObjectFault[]>;
  /** The same for an object of any size in the memory of one slab. */
  unsealStream(job: UnsealStreamJob): Promise<readonly ObjectFault[]>;
  /** Ends the threads after the jobs that run. */
  close(): Promise<void>;
};

export function createSealer(options: SealerOptions): Promise<Sealer> {
  return Promise.reject(new Error(`the sealer is not there yet (${JSON.stringify(Object.keys(options))})`));
}
