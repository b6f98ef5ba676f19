/**
 * The sealer: worker threads that turn blocks into stored objects (check the agent's SHA-256, MD5, compress) and back.
 * Buffers between the threads are shared memory, so nothing is copied on the way; a buffer belongs to the sealer
 * from the call until its promise settles.
 */
import { availableParallelism } from 'node:os';
import { createBudget, withLimit } from '../async/limit.ts';
import type { Logger } from '../log.ts';
import type { Codec } from '../model/codec.ts';
import { createPageMemory } from '../model/page-memory.ts';
import type { DeflateEffort } from './codecs/open-codecs.ts';
import { digitsOfMd5, numbersOfBody, numbersOfObject } from './seal-slab.ts';
import { startSealThreads } from './seal-threads.ts';
import { unsealInPieces } from './unseal-session.ts';

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

/** One stored object and what it has to hold. */
export type SealedSource = {
  readonly codec: Codec;
  /** Volume bytes. */
  readonly length: number;
  readonly md5: string;
  readonly blockSize: number;
  /** What has to be checked: extents relative to the object, on block boundaries but for the last end. */
  readonly segments: readonly { readonly offset: number; readonly length: number }[];
  /** The digests of the blocks of all segments, in order. */
  readonly digests: Buffer;
};

export type UnsealJob = SealedSource & {
  /** The stored bytes; with codec `none` these are the volume bytes. */
  readonly body: SharedArrayBuffer;
  readonly bodyStart: number;
  readonly bodyBytes: number;
  /** Receives the volume bytes; not touched with codec `none`. */
  readonly out: SharedArrayBuffer;
  readonly outStart: number;
};

/** What is wrong with an object: with all of it (`length` null), or with some blocks. Offsets are relative to the object. */
export type ObjectFault = {
  readonly offset: number;
  readonly length: number | null;
  readonly reason: string;
};

export type UnsealStreamJob = SealedSource & {
  /** Shared memory for the pieces that travel both ways. */
  readonly slab: SharedArrayBuffer;
  readonly pieces: AsyncIterable<Buffer>;
  /** Takes checked bytes of the segments, in order; `bytes` may be reused when it resolves. Null to check only. */
  readonly take: ((offset: number, bytes: Buffer) => Promise<void>) | null;
  readonly signal: AbortSignal;
};

export type { DeflateEffort } from './codecs/open-codecs.ts';

/** Slabs that nobody uses. */
export type SlabShelf = {
  take(bytes: number): SharedArrayBuffer;
  put(slab: SharedArrayBuffer): void;
};

export type Sealer = {
  /** Which deflate is in force: `isa-l 1`, `libdeflate 1`, `zlib 1`. */
  readonly deflate: string;
  readonly threads: number;
  /** Shared memory that went through the threads before, so that it is not left to garbage collection of all of them. */
  readonly shelf: SlabShelf;
  /** Bodies in the order of the job's objects. Throws `corrupt` if bytes and digests differ. */
  seal(job: SealJob): Promise<readonly SealedObject[]>;
  /** The body of `lengthBytes` zeros: made once, then shared. Do not write to it. */
  sealZeros(lengthBytes: number, codec: Codec): Promise<SealedObject>;
  /** Every fault of each object; none if it is whole, and the volume bytes are in place then. */
  unseal(jobs: readonly UnsealJob[]): Promise<readonly (readonly ObjectFault[])[]>;
  /** The same for one object of any size, in the memory of one slab. */
  unsealStream(job: UnsealStreamJob): Promise<readonly ObjectFault[]>;
  /** Ends the threads after the jobs that run. */
  close(): Promise<void>;
};

/** Keeps slabs of one size, whole units of page-memory.ts, that which was asked for last. Who takes one has acquired its bytes before. */
function createSlabShelf(): SlabShelf {
  const idle: SharedArrayBuffer[] = [];
  return {
    take(bytes) {
      if (idle[0]?.byteLength !== bytes) idle.length = 0;
      return idle.pop() ?? createPageMemory(bytes);
    },
    put(slab) {
      if (idle.length > 0 && idle[0]?.byteLength !== slab.byteLength) return;
      idle.push(slab);
    },
  };
}

/** Bodies of zeros that are kept: a full backup of a sparse volume needs two or three lengths, a scattered one some more. */
const keptZeroBodies = 256;

/** Starts the threads. Throws `bug` if they cannot be started. */
export async function createSealer(options: SealerOptions): Promise<Sealer> {
  const count = options.threads ?? Math.min(4, availableParallelism());
  const { log } = options;
  const threads = await startSealThreads(count, { effort: options.zlibEffort ?? 'balanced' }, { log });
  log?.info({ deflate: threads.deflate, threads: count }, 'sealing threads are ready');
  const zeroBodies = new Map<string, Promise<SealedObject>>();
  /**
   * An object in pieces keeps its thread while it waits for the store or its taker: one thread is for those that wait for nobody. Not
   * of two: it would cost half of the speed with which backups of Cinder, whose objects are that large, are restored.
   */
  const inPieces = createBudget(Math.max(Math.min(count, 2), count - 1));

  return {
    deflate: threads.deflate,
    threads: count,
    shelf: createSlabShelf(),
    async seal(job) {
      const objects = new Float64Array(job.objects.length * numbersOfObject);
      for (const [n, { start, length, offset }] of job.objects.entries()) {
        objects.set([start, length, offset], n * numbersOfObject);
      }
      const { bodies, md5s } = await threads.run({ kind: 'seal', job: { ...job, objects } });
      const memory = job.out ?? job.slab;
      return job.objects.map((_, n) => {
        const [start = 0, length = 0, compressed = 0] = bodies.subarray(n * numbersOfBody);
        return {
          codec: compressed === 1 ? job.codec : 'none',
          md5: md5s.slice(n * digitsOfMd5, (n + 1) * digitsOfMd5),
          body: Buffer.from(memory, start, length),
        };
      });
    },
    sealZeros(lengthBytes, codec) {
      const key = `${codec} ${lengthBytes}`;
      const kept = zeroBodies.get(key);
      if (kept !== undefined) return kept;
      const made = threads.run({ kind: 'zeros', length: lengthBytes, codec }).then((sealed) => ({
        codec: sealed.codec,
        md5: sealed.md5,
        body: Buffer.from(sealed.body.buffer, sealed.body.byteOffset, sealed.body.byteLength),
      }));
      const oldest = zeroBodies.size < keptZeroBodies ? undefined : zeroBodies.keys().next().value;
      if (oldest !== undefined) zeroBodies.delete(oldest);
      zeroBodies.set(key, made);
      made.catch(() => zeroBodies.delete(key));
      return made;
    },
    unseal: (jobs) => threads.run({ kind: 'unseal', jobs }),
    unsealStream: (job) => withLimit(inPieces, () => unsealInPieces(threads, job), job.signal),
    close: () => threads.close(),
  };
}
