/** A backup as its row tells it, and the statuses that it goes through (cinder/objects/fields.py, BackupStatus). */
import { invariant, isBackupError, messageOf } from './errors.ts';

export type BackupStatus =
  'creating' | 'available' | 'restoring' | 'deleting' | 'deleted' | 'error' | 'error_deleting';

export type Backup = {
  readonly id: string;
  readonly projectId: string;
  readonly userId: string | null;
  readonly volumeId: string;
  readonly snapshotId: string | null;
  readonly parentId: string | null;
  readonly restoreVolumeId: string | null;
  readonly name: string | null;
  readonly description: string | null;
  readonly host: string | null;
  readonly availabilityZone: string | null;
  /** One of BackupStatus, unless somebody wrote the row by hand. */
  readonly status: string;
  readonly failReason: string | null;
  readonly container: string | null;
  /** `service_metadata`: every object of the backup starts with it. */
  readonly prefix: string | null;
  /** The class path of Cinder's driver for the store. */
  readonly service: string | null;
  readonly sizeGiB: number;
  readonly objectCount: number | null;
  readonly dependents: number;
  /** When the data was on the volume: the creation of the backup, or of the Cinder snapshot it was read from. */
  readonly dataTimestamp: Date | null;
  readonly encryptionKeyId: string | null;
  readonly createdAt: Date;
  readonly updatedAt: Date | null;
  readonly deleted: boolean;
};

/** Which status may follow which. Every write of a status is one of these steps, made on the condition of its start. */
const steps: Readonly<Record<BackupStatus, readonly BackupStatus[]>> = {
  creating: ['available', 'error', 'deleting'],
  available: ['restoring', 'deleting', 'error', 'available'],
  restoring: ['available', 'deleting', 'error'],
  deleting: ['deleted', 'error', 'error_deleting', 'deleting', 'available'],
  error: ['deleting', 'available', 'error'],
  error_deleting: ['deleting', 'available', 'error'],
  deleted: [],
};

/** Throws `bug` unless every status of `from` may be followed by `to`. */
export function requireBackupStep(from: readonly BackupStatus[], to: BackupStatus): void {
  for (const status of from)
    invariant(steps[status].includes(to), `a backup never goes from ${status} to ${to}`);
}

/** `fail_reason` is a VARCHAR(255): the sentence of an error, cut there. What is not ours points to the log. */
export function failReasonOf(error: unknown): string {
  const sentence = isBackupError(error)
    ? error.message
    : `The service failed unexpectedly: ${messageOf(error)}; see its log.`;
  return sentence.length <= 255 ? sentence : `${sentence.slice(0, 254)}…`;
}
