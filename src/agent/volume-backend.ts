/**
 * The contract of a volume backend: one kind of storage, as the agent sees it. Every implementation passes
 * test/contract/volume-backend.ts. Names have been validated before they get here; nothing may be passed to a shell.
 *
 * - Snapshots are immutable and survive a restart; one that is half made when the process dies is not listed afterwards.
 * - `identity` of a volume or snapshot is different for each one ever made, also under the same name.
 * - Absent is `not-found`; a name that is taken by something else is `already-exists`; out of room is `store-full`.
 */
import type { TypedExtent } from '../model/extent.ts';
import type { BackendInfo, SnapshotInfo, StreamPlan, VolumeDetail, VolumeInfo } from '../protocol/calls.ts';

/** What the agent's reader threads read: structured-clone data that names something which this process holds open. */
export type ReadHandle =
  | { readonly kind: 'file'; readonly fd: number }
  /** An `rbd_image_t` of librbd, set to a snapshot; `cluster` and `thing` name it in errors, `fsid` is its cluster's. */
  | {
      readonly kind: 'rbd';
      readonly image: bigint;
      readonly cluster: string;
      readonly fsid: string;
      readonly thing: string;
    };

/** A snapshot that is open for reading; `handle` is good until it is closed, and whoever opened it closes it. */
export type OpenSnapshot = {
  readonly sizeBytes: number;
  readonly identity: string;
  readonly handle: ReadHandle;
  /** Throws `state-invalid` unless the snapshot of that name is still this one. */
  requireNamed(): Promise<void>;
  /**
   * To be asked after the last byte was read: throws `state-invalid` unless all that was read since it was opened is
   * this snapshot's, also if its name was removed meanwhile.
   */
  requireWhole(): Promise<void>;
  close(): Promise<void>;
};

export type FoundRanges = {
  readonly method: StreamPlan['method'];
  readonly reason: string;
  /**
   * Sorted, not overlapping, as found (not yet widened to blocks). `data` has to be read, `zero` reads as zeros.
   * With no previous snapshot the two kinds tile everything; else what is not named is unchanged.
   * An array where all of them are known before anything is read.
   */
  readonly extents: readonly TypedExtent[] | AsyncIterable<TypedExtent>;
  /** Bytes that finding them has read from storage so far (grows while `extents` is consumed). */
  readBytes(): number;
  /** Lets go of what finding holds open, also if `extents` was never iterated. May be called twice. */
  close(): Promise<void>;
};

export type FindRequest = {
  readonly volume: string;
  readonly previous: string | null;
  /** `delta-unavailable` unless the previous snapshot has this identity. */
  readonly previousIdentity: string | null;
  readonly current: string;
  /** Bytes to look at; `message-invalid` unless it is the size of the current snapshot. */
  readonly lengthBytes: number;
  readonly blockSize: number;
  /** Look from here on: a block boundary. */
  readonly startOffset: number;
  readonly signal: AbortSignal;
};

/** An open restore target. Writes may run side by side, at any offset inside the volume. */
export type WriteTarget = {
  readonly sizeBytes: number;
  write(offset: number, bytes: Buffer): Promise<void>;
  /** The range reads as zeros afterwards, as a hole where the storage can. */
  zero(offset: number, length: number): Promise<void>;
  /** Everything written is on stable storage. */
  flush(): Promise<void>;
  close(): Promise<void>;
};

export type VolumeBackend = {
  readonly info: BackendInfo;
  /** Looks at each volume: begins no other one when the signal aborts. */
  listVolumes(signal: AbortSignal): Promise<readonly VolumeInfo[]>;
  /** Names of volumes that are gone but have snapshots left. */
  listGone(): Promise<readonly string[]>;
  getVolume(volume: string): Promise<VolumeDetail>;
  /** Also of a volume that is gone; empty if there are none. A damaged one is left out, and logged. */
  listSnapshots(volume: string): Promise<readonly SnapshotInfo[]>;
  /** A new volume of zeros. `state-invalid` where `info.create_volume` is false. */
  createVolume(volume: string, sizeBytes: number): Promise<VolumeInfo>;
  /** Grows a volume; `message-invalid` if it would shrink. `state-invalid` where `info.create_volume` is false. */
  resizeVolume(volume: string, sizeBytes: number): Promise<VolumeInfo>;
  /** Returns the snapshot of that name, making it if it is absent. */
  createSnapshot(volume: string, snapshot: string, signal: AbortSignal): Promise<SnapshotInfo>;
  /** Succeeds also if it is absent; removes damaged ones too, and those of a volume that is gone. */
  deleteSnapshot(volume: string, snapshot: string): Promise<void>;
  findRanges(request: FindRequest): Promise<FoundRanges>;
  /** `not-found` if absent; `state-invalid` if it was removed or made anew while it was opened. */
  openSnapshot(volume: string, snapshot: string): Promise<OpenSnapshot>;
  /** `not-found` if absent; `state-invalid` if another target on it is open. */
  openTarget(volume: string): Promise<WriteTarget>;
  /** Removes what a dead process left half made. Called once, before the first request. */
  recover(): Promise<void>;
  close(): Promise<void>;
};
