/** Volumes and Cinder snapshots as their rows tell it. */
import { volumeName } from './names.ts';

export const gibibyte = 1024 ** 3;

export type Volume = {
  readonly id: string;
  /** The id under which the storage knows it: another one after a migration (`_name_id`). */
  readonly nameId: string;
  readonly projectId: string;
  readonly userId: string | null;
  /** `host@backend#pool`. */
  readonly host: string | null;
  readonly sizeGiB: number;
  readonly availabilityZone: string | null;
  readonly status: string;
  /** What the status was before `backing-up`. */
  readonly previousStatus: string | null;
  readonly name: string | null;
  readonly description: string | null;
  readonly bootable: boolean;
  readonly encryptionKeyId: string | null;
  readonly createdAt: Date;
  readonly updatedAt: Date | null;
  readonly launchedAt: Date | null;
};

export type Snapshot = {
  readonly id: string;
  readonly volumeId: string;
  readonly projectId: string;
  readonly userId: string | null;
  readonly status: string;
  readonly volumeSizeGiB: number;
  readonly name: string | null;
  readonly description: string | null;
  readonly createdAt: Date;
  readonly updatedAt: Date | null;
};

/** Statuses of a volume that are written here (cinder/objects/fields.py, VolumeStatus). */
export type VolumeStatus =
  | 'creating'
  | 'available'
  | 'in-use'
  | 'backing-up'
  | 'restoring-backup'
  | 'error_restoring'
  | 'extending'
  | 'error_extending'
  | 'error';

/** Statuses of a Cinder snapshot that are written here. */
export type SnapshotStatus = 'creating' | 'available' | 'backing-up' | 'deleting' | 'deleted' | 'error';

/** What the volume is called on the storage. */
export function nameOnStorage({ nameId }: Pick<Volume, 'nameId'>): string {
  return volumeName(nameId);
}

/** `host` without the pool: what names a backend in the metadata of a backup. */
export function backendOf(host: string): string {
  return host.split('#', 1)[0] ?? host;
}

/** Whole GiB that hold `bytes`. */
export function toGiB(bytes: number): number {
  return Math.ceil(bytes / gibibyte);
}
