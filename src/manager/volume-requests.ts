/**
 * What is asked of cinder-volume: to remove the volumes and snapshots that it made for a backup (cinder/volume/rpcapi.py,
 * delete_volume, delete_snapshot). The objects carry the columns of their rows; what else Cinder's objects have, the other
 * side loads when it needs it.
 *
 * Invariant: only what bears the name that cinder-volume gives to temporaries of that very source is asked for, because the
 * ids come from rows of backups that others write too.
 */
import type { BusContext } from '../bus/bus-context.ts';
import { formatTime } from '../bus/cinder-objects.ts';
import type { MessageBus } from '../bus/message-bus.ts';
import { volumeTarget } from '../bus/rpc-client.ts';
import { versionedObject, type EntityMap } from '../bus/versioned-object.ts';
import type { Database } from '../database/database.ts';
import { getSnapshotColumns, moveSnapshot } from '../database/snapshots.ts';
import { getVolumeColumns, type Column } from '../database/volumes.ts';
import { putWorker } from '../database/workers.ts';
import type { Clock } from '../model/clock.ts';
import { BackupError, isBackupError } from '../model/errors.ts';
import type { Temporary } from './cloud.ts';

export type VolumeRequestDeps = {
  readonly bus: Pick<MessageBus, 'cast'>;
  readonly context: BusContext;
  readonly database: Database;
  readonly clock: Clock;
};

type Columns = Readonly<Record<string, Column>>;

/** Versions of Zed, which 2026.1 still has. */
const versions = { Volume: '1.9', Snapshot: '1.6' } as const;

const volumeFields = [
  'id',
  '_name_id',
  'ec2_id',
  'user_id',
  'project_id',
  'use_quota',
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
  'provider_id',
  'provider_location',
  'provider_auth',
  'provider_geometry',
  'volume_type_id',
  'source_volid',
  'encryption_key_id',
  'consistencygroup_id',
  'group_id',
  'deleted',
  'bootable',
  'multiattach',
  'replication_status',
  'replication_extended_status',
  'replication_driver_data',
  'previous_status',
  'service_uuid',
  'shared_targets',
  'created_at',
  'updated_at',
  'deleted_at',
];

const snapshotFields = [
  'id',
  'user_id',
  'project_id',
  'use_quota',
  'volume_id',
  'cgsnapshot_id',
  'group_snapshot_id',
  'status',
  'progress',
  'volume_size',
  'display_name',
  'display_description',
  'encryption_key_id',
  'volume_type_id',
  'provider_location',
  'provider_id',
  'provider_auth',
  'created_at',
  'updated_at',
  'deleted_at',
  'deleted',
];

/** Asks for a temporary volume to be removed. Does nothing if it has no row. `state-invalid` for one that is not, errors of database and bus. */
export async function requestVolumeRemoval(
  { bus, context, database, clock }: VolumeRequestDeps,
  { id: volumeId, sourceId }: Temporary,
  signal: AbortSignal,
): Promise<void> {
  const volume = await unlessGone(() => getVolumeColumns(database.sql, volumeId));
  if (volume === undefined) return;
  requireName('volume', volume, `backup-vol-${sourceId}`);
  const status = textOf(volume, 'status') ?? '';
  await putWorker(database.sql, { type: 'Volume', id: volumeId, status }, clock.now());
  const args = {
    volume: versionedObject('Volume', versions.Volume, objectData(volume, volumeFields)),
    unmanage_only: false,
    cascade: false,
  };
  await bus.cast(
    { target: targetOf(volume), method: 'delete_volume', args, version: '3.0', context },
    signal,
  );
}

/** As requestVolumeRemoval, for a temporary snapshot: it is `deleting` from then on. */
export async function requestSnapshotRemoval(
  { bus, context, database, clock }: VolumeRequestDeps,
  { id: snapshotId, sourceId }: Temporary,
  signal: AbortSignal,
): Promise<void> {
  const { sql } = database;
  const snapshot = await unlessGone(() => getSnapshotColumns(sql, snapshotId));
  if (snapshot === undefined) return;
  requireName('snapshot', snapshot, `backup-snap-${sourceId}`);
  if (textOf(snapshot, 'volume_id') !== sourceId) {
    const reason = `snapshot ${snapshotId} is not one of volume ${sourceId}: it was not made for a backup of it, and stays`;
    throw new BackupError('state-invalid', reason);
  }
  const volume = await unlessGone(() => getVolumeColumns(sql, sourceId));
  if (volume === undefined) return;
  const from = ['creating', 'available', 'backing-up', 'deleting', 'error'] as const;
  await moveSnapshot(sql, snapshotId, { from, to: 'deleting' }, clock.now());
  const data = { ...objectData(snapshot, snapshotFields), status: 'deleting' };
  const args = { snapshot: versionedObject('Snapshot', versions.Snapshot, data), unmanage_only: false };
  await bus.cast(
    { target: targetOf(volume), method: 'delete_snapshot', args, version: '3.0', context },
    signal,
  );
}

/** The names that cinder-volume gives: _create_temp_volume, _create_temp_snapshot (cinder/volume/driver.py). */
function requireName(kind: 'volume' | 'snapshot', columns: Columns, expected: string): void {
  const name = textOf(columns, 'display_name') ?? '';
  if (name === expected) return;
  throw new BackupError(
    'state-invalid',
    `${kind} ${textOf(columns, 'id')} is named ${JSON.stringify(name)}, not ${expected}: it was not made for a backup, and stays`,
  );
}

async function unlessGone(read: () => Promise<Columns>): Promise<Columns | undefined> {
  try {
    return await read();
  } catch (error) {
    if (isBackupError(error, 'not-found')) return undefined;
    throw error;
  }
}

/** The service of the volume's cluster, else of its host (cinder/objects/base.py, service_topic_queue). */
function targetOf(volume: Columns) {
  const host = textOf(volume, 'cluster_name') ?? textOf(volume, 'host');
  if (host !== undefined) return volumeTarget(host);
  throw new BackupError('state-invalid', `volume ${textOf(volume, 'id')} has no host: nobody can remove it`);
}

function objectData(columns: Columns, fields: readonly string[]): EntityMap {
  return Object.fromEntries(
    fields.flatMap((field) => {
      const value = columns[field];
      if (value === undefined) return [];
      return [[field, value instanceof Date ? formatTime(value) : value]];
    }),
  );
}

function textOf(columns: Columns, name: string): string | undefined {
  const value = columns[name];
  return typeof value === 'string' && value !== '' ? value : undefined;
}
