/** A backup as its row has it, in both directions. */
import type { Selectable, Updateable } from 'kysely';
import type { Backup } from '../model/backup.ts';
import { cutText, readFlag, readSetTime, readTime } from './row-values.ts';
import type { BackupsTable } from './tables.ts';

export type BackupChanges = {
  readonly failReason?: string | null;
  readonly container?: string | null;
  readonly prefix?: string | null;
  readonly service?: string;
  readonly sizeGiB?: number;
  readonly objectCount?: number | null;
  readonly parentId?: string | null;
  readonly restoreVolumeId?: string | null;
  readonly host?: string;
  readonly availabilityZone?: string | null;
  readonly encryptionKeyId?: string | null;
  readonly tempVolumeId?: string | null;
  readonly tempSnapshotId?: string | null;
  /** What only an imported record changes. */
  readonly volumeId?: string;
  readonly snapshotId?: string | null;
  readonly name?: string | null;
  readonly description?: string | null;
  readonly dependents?: number;
  readonly dataTimestamp?: Date | null;
  readonly createdAt?: Date;
};

/** What is undefined is left as it is. */
export function toColumns(changes: BackupChanges): Updateable<BackupsTable> {
  const { failReason } = changes;
  return {
    fail_reason: typeof failReason === 'string' ? cutText(failReason, 255) : failReason,
    container: changes.container,
    service_metadata: changes.prefix,
    service: changes.service,
    size: changes.sizeGiB,
    object_count: changes.objectCount,
    parent_id: changes.parentId,
    restore_volume_id: changes.restoreVolumeId,
    host: changes.host,
    availability_zone: changes.availabilityZone,
    encryption_key_id: changes.encryptionKeyId,
    temp_volume_id: changes.tempVolumeId,
    temp_snapshot_id: changes.tempSnapshotId,
    volume_id: changes.volumeId,
    snapshot_id: changes.snapshotId,
    display_name: changes.name,
    display_description: changes.description,
    num_dependent_backups: changes.dependents,
    data_timestamp: changes.dataTimestamp,
    created_at: changes.createdAt,
  };
}

/** The backup that a row tells of. */
export function fromRow(row: Selectable<BackupsTable>): Backup {
  return {
    id: row.id,
    projectId: row.project_id ?? '',
    userId: row.user_id,
    volumeId: row.volume_id,
    snapshotId: row.snapshot_id,
    parentId: row.parent_id,
    restoreVolumeId: row.restore_volume_id,
    name: row.display_name,
    description: row.display_description,
    host: row.host,
    availabilityZone: row.availability_zone,
    status: row.status ?? 'error',
    failReason: row.fail_reason,
    container: row.container,
    prefix: row.service_metadata,
    service: row.service,
    sizeGiB: row.size ?? 0,
    objectCount: row.object_count,
    dependents: row.num_dependent_backups ?? 0,
    dataTimestamp: readTime(row.data_timestamp),
    encryptionKeyId: row.encryption_key_id,
    createdAt: readSetTime(row.created_at),
    updatedAt: readTime(row.updated_at),
    deleted: readFlag(row.deleted),
  };
}
