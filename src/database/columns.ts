/**
 * Whether a database is Cinder's, and new enough. Columns that are not named here are neither read by name nor written: a
 * database of Zed has some that 2026.1 dropped from its models, and a newer one may have more.
 */
import { sql as raw, type Kysely } from 'kysely';
import { BackupError } from '../model/errors.ts';
import type { Tables } from './tables.ts';

type Needed = { readonly [T in keyof Tables]: readonly (keyof Tables[T])[] };

const life = ['created_at', 'updated_at', 'deleted_at', 'deleted'] as const;
const keyed = [...life, 'id', 'key', 'value'] as const;

/** What statements write or ask for by name. */
const needed: Needed = {
  backups: [
    ...life,
    ...(['id', 'volume_id', 'user_id', 'project_id', 'host', 'availability_zone'] as const),
    ...(['display_name', 'display_description', 'container', 'status', 'fail_reason', 'service'] as const),
    ...(['service_metadata', 'size', 'object_count', 'parent_id', 'temp_volume_id'] as const),
    ...(['temp_snapshot_id', 'num_dependent_backups', 'snapshot_id', 'data_timestamp'] as const),
    ...(['restore_volume_id', 'encryption_key_id'] as const),
  ],
  backup_metadata: [...keyed, 'backup_id'],
  volumes: [
    ...life,
    ...(['id', 'user_id', 'project_id', 'host', 'size', 'availability_zone', 'status'] as const),
    ...(['previous_status', 'display_name', 'display_description', 'launched_at', 'bootable'] as const),
    ...(['encryption_key_id', 'volume_type_id', '_name_id'] as const),
  ],
  volume_metadata: [...keyed, 'volume_id'],
  volume_admin_metadata: [...keyed, 'volume_id'],
  volume_glance_metadata: [...keyed, 'volume_id'],
  volume_types: [...life, 'id', 'name', 'description', 'is_public'],
  volume_type_extra_specs: [...keyed, 'volume_type_id'],
  volume_attachment: [...life, 'id', 'volume_id', 'attached_host', 'instance_uuid', 'attach_status'],
  snapshots: [
    ...life,
    ...(['id', 'volume_id', 'user_id', 'project_id', 'status', 'progress', 'volume_size'] as const),
    ...(['display_name', 'display_description'] as const),
  ],
  services: [
    ...life,
    ...(['id', 'host', 'binary', 'topic', 'report_count', 'disabled', 'availability_zone'] as const),
    ...(['rpc_current_version', 'object_current_version', 'replication_status', 'frozen', 'uuid'] as const),
  ],
  messages: [
    ...life,
    ...(['id', 'project_id', 'request_id', 'resource_type', 'resource_uuid', 'event_id'] as const),
    ...(['message_level', 'expires_at', 'detail_id', 'action_id'] as const),
  ],
  quota_usages: [
    ...life,
    ...(['id', 'project_id', 'resource', 'in_use', 'reserved', 'until_refresh', 'race_preventer'] as const),
  ],
  reservations: [...life, 'id', 'uuid', 'usage_id', 'project_id', 'resource', 'delta', 'expire'],
  workers: [...life, 'id', 'resource_type', 'resource_id', 'status', 'service_id', 'race_preventer'],
};

/**
 * Throws `version-unsupported` unless the database, `database` on `server`, has the tables and columns that statements need.
 * Asked once, when it is opened.
 */
export async function requireCinderTables(
  kysely: Kysely<Tables>,
  at: { readonly server: string; readonly database: string; readonly dialect: 'mysql' | 'postgresql' },
): Promise<void> {
  const current = at.dialect === 'mysql' ? raw`database()` : raw`current_schema()`;
  const { rows } = await raw<{ place: string }>`
    select concat(table_name, '.', column_name) as place
    from information_schema.columns
    where table_schema = ${current}`.execute(kysely);
  const found = new Set(rows.map(({ place }) => place));
  const missing = Object.entries(needed).flatMap(([table, columns]) =>
    columns.map((column) => `${table}.${column}`).filter((place) => !found.has(place)),
  );
  if (missing.length === 0) return;
  const isEmpty = ![...found].some((place) => place.startsWith('backups.'));
  throw new BackupError(
    'version-unsupported',
    isEmpty
      ? `the database ${at.database} at ${at.server} is not Cinder's: run "cinder-manage db sync", or correct [database] connection`
      : `the database ${at.database} at ${at.server} is older than Cinder Zed: it lacks ${missing.slice(0, 5).join(', ')}; upgrade Cinder first`,
    { details: { missing } },
  );
}
