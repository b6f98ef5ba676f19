/**
 * The `_metadata` document of a backup, as Cinder's chunked driver writes and reads it
 * (cinder/backup/chunkeddriver.py, _write_metadata and _restore_v1), and what we add to it.
 */
import type { Codec } from '../model/codec.ts';

/** One stored object: a contiguous extent of the volume. */
export type ObjectEntry = {
  readonly key: string;
  readonly offset: number;
  readonly length: number;
  /** Lower-case hex MD5 of the uncompressed bytes. */
  readonly md5: string;
  readonly codec: Codec;
};

/** Entries that may be made only when they are asked for. */
export type ObjectList = Iterable<ObjectEntry> & {
  readonly length: number;
  at(index: number): ObjectEntry | undefined;
};

export type BackupMode = 'delta' | 'compare' | 'full';

/** The storage snapshot that a backup was read from: what a later delta must find again before it is trusted. */
export type BaseSnapshot = {
  /** `host` of the volume without the pool: where the agent is. */
  readonly backend: string;
  readonly volumeName: string;
  readonly volumeIdentity: string;
  readonly snapshotName: string;
  readonly snapshotIdentity: string;
};

/** The top-level key `cinder_delta`, which Python ignores. */
export type DeltaRecord = {
  readonly mode: BackupMode;
  /** Why that mode: the sentence of the log. */
  readonly reason: string;
  /** Bytes of the volume: `size` of the row counts whole GiB only. */
  readonly lengthBytes: number;
  readonly blockSize: number;
  readonly base: BaseSnapshot | null;
  /** Bytes of data read at the source, and bytes stored. */
  readonly readBytes: number;
  readonly storedBytes: number;
};

/** What heads both closing documents. */
export type BackupHead = {
  readonly backupId: string;
  readonly volumeId: string;
  readonly backupName: string | null;
  readonly backupDescription: string | null;
  /** Python's `str(datetime)`. */
  readonly createdAt: string;
  readonly parentId: string | null;
};

/** A document without its objects: what an increment needs to know of its parent. */
export type MetadataHead = BackupHead & {
  /** A JSON text, kept as it is. */
  readonly volumeMeta: string | null;
  readonly extraMetadata: unknown;
  readonly delta: DeltaRecord | null;
};

export type MetadataDocument = MetadataHead & {
  /** Sorted by offset, then by key. */
  readonly objects: ObjectList;
};
