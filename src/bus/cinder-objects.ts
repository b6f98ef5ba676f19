/**
 * Cinder's objects as the rest of the project speaks of them: Backup 1.0 to 1.7 (and BackupImport), Volume, Snapshot,
 * BackupDeviceInfo (cinder/objects/). Names and times are translated here; a field that is missing or null is null.
 */
import { z } from 'zod';
import type { Backup } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import {
  encodeMap,
  isVersionedObject,
  requireObject,
  versionedObject,
  type Entity,
  type EntityMap,
  type VersionedObject,
} from './versioned-object.ts';

export type BackupObject = {
  readonly backup: Backup;
  /** User metadata; null if the object does not carry it. */
  readonly metadata: Readonly<Record<string, string>> | null;
  /** The parent as an object (1.7); undefined if the message does not carry it. */
  readonly parent: VersionedObject | null | undefined;
  readonly tempVolumeId: string | null;
  readonly tempSnapshotId: string | null;
  readonly deletedAt: Date | null;
};

export type VolumeObject = {
  readonly id: string;
  /** The id under which the storage knows it: another one after a migration. */
  readonly nameId: string;
  /** `host@backend#pool`. */
  readonly host: string | null;
  readonly clusterName: string | null;
  readonly sizeGiB: number;
  readonly status: string | null;
  readonly previousStatus: string | null;
  readonly encryptionKeyId: string | null;
};

export type SnapshotObject = {
  readonly id: string;
  readonly volumeId: string;
  readonly volumeSizeGiB: number;
  readonly status: string | null;
};

/** What cinder-volume hands out to be backed up. */
export type BackupDevice =
  | { readonly kind: 'volume'; readonly object: VersionedObject; readonly volume: VolumeObject }
  | { readonly kind: 'snapshot'; readonly object: VersionedObject; readonly snapshot: SnapshotObject };

const text = z
  .string()
  .nullish()
  .transform((value) => value ?? null);
const count = z.number().int().nonnegative().nullish();
const time = z
  .string()
  .nullish()
  .transform((value, issues) => {
    if (value === null || value === undefined) return null;
    const date = new Date(/(?:z|[+-]\d\d:?\d\d)$/iu.test(value) ? value : `${value}Z`);
    if (Number.isNaN(date.getTime())) issues.addIssue(`"${value}" is not a time`);
    return date;
  });

const backupFields = z.looseObject({
  id: z.string(),
  user_id: text,
  project_id: z.string(),
  volume_id: z.string(),
  host: text,
  availability_zone: text,
  container: text,
  parent_id: text,
  status: text,
  fail_reason: text,
  size: count,
  display_name: text,
  display_description: text,
  service_metadata: text,
  service: text,
  object_count: count,
  temp_volume_id: text,
  temp_snapshot_id: text,
  num_dependent_backups: count,
  snapshot_id: text,
  data_timestamp: time,
  restore_volume_id: text,
  metadata: z.record(z.string(), z.string()).nullish(),
  encryption_key_id: text,
  created_at: time,
  updated_at: time,
  deleted_at: time,
  deleted: z.boolean().nullish(),
});

/** Reads a Backup or BackupImport. Throws `message-invalid` naming the field, `version-unsupported`. */
export function readBackup(entity: Entity | undefined): BackupObject {
  const isImport = isVersionedObject(entity) && entity.name === 'BackupImport';
  const object = requireObject(entity, isImport ? 'BackupImport' : 'Backup');
  const fields = parseFields(object, backupFields);
  const parent = object.data['parent'];
  return {
    backup: {
      id: fields.id,
      projectId: fields.project_id,
      userId: fields.user_id,
      volumeId: fields.volume_id,
      snapshotId: fields.snapshot_id,
      parentId: fields.parent_id,
      restoreVolumeId: fields.restore_volume_id,
      name: fields.display_name,
      description: fields.display_description,
      host: fields.host,
      availabilityZone: fields.availability_zone,
      status: fields.status ?? '',
      failReason: fields.fail_reason,
      container: fields.container,
      prefix: fields.service_metadata,
      service: fields.service,
      sizeGiB: fields.size ?? 0,
      objectCount: fields.object_count ?? null,
      dependents: fields.num_dependent_backups ?? 0,
      dataTimestamp: fields.data_timestamp,
      encryptionKeyId: fields.encryption_key_id,
      createdAt: fields.created_at ?? new Date(0),
      updatedAt: fields.updated_at,
      deleted: fields.deleted ?? false,
    },
    metadata: fields.metadata ?? null,
    parent: parent === undefined ? undefined : isVersionedObject(parent) ? parent : null,
    tempVolumeId: fields.temp_volume_id,
    tempSnapshotId: fields.temp_snapshot_id,
    deletedAt: fields.deleted_at,
  };
}

