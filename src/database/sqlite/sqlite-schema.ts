/** Cinder's tables in SQLite's words: same names and columns, indexes for what is asked here. */

const life = `created_at TEXT, updated_at TEXT, deleted_at TEXT, deleted INTEGER DEFAULT 0 CHECK (deleted IN (0, 1))`;
const keyed = `id INTEGER PRIMARY KEY AUTOINCREMENT, "key" TEXT, value TEXT`;

const version1 = `
CREATE TABLE backups (${life},
  id TEXT NOT NULL PRIMARY KEY, volume_id TEXT NOT NULL, user_id TEXT, project_id TEXT, host TEXT,
  availability_zone TEXT, display_name TEXT, display_description TEXT, container TEXT, status TEXT,
  fail_reason TEXT, service_metadata TEXT, service TEXT, size INTEGER, object_count INTEGER, parent_id TEXT,
  temp_volume_id TEXT, temp_snapshot_id TEXT, num_dependent_backups INTEGER, snapshot_id TEXT,
  data_timestamp TEXT, restore_volume_id TEXT, encryption_key_id TEXT) STRICT;
CREATE INDEX ix_backups_volume_id ON backups (volume_id, deleted);
CREATE INDEX ix_backups_parent_id ON backups (parent_id, deleted);

CREATE TABLE backup_metadata (${life}, ${keyed}, backup_id TEXT NOT NULL REFERENCES backups (id)) STRICT;
CREATE INDEX ix_backup_metadata_backup_id ON backup_metadata (backup_id);

CREATE TABLE volumes (${life},
  id TEXT NOT NULL PRIMARY KEY, ec2_id TEXT, user_id TEXT, project_id TEXT, host TEXT, size INTEGER,
  availability_zone TEXT, status TEXT, attach_status TEXT, scheduled_at TEXT, launched_at TEXT,
  terminated_at TEXT, display_name TEXT, display_description TEXT, provider_location TEXT, provider_auth TEXT,
  snapshot_id TEXT, volume_type_id TEXT, source_volid TEXT, bootable INTEGER, provider_geometry TEXT,
  _name_id TEXT, encryption_key_id TEXT, migration_status TEXT, replication_status TEXT,
  replication_extended_status TEXT, replication_driver_data TEXT, consistencygroup_id TEXT, provider_id TEXT,
  multiattach INTEGER, previous_status TEXT, cluster_name TEXT, group_id TEXT, service_uuid TEXT,
  shared_targets INTEGER, use_quota INTEGER) STRICT;

CREATE TABLE volume_metadata (${life}, ${keyed}, volume_id TEXT NOT NULL REFERENCES volumes (id)) STRICT;
CREATE INDEX ix_volume_metadata_volume_id ON volume_metadata (volume_id);

CREATE TABLE snapshots (${life},
  id TEXT NOT NULL PRIMARY KEY, volume_id TEXT NOT NULL REFERENCES volumes (id), user_id TEXT, project_id TEXT,
  status TEXT, progress TEXT, volume_size INTEGER, scheduled_at TEXT, display_name TEXT,
  display_description TEXT, provider_location TEXT, encryption_key_id TEXT, volume_type_id TEXT,
  cgsnapshot_id TEXT, provider_id TEXT, provider_auth TEXT, group_snapshot_id TEXT, use_quota INTEGER) STRICT;
CREATE INDEX ix_snapshots_volume_id ON snapshots (volume_id);

CREATE TABLE volume_glance_metadata (${life}, ${keyed},
  volume_id TEXT REFERENCES volumes (id), snapshot_id TEXT REFERENCES snapshots (id)) STRICT;
CREATE INDEX ix_volume_glance_metadata_volume_id ON volume_glance_metadata (volume_id);

CREATE TABLE services (${life},
  id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT, "binary" TEXT, topic TEXT,
  report_count INTEGER NOT NULL DEFAULT 0, disabled INTEGER DEFAULT 0, availability_zone TEXT,
  disabled_reason TEXT, modified_at TEXT, rpc_current_version TEXT, object_current_version TEXT,
  replication_status TEXT, frozen INTEGER DEFAULT 0, active_backend_id TEXT, cluster_name TEXT,
  uuid TEXT UNIQUE) STRICT;

CREATE TABLE messages (${life},
  id TEXT NOT NULL PRIMARY KEY, project_id TEXT NOT NULL, request_id TEXT, resource_type TEXT,
  resource_uuid TEXT, event_id TEXT NOT NULL, message_level TEXT NOT NULL, expires_at TEXT, detail_id TEXT,
  action_id TEXT) STRICT;
CREATE INDEX ix_messages_expires_at ON messages (expires_at);
`;

const version2 = `
CREATE TABLE volume_admin_metadata (${life}, ${keyed}, volume_id TEXT NOT NULL REFERENCES volumes (id)) STRICT;
CREATE INDEX ix_volume_admin_metadata_volume_id ON volume_admin_metadata (volume_id);

CREATE TABLE volume_types (${life},
  id TEXT NOT NULL PRIMARY KEY, name TEXT, qos_specs_id TEXT, is_public INTEGER, description TEXT) STRICT;

CREATE TABLE volume_type_extra_specs (${life}, ${keyed},
  volume_type_id TEXT NOT NULL REFERENCES volume_types (id)) STRICT;

CREATE TABLE volume_attachment (${life},
  id TEXT NOT NULL PRIMARY KEY, volume_id TEXT NOT NULL REFERENCES volumes (id), attached_host TEXT,
  instance_uuid TEXT, mountpoint TEXT, attach_time TEXT, detach_time TEXT, attach_mode TEXT,
  attach_status TEXT, connection_info TEXT, connector TEXT) STRICT;
CREATE INDEX ix_volume_attachment_volume_id ON volume_attachment (volume_id);

CREATE TABLE quota_usages (${life},
  id INTEGER PRIMARY KEY AUTOINCREMENT, project_id TEXT, resource TEXT, in_use INTEGER NOT NULL,
  reserved INTEGER NOT NULL, until_refresh INTEGER, race_preventer INTEGER DEFAULT 1,
  UNIQUE (project_id, resource, race_preventer)) STRICT;

CREATE TABLE reservations (${life},
  id INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL, usage_id INTEGER REFERENCES quota_usages (id),
  project_id TEXT, resource TEXT, delta INTEGER NOT NULL, expire TEXT) STRICT;

CREATE TABLE workers (${life},
  id INTEGER PRIMARY KEY AUTOINCREMENT, resource_type TEXT NOT NULL, resource_id TEXT NOT NULL,
  status TEXT NOT NULL, service_id INTEGER REFERENCES services (id), race_preventer INTEGER NOT NULL DEFAULT 0,
  UNIQUE (resource_type, resource_id)) STRICT;
`;

/** Entry n takes the schema from version n to n + 1; the version is kept in `PRAGMA user_version`. */
export const schemaSteps: readonly string[] = [version1, version2];
