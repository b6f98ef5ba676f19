/** What the sealer's threads are asked and what they answer: structured-clone data. */
import type { MessagePort } from 'node:worker_threads';
import type { ErrorCode, ErrorDetails } from '../model/errors.ts';
import type { Codec } from '../model/codec.ts';
import type { DeflateEffort } from './codecs/open-codecs.ts';
import type { SealedSlab, SlabJob } from './seal-slab.ts';
import type { ObjectFault, UnsealJob } from './sealer.ts';
import type { PiecesJob } from './unseal-pieces.ts';

export type WorkerSettings = { readonly effort: DeflateEffort };

/** The first message of a worker: which deflate it found. */
export type WorkerReady = { readonly kind: 'ready'; readonly deflate: string };

export type WorkerTask =
  | { readonly kind: 'seal'; readonly job: SlabJob }
  | { readonly kind: 'zeros'; readonly length: number; readonly codec: Codec }
  | { readonly kind: 'unseal'; readonly jobs: readonly UnsealJob[] }
  | { readonly kind: 'pieces'; readonly job: PiecesJob & { readonly port: MessagePort } };

export type TaskResult = {
  readonly seal: SealedSlab;
  readonly zeros: { readonly codec: Codec; readonly md5: string; readonly body: Uint8Array };
  readonly unseal: readonly (readonly ObjectFault[])[];
  readonly pieces: readonly ObjectFault[];
};

export type WorkerAnswer =
  | { readonly kind: 'done'; readonly result: unknown }
  | {
      readonly kind: 'failed';
      readonly code: ErrorCode;
      readonly message: string;
      readonly stack: string | undefined;
      readonly details: ErrorDetails;
    };
