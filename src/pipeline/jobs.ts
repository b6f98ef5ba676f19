/** What the pipelines are given, and what they report. The algorithms stand in backup.ts, restore.ts and verify.ts. */
import type { Budget } from '../async/limit.ts';
import type { Logger } from '../log.ts';
import type { Codec } from '../model/codec.ts';
import type { BackupHead, DeltaRecord, MetadataDocument } from '../layout/metadata-document.ts';
import type { LayerHead } from '../layout/read-layer.ts';
import type { ObjectStore } from '../store/object-store.ts';
import type { BlockSource, RestoreTarget } from '../volume/block-source.ts';
import type { Sealer } from './sealer.ts';

/** Counters of a running operation; they only grow, but for `plannedBytes`, which gets better. */
export type Progress = {
  /** Volume bytes that the operation will handle; null while unknown. */
  plannedBytes: number | null;
  /** Volume bytes handled so far. */
  doneBytes: number;
  /** Bytes read at the source: the volume for a backup, the store for a restore. */
  readBytes: number;
  /** Volume bytes that crossed the network between service and agent. */
  sentBytes: number;
  /** Bytes of objects put into the store, compressed. */
  storedBytes: number;
};

/** What the pipelines share in one process. */
export type PipelineResources = {
  readonly store: ObjectStore;
  readonly sealer: Sealer;
  /** Bytes of buffers that all operations together may hold. */
  readonly memory: Budget;
  /** Bytes of object lists that all restores and verifications together may hold: see object-room.ts. */
  readonly objectLists: Budget;
  readonly log: Logger;
};

/** Where the objects of one backup are: its row's `container` and `service_metadata`. */
export type BackupPlace = { readonly container: string; readonly prefix: string };

/** A backup that has been read back from the store: one layer of a chain. */
export type Layer = { readonly place: BackupPlace; readonly metadata: MetadataDocument };

export type BackupJob = {
  readonly place: BackupPlace;
  readonly head: BackupHead;
  readonly volumeMeta: string | null;
  readonly source: BlockSource;
  readonly codec: Codec;
  /** Configured size of an object, in bytes: a multiple of the block size. */
  readonly objectBytes: number;
  /** In a comparison, unchanged gaps of at most so many bytes between two changed ranges are stored with them: 0 unless given. */
  readonly mergeGapBytes?: number;
  /** The mode, and what it stands on. `delta` and `compare` have a parent. */
  readonly way:
    | { readonly mode: 'full'; readonly reason: string }
    | { readonly mode: 'compare'; readonly reason: string; readonly parent: LayerHead }
    | {
        readonly mode: 'delta';
        readonly reason: string;
        readonly parent: LayerHead;
        readonly previous: { readonly name: string; readonly identity: string };
      };
  readonly base: DeltaRecord['base'];
  readonly progress: Progress;
  readonly signal: AbortSignal;
};

export type BackupOutcome = {
  readonly objectCount: number;
  readonly storedBytes: number;
  readonly readBytes: number;
};

export type RestoreJob = {
  /** Full backup first, the wanted one last. */
  readonly chain: readonly Layer[];
  /**
   * Opens the target: not smaller than the backup; what lies beyond is not touched. Asked once, when the restore has its memory; the
   * restore closes what it gets.
   */
  readonly openTarget: () => Promise<RestoreTarget>;
  readonly progress: Progress;
  readonly signal: AbortSignal;
};

export type BadRange = {
  readonly offset: number;
  readonly length: number;
  readonly backupId: string;
  readonly object: string;
  /** What is wrong: a sentence. */
  readonly reason: string;
};

/** A layer whose metadata cannot be read. */
export type UnreadableLayer = { readonly backupId: string; readonly object: string; readonly reason: string };

export type VerifyJob = {
  /** The layers that could be read, in the order of the chain: at least one. */
  readonly chain: readonly Layer[];
  /** The others: while there are any, nothing can be merged, and each layer is checked alone. */
  readonly unreadable: readonly UnreadableLayer[];
  readonly progress: Progress;
  readonly signal: AbortSignal;
};

export type VerifyOutcome = {
  /** Bytes of the volume; where layers could not be read, those of every other layer. */
  readonly checkedBytes: number;
  /** Bad ranges in all, and at most how many bytes of the volume they are. */
  readonly badCount: number;
  readonly badBytes: number;
  /** The first thousand, by offset. */
  readonly badRanges: readonly BadRange[];
};
