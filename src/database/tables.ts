/**
 * Cinder's tables, as far as a backup service reads and writes them (cinder/db/sqlalchemy/models.py).
 * What a driver returns for times, booleans and counts differs: row-values.ts reads all forms.
 */
import type { ColumnType, Generated } from 'kysely';

export type StoredTime = ColumnType<Date | string | null, Date | null | undefined, Date | null>;
export type StoredFlag = ColumnType<boolean | number | null, boolean | null | undefined, boolean | null>;
type Text = ColumnType<string | null, string | null | undefined, string | null>;
type Count = ColumnType<number | null, number | null | undefined, number | null>;

type Life = {
  created_at: StoredTime;
  updated_at: StoredTime;
  deleted_at: StoredTime;
  deleted: StoredFlag;
};

export type BackupsTable = Life & {
  id: string;
  volume_id: string;
  user_id: Text;
  project_id: Text;
  host: Text;
  availability_zone: Text;
  display_name: Text;
  display_description: Text;
  container: Text;
  status: Text;
  fail_reason: Text;
  service_metadata: Text;
  service: Text;
  size: Count;
  object_count: Count;
  parent_id: Text;
  temp_volume_id: Text;
  temp_snapshot_id: Text;
  num_dependent_backups: Count;
  snapshot_id: Text;
  data_timestamp: StoredTime;
  restore_volume_id: Text;
  encryption_key_id: Text;
};

type KeyedText = Life & { id: Generated<number>; key: Text; value: Text };

export type BackupMetadataTable = KeyedText & { backup_id: string };
export type VolumeMetadataTable = KeyedText & { volume_id: string };
export type VolumeAdminMetadataTable = KeyedText & { volume_id: string };
export type VolumeGlanceMetadataTable = KeyedText & { volume_id: Text; snapshot_id: Text };

export type VolumesTable = Life & {
  id: string;
  ec2_id: Text;
  user_id: Text;
  project_id: Text;
  host: Text;
  size: Count;
  availability_zone: Text;
  status: Text;
  attach_status: Text;
  scheduled_at: StoredTime;
  launched_at: StoredTime;
  terminated_at: StoredTime;
  display_name: Text;
  display_description: Text;
  provider_location: Text;
  provider_auth: Text;
  snapshot_id: Text;
  volume_type_id: Text;
  source_volid: Text;
  bootable: StoredFlag;
  provider_geometry: Text;
  _name_id: Text;
  encryption_key_id: Text;
  migration_status: Text;
  replication_status: Text;
  replication_extended_status: Text;
  replication_driver_data: Text;
  consistencygroup_id: Text;
  provider_id: Text;
  multiattach: StoredFlag;
  previous_status: Text;
  cluster_name: Text;
  group_id: Text;
  service_uuid: Text;
  shared_targets: StoredFlag;
  use_quota: StoredFlag;
};

export type SnapshotsTable = Life & {
  id: string;
  volume_id: string;
  user_id: Text;
  project_id: Text;
  status: Text;
  progress: Text;
  volume_size: Count;
  scheduled_at: StoredTime;
  display_name: Text;
  display_description: Text;
  provider_location: Text;
  encryption_key_id: Text;
  volume_type_id: Text;
  cgsnapshot_id: Text;
  provider_id: Text;
  provider_auth: Text;
  group_snapshot_id: Text;
  use_quota: StoredFlag;
};

export type ServicesTable = Life & {
  id: Generated<number>;
  host: Text;
  binary: Text;
  topic: Text;
  report_count: number;
  disabled: StoredFlag;
  availability_zone: Text;
  disabled_reason: Text;
  modified_at: StoredTime;
  rpc_current_version: Text;
  object_current_version: Text;
  replication_status: Text;
  frozen: StoredFlag;
  active_backend_id: Text;
  cluster_name: Text;
  uuid: Text;
};

export type MessagesTable = Life & {
  id: string;
  project_id: string;
  request_id: Text;
  resource_type: Text;
  resource_uuid: Text;
  event_id: string;
  message_level: string;
  expires_at: StoredTime;
  detail_id: Text;
  action_id: Text;
};

export type VolumeTypesTable = Life & {
  id: string;
  name: Text;
  qos_specs_id: Text;
  is_public: StoredFlag;
  description: Text;
};

export type VolumeTypeExtraSpecsTable = KeyedText & { volume_type_id: string };

export type VolumeAttachmentTable = Life & {
  id: string;
  volume_id: string;
  attached_host: Text;
  instance_uuid: Text;
  mountpoint: Text;
  attach_time: StoredTime;
  detach_time: StoredTime;
  attach_mode: Text;
  attach_status: Text;
  connection_info: Text;
  connector: Text;
};

export type QuotaUsagesTable = Life & {
  id: Generated<number>;
  project_id: Text;
  resource: Text;
  in_use: number;
  reserved: number;
  until_refresh: Count;
  /** True, or NULL in a deleted row: part of the unique key. */
  race_preventer: StoredFlag;
};

export type ReservationsTable = Life & {
  id: Generated<number>;
  uuid: string;
  usage_id: Count;
  project_id: Text;
  resource: Text;
  delta: number;
  expire: StoredTime;
};

export type WorkersTable = Life & {
  id: Generated<number>;
  resource_type: string;
  resource_id: string;
  status: string;
  service_id: Count;
  race_preventer: number;
};

export type Tables = {
  backups: BackupsTable;
  backup_metadata: BackupMetadataTable;
  volumes: VolumesTable;
  volume_metadata: VolumeMetadataTable;
  volume_admin_metadata: VolumeAdminMetadataTable;
  volume_glance_metadata: VolumeGlanceMetadataTable;
  volume_types: VolumeTypesTable;
  volume_type_extra_specs: VolumeTypeExtraSpecsTable;
  volume_attachment: VolumeAttachmentTable;
  snapshots: SnapshotsTable;
  services: ServicesTable;
  messages: MessagesTable;
  quota_usages: QuotaUsagesTable;
  reservations: ReservationsTable;
  workers: WorkersTable;
};