/** Versions of Backup that peers may ask for, by the object version that the service's row says. */
export type BackupVersion = '1.6' | '1.7';

/**
 * The object of a backup, its fields in Cinder's order. Version 1.6 has no `parent`. Counts that are null are 0, as
 * Cinder's `_from_db_object` makes them.
 */
export function writeBackup(
  { backup, metadata, parent, tempVolumeId, tempSnapshotId, deletedAt }: BackupObject,
  version: BackupVersion = '1.7',
  changes?: readonly string[],
): VersionedObject {
  const nested = version === '1.6' || parent === undefined ? {} : { parent };
  const data: EntityMap = {
    id: backup.id,
    user_id: backup.userId,
    project_id: backup.projectId,
    volume_id: backup.volumeId,
    host: backup.host,
    availability_zone: backup.availabilityZone,
    container: backup.container,
    parent_id: backup.parentId,
    ...nested,
    status: backup.status,
    fail_reason: backup.failReason,
    size: backup.sizeGiB,
    display_name: backup.name,
    display_description: backup.description,
    service_metadata: backup.prefix,
    service: backup.service,
    object_count: backup.objectCount ?? 0,
    temp_volume_id: tempVolumeId,
    temp_snapshot_id: tempSnapshotId,
    num_dependent_backups: backup.dependents,
    snapshot_id: backup.snapshotId,
    data_timestamp: formatTime(backup.dataTimestamp),
    restore_volume_id: backup.restoreVolumeId,
    ...(metadata === null ? {} : { metadata }),
    encryption_key_id: backup.encryptionKeyId,
    created_at: formatTime(backup.createdAt),
    updated_at: formatTime(backup.updatedAt),
    deleted_at: formatTime(deletedAt),
    deleted: backup.deleted,
  };
  return versionedObject('Backup', version, data, changes);
}

const volumeFields = z.looseObject({
  id: z.string(),
  _name_id: text,
  host: text,
  cluster_name: text,
  size: count,
  status: text,
  previous_status: text,
  encryption_key_id: text,
});

/** Reads a Volume. Throws `message-invalid` naming the field, `version-unsupported`. */
export function readVolume(entity: Entity | undefined): VolumeObject {
  const fields = parseFields(requireObject(entity, 'Volume'), volumeFields);
  return {
    id: fields.id,
    nameId: fields['_name_id'] ?? fields.id,
    host: fields.host,
    clusterName: fields.cluster_name,
    sizeGiB: fields.size ?? 0,
    status: fields.status,
    previousStatus: fields.previous_status,
    encryptionKeyId: fields.encryption_key_id,
  };
}

const snapshotFields = z.looseObject({
  id: z.string(),
  volume_id: z.string(),
  volume_size: count,
  status: text,
});

/** Reads a Snapshot. Throws `message-invalid` naming the field, `version-unsupported`. */
export function readSnapshot(entity: Entity | undefined): SnapshotObject {
  const fields = parseFields(requireObject(entity, 'Snapshot'), snapshotFields);
  return {
    id: fields.id,
    volumeId: fields.volume_id,
    volumeSizeGiB: fields.volume_size ?? 0,
    status: fields.status,
  };
}

/** Reads the BackupDeviceInfo of continue_backup. Throws `message-invalid`, `version-unsupported`. */
export function readBackupDevice(entity: Entity | undefined): BackupDevice {
  const { volume, snapshot } = requireObject(entity, 'BackupDeviceInfo').data;
  if (isVersionedObject(volume)) return { kind: 'volume', object: volume, volume: readVolume(volume) };
  if (isVersionedObject(snapshot))
    return { kind: 'snapshot', object: snapshot, snapshot: readSnapshot(snapshot) };
  throw new BackupError('message-invalid', 'BackupDeviceInfo has neither a volume nor a snapshot');
}

/** The objects of a list object (`BackupList`, `LogLevelList`, ...). Throws `message-invalid`. */
export function readList(entity: Entity | undefined, name: string): readonly VersionedObject[] {
  const { objects } = requireObject(entity, name).data;
  if (!Array.isArray(objects)) throw new BackupError('message-invalid', `${name} has no list of objects`);
  return objects.filter(isVersionedObject);
}

/** `YYYY-MM-DDTHH:MM:SSZ`: versioned objects have whole seconds. */
export function formatTime(date: Date | null): string | null {
  return date === null ? null : `${date.toISOString().slice(0, 19)}Z`;
}

function parseFields<T>(object: VersionedObject, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(encodeMap(object.data));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const field = issue?.path.join('.') ?? '';
  throw new BackupError(
    'message-invalid',
    `${object.name} ${object.version}: field ${field}: ${issue?.message ?? 'invalid'}`,
    {
      cause: parsed.error,
    },
  );
}
