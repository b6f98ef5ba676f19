/** What the verbs of the manager work with, and the storage side as they see it. */
import type { Database } from '../database/database.ts';
import type { QuotaRules } from '../database/quotas.ts';
import type { NamingKind } from '../layout/names.ts';
import type { Logger } from '../log.ts';
import type { Clock } from '../model/clock.ts';
import type { Codec } from '../model/codec.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { PipelineResources } from '../pipeline/jobs.ts';
import type { BackendInfo, SnapshotInfo, VolumeDetail, VolumeInfo, VolumeList } from '../protocol/calls.ts';
import type { BlockSource, RestoreTarget } from '../volume/block-source.ts';
import type { Cloud } from './cloud.ts';

/** One backend of one agent. Errors are those of the volume room. */
export type StorageBackend = {
  /** `host@backend`, as it stands in a volume's `host` and in the metadata of backups. */
  readonly name: string;
  info(signal: AbortSignal): Promise<BackendInfo>;
  /** Volumes, and the names of those that are gone but have snapshots left. */
  listVolumes(signal: AbortSignal): Promise<VolumeList>;
  getVolume(volume: string, signal: AbortSignal): Promise<VolumeDetail>;
  createVolume(volume: string, sizeBytes: number, signal: AbortSignal): Promise<VolumeInfo>;
  resizeVolume(volume: string, sizeBytes: number, signal: AbortSignal): Promise<VolumeInfo>;
  /** Also of a volume that is gone. */
  listSnapshots(volume: string, signal: AbortSignal): Promise<readonly SnapshotInfo[]>;
  createSnapshot(volume: string, snapshot: string, signal: AbortSignal): Promise<SnapshotInfo>;
  /** Succeeds also if the snapshot, or the volume, is gone. */
  deleteSnapshot(volume: string, snapshot: string, signal: AbortSignal): Promise<void>;
  /** The streams of one snapshot: `identity` and `lengthBytes` are that snapshot's. */
  openSource(of: {
    readonly volume: string;
    readonly snapshot: string;
    readonly identity: string;
    readonly lengthBytes: number;
    readonly blockSize: number;
    readonly mergeGapBytes: number;
  }): BlockSource;
  openTarget(volume: string, sizeBytes: number, signal: AbortSignal): Promise<RestoreTarget>;
};

/** Finds the agent of a volume. */
export type StorageDirectory = {
  /** The backend that a volume's `host` names. `agent-unavailable` if no agent is known for it. */
  forHost(host: string | null): StorageBackend;
  /** Every backend that this process may look after. */
  all(): readonly StorageBackend[];
};

export type ManagerOptions = {
  /** `backups.host` and `services.host`. */
  readonly host: string;
  readonly availabilityZone: string;
  /** How the store's objects are named. */
  readonly naming: NamingKind;
  /** The container of backups that name none; undefined: what Cinder's driver takes. */
  readonly container: string | undefined;
  readonly objectBytes: number;
  readonly blockSize: number;
  readonly codec: Codec;
  /** Changed ranges nearer than this become one object. */
  readonly mergeGapBytes: number;
  /** `version` of `volume_meta` in new backups: backup_metadata_version. */
  readonly metadataVersion: number;
  /** Bound on putting things right after a failure. */
  readonly cleanupTimeoutMs: number;
  /** Bound on waiting for agents where others wait meanwhile: what they were to remove can be removed later. */
  readonly agentTimeoutMs: number;
  /** Bound on waiting for a database that is away, where only a row gives back what is held. */
  readonly rowTimeoutMs: number;
  /** How often the row of a running operation is looked at: somebody may have taken it. */
  readonly watchIntervalMs: number;
  /** A service that has given no sign of life for so long is down: service_down_time. */
  readonly serviceDownMs: number;
  /** How long users can read of a failure: message_ttl. */
  readonly messageTtlMs: number;
  /** Backup snapshots that stay on the storage for each volume; 0: every increment compares. */
  readonly keepSnapshots: number;
  /** How a project's quota is counted that gets a backup back; null: it is not counted. */
  readonly quota: QuotaRules | null;
  /** When `createprogress` is notified: each so many objects, and each so many ms; 0: not by time. */
  readonly notifyProgress: { readonly objects: number; readonly intervalMs: number };
};

export type ManagerEnvironment = {
  readonly database: Database;
  readonly resources: PipelineResources;
  readonly storage: StorageDirectory;
  readonly clock: Clock;
  readonly log: Logger;
  readonly options: ManagerOptions;
  readonly cloud: Cloud;
};

/** What a verb is done for: the one who asks, and the environment in which it is done for him. */
export type RequestScope = {
  readonly environment: ManagerEnvironment;
  readonly context: RequestContext;
};
