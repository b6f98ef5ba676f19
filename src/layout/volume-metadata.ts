/**
 * `volume_meta`: the volume's rows as one JSON string inside `_metadata`.
 * Followed: BackupMetadataAPI of cinder/backup/driver.py (`get`, `put`, `_v1_restore_factory`, `_v2_restore_factory`).
 */
import { z } from 'zod';
import { BackupError } from '../model/errors.ts';
import { corruptDocument } from './json-parser.ts';
import { pythonJsonLine } from './python-json.ts';

type Column = string | number | bigint | boolean | Date | null;

/** What is saved of a volume: rows as the database gives them. */
export type VolumeRows = {
  /** The row of `volumes`, by column. */
  readonly volume: Readonly<Record<string, Column>>;
  /** `volume_metadata`. */
  readonly metadata: Readonly<Record<string, string | null>>;
  /** `volume_glance_metadata`. */
  readonly glanceMetadata: Readonly<Record<string, string | null>>;
};

/** The columns in the order of Cinder's Volume model; others follow as they come. */
const columnOrder = [
  'created_at',
  'updated_at',
  'deleted_at',
  'deleted',
  'id',
  '_name_id',
  'use_quota',
  'ec2_id',
  'user_id',
  'project_id',
  'snapshot_id',
  'cluster_name',
  'host',
  'size',
  'availability_zone',
  'status',
  'attach_status',
  'migration_status',
  'scheduled_at',
  'launched_at',
  'terminated_at',
  'display_name',
  'display_description',
  'provider_location',
  'provider_auth',
  'provider_geometry',
  'provider_id',
  'volume_type_id',
  'source_volid',
  'encryption_key_id',
  'consistencygroup_id',
  'group_id',
  'bootable',
  'multiattach',
  'replication_status',
  'replication_extended_status',
  'replication_driver_data',
  'previous_status',
  'service_uuid',
  'shared_targets',
];
const booleanColumns = new Set(['deleted', 'use_quota', 'bootable', 'multiattach', 'shared_targets']);
const timeColumns = new Set([
  'created_at',
  'updated_at',
  'deleted_at',
  'scheduled_at',
  'launched_at',
  'terminated_at',
]);

/** The string for `volume_meta`, as oslo.serialization's `jsonutils.dumps` writes it; `version` is backup_metadata_version. */
export function encodeVolumeMetadata(rows: VolumeRows, version = 2): string {
  const { volume } = rows;
  const known = columnOrder.filter((column) => Object.hasOwn(volume, column));
  const others = Object.keys(volume).filter((column) => !columnOrder.includes(column));
  const base = Object.fromEntries(
    [...known, ...others].map((column) => [column, columnValue(column, volume[column] ?? null)]),
  );
  return pythonJsonLine({
    version,
    'volume-base-metadata': base,
    ...(Object.keys(rows.metadata).length > 0 ? { 'volume-metadata': rows.metadata } : {}),
    ...(Object.keys(rows.glanceMetadata).length > 0 ? { 'volume-glance-metadata': rows.glanceMetadata } : {}),
  });
}

function columnValue(column: string, value: Column): string | number | boolean | null {
  if (value === null) return null;
  if (booleanColumns.has(column)) return Boolean(Number(value));
  if (value instanceof Date || timeColumns.has(column)) return pythonTime(value);
  return typeof value === 'bigint' ? Number(value) : value;
}

/** `%Y-%m-%dT%H:%M:%S.%f` in UTC; of a text that is a time already, only the form is changed. */
function pythonTime(value: Exclude<Column, null>): string {
  const text = value instanceof Date ? value.toISOString() : String(value);
  const parts = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(?:Z|\+00:00)?$/.exec(text);
  if (parts === null) return text;
  return `${parts[1]}T${parts[2]}.${(parts[3] ?? '').padEnd(6, '0')}`;
}

/** What a restore takes from `volume_meta`. A section or field that the backup does not have is absent. */
export type RestorableMetadata = {
  readonly base?: {
    readonly displayName?: string | null;
    readonly displayDescription?: string | null;
    /** Version 2 only. */
    readonly encryptionKeyId?: string | null;
    readonly volumeTypeId?: string | null;
  };
  readonly metadata?: Readonly<Record<string, string | null>>;
  /** Its presence makes the volume bootable. */
  readonly glanceMetadata?: Readonly<Record<string, string | null>>;
};

const maxVolumeMetaChars = 16 * 1024 * 1024;

const text = z.string().nullable().optional();
/** Python writes whatever the row holds; the columns themselves hold text. */
const properties = z
  .record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]))
  .transform((map) =>
    Object.fromEntries(
      Object.entries(map).map(([key, value]) => [key, value === null ? null : String(value)]),
    ),
  )
  .optional();
const documentSchema = z.object({
  version: z.number(),
  'volume-base-metadata': z
    .looseObject({
      display_name: text,
      display_description: text,
      encryption_key_id: text,
      volume_type_id: text,
    })
    .optional(),
  'volume-metadata': properties,
  'volume-glance-metadata': properties,
});

/**
 * What to restore from the `volume_meta` of backup `backupId`; null if it has none. Throws `version-unsupported` for a version other than
 * 1 and 2, `corrupt` for what is not such a document.
 */
export function decodeVolumeMetadata(volumeMeta: string | null, backupId: string): RestorableMetadata | null {
  if (volumeMeta === null || volumeMeta === '') return null;
  const name = `volume_meta of backup ${backupId}`;
  if (volumeMeta.length > maxVolumeMetaChars) {
    throw corruptDocument(name, `it is longer than ${maxVolumeMetaChars} characters`);
  }
  const parsed = documentSchema.safeParse(parseJson(volumeMeta, name));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw corruptDocument(name, `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'wrong shape'}`);
  }
  const { version } = parsed.data;
  if (version !== 1 && version !== 2) {
    throw new BackupError(
      'version-unsupported',
      `${name} has version ${version}: only 1 and 2 can be restored; restore it with the release of Cinder that made it`,
    );
  }
  const base = parsed.data['volume-base-metadata'];
  const metadata = parsed.data['volume-metadata'];
  const glanceMetadata = parsed.data['volume-glance-metadata'];
  return {
    ...(base === undefined ? {} : { base: restorableBase(base, version) }),
    ...(metadata === undefined ? {} : { metadata }),
    ...(glanceMetadata === undefined ? {} : { glanceMetadata }),
  };
}

type BaseSection = {
  readonly display_name?: string | null | undefined;
  readonly display_description?: string | null | undefined;
  readonly encryption_key_id?: string | null | undefined;
  readonly volume_type_id?: string | null | undefined;
};

function restorableBase(base: BaseSection, version: 1 | 2): NonNullable<RestorableMetadata['base']> {
  const encryption = version === 2;
  return {
    ...(base.display_name === undefined ? {} : { displayName: base.display_name }),
    ...(base.display_description === undefined ? {} : { displayDescription: base.display_description }),
    ...(base.encryption_key_id === undefined || !encryption
      ? {}
      : { encryptionKeyId: base.encryption_key_id }),
    ...(base.volume_type_id === undefined || !encryption ? {} : { volumeTypeId: base.volume_type_id }),
  };
}

function parseJson(textOfDocument: string, name: string): unknown {
  try {
    return JSON.parse(textOfDocument);
  } catch (error) {
    throw corruptDocument(name, 'it is not JSON', error);
  }
}
