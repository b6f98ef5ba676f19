/** Statements on `backups`. */
import type { Selectable } from 'kysely';
import { requireBackupStep, type Backup, type BackupStatus } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import type { Sql } from './database.ts';
import { readFlag, readSetTime, readTime } from './row-values.ts';
import type { BackupsTable } from './tables.ts';

export type NewBackup = {
  readonly id: string;
  readonly projectId: string;
  readonly userId: string;
  readonly volumeId: string;
  readonly snapshotId: string | null;
  readonly parentId: string | null;
  readonly name: string | null;
  readonly description: string | null;
  readonly host: string;
  readonly availabilityZone: string | null;
  readonly container: string | null;
  readonly sizeGiB: number;
  readonly dataTimestamp: Date;
};

/** A new row in status `creating` (cinder/backup/api.py, create). */
export async function insertBackup(sql: Sql, backup: NewBackup, now: Date): Promise<void> {
  await sql
    .insertInto('backups')
    .values({
      id: backup.id,
      created_at: now,
      deleted: false,
      project_id: backup.projectId,
      user_id: backup.userId,
      volume_id: backup.volumeId,
      snapshot_id: backup.snapshotId,
      parent_id: backup.parentId,
      display_name: backup.name,
      display_description: backup.description,
      host: backup.host,
      availability_zone: backup.availabilityZone,
      container: backup.container,
      size: backup.sizeGiB,
      data_timestamp: backup.dataTimestamp,
      status: 'creating' satisfies BackupStatus,
    })
    .execute();
}

/** The backup, or undefined if there is none or it is deleted. With a project: only if it is that project's. */
export async function findBackup(sql: Sql, id: string, projectId?: string): Promise<Backup | undefined> {
  let query = sql.selectFrom('backups').selectAll().where('id', '=', id).where('deleted', '=', false);
  if (projectId !== undefined) query = query.where('project_id', '=', projectId);
  const row = await query.executeTakeFirst();
  return row === undefined ? undefined : fromRow(row);
}

/** As findBackup, but throws `not-found`. */
export async function getBackup(sql: Sql, id: string, projectId?: string): Promise<Backup> {
  const backup = await findBackup(sql, id, projectId);
  if (backup !== undefined) return backup;
  throw new BackupError('not-found', `Backup ${id} could not be found.`);
}

/** The backup also when its row is deleted: what is known about an id at all. */
export async function findBackupEver(sql: Sql, id: string): Promise<Backup | undefined> {
  const row = await sql.selectFrom('backups').selectAll().where('id', '=', id).executeTakeFirst();
  return row === undefined ? undefined : fromRow(row);
}

export type BackupQuery = {
  readonly projectId?: string | undefined;
  readonly volumeId?: string | undefined;
  readonly name?: string | undefined;
  readonly status?: string | undefined;
  readonly parentId?: string | undefined;
  readonly host?: string | undefined;
  readonly limit?: number | undefined;
  readonly offset?: number | undefined;
  /** List what comes after this backup. */
  readonly marker?: string | undefined;
};

/** Backups that are not deleted, the newest first. `message-invalid` if the marker is not among them. */
export async function listBackups(sql: Sql, query: BackupQuery): Promise<Backup[]> {
  let select = sql.selectFrom('backups').selectAll().where('deleted', '=', false);
  if (query.projectId !== undefined) select = select.where('project_id', '=', query.projectId);
  if (query.volumeId !== undefined) select = select.where('volume_id', '=', query.volumeId);
  if (query.name !== undefined) select = select.where('display_name', '=', query.name);
  if (query.status !== undefined) select = select.where('status', '=', query.status);
  if (query.parentId !== undefined) select = select.where('parent_id', '=', query.parentId);
  if (query.host !== undefined) select = select.where('host', '=', query.host);
  if (query.marker !== undefined) {
    const marker = await findBackup(sql, query.marker, query.projectId);
    if (marker === undefined)
      throw new BackupError('message-invalid', `marker ${query.marker} could not be found`);
    const { id, createdAt } = marker;
    select = select.where((where) =>
      where.or([
        where('created_at', '<', createdAt),
        where.and([where('created_at', '=', createdAt), where('id', '<', id)]),
      ]),
    );
  }
  const limit = query.limit ?? Number.MAX_SAFE_INTEGER;
  const rows = await select
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(limit)
    .offset(query.offset ?? 0)
    .execute();
  return rows.map(fromRow);
}

/**
 * The parent that cinder-api would choose: the newest available backup of that project and volume by
 * `data_timestamp`; for a backup of a snapshot only those older than it (cinder/backup/api.py, create).
 */
export async function newestBackup(
  sql: Sql,
  of: {
    readonly volumeId: string;
    readonly projectId?: string | undefined;
    readonly before?: Date | undefined;
  },
): Promise<Backup | undefined> {
  let select = sql
    .selectFrom('backups')
    .selectAll()
    .where('deleted', '=', false)
    .where('status', '=', 'available')
    .where('volume_id', '=', of.volumeId);
  if (of.projectId !== undefined) select = select.where('project_id', '=', of.projectId);
  if (of.before !== undefined) select = select.where('data_timestamp', '<', of.before);
  const row = await select
    .orderBy('data_timestamp', 'desc')
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst();
  return row === undefined ? undefined : fromRow(row);
}

export type BackupChanges = {
  readonly failReason?: string | null;
  readonly container?: string;
  readonly prefix?: string;
  readonly service?: string;
  readonly sizeGiB?: number;
  readonly objectCount?: number;
  readonly parentId?: string | null;
  readonly restoreVolumeId?: string;
  readonly host?: string;
};

/**
 * Moves a backup from one of the statuses `from` to `to` and writes `changes` with it. `stale-update` if its
 * status is another, `not-found` if it is gone.
 */
export async function moveBackup(
  sql: Sql,
  id: string,
  step: { readonly from: readonly BackupStatus[]; readonly to: BackupStatus },
  changes: BackupChanges,
  now: Date,
): Promise<void> {
  requireBackupStep(step.from, step.to);
  const result = await sql
    .updateTable('backups')
    .set({ ...toColumns(changes), status: step.to, updated_at: now })
    .where('id', '=', id)
    .where('deleted', '=', false)
    .where('status', 'in', step.from)
    .executeTakeFirst();
  if (result.numUpdatedRows === 0n) await refuse(sql, id, step.from, step.to);
}

/** Writes `changes` on the condition that the status is `expected`; errors as moveBackup. */
export async function updateBackup(
  sql: Sql,
  id: string,
  expected: BackupStatus,
  changes: BackupChanges,
  now: Date,
): Promise<void> {
  const result = await sql
    .updateTable('backups')
    .set({ ...toColumns(changes), updated_at: now })
    .where('id', '=', id)
    .where('deleted', '=', false)
    .where('status', '=', expected)
    .executeTakeFirst();
  if (result.numUpdatedRows === 0n) await refuse(sql, id, [expected], expected);
}

/** Ends a backup in status `deleting` as Cinder does: the row stays, marked (cinder/db/sqlalchemy/api.py, backup_destroy). */
export async function softDeleteBackup(sql: Sql, id: string, now: Date): Promise<void> {
  requireBackupStep(['deleting'], 'deleted');
  const result = await sql
    .updateTable('backups')
    .set({ status: 'deleted', deleted: true, deleted_at: now })
    .where('id', '=', id)
    .where('deleted', '=', false)
    .where('status', '=', 'deleting')
    .executeTakeFirst();
  if (result.numUpdatedRows === 0n) await refuse(sql, id, ['deleting'], 'deleted');
  await sql
    .updateTable('backup_metadata')
    .set({ deleted: true, deleted_at: now })
    .where('backup_id', '=', id)
    .where('deleted', '=', false)
    .execute();
}

/** Adds `by` (1 or -1) to the number of dependents, never below 0. Nothing happens if the backup is gone. */
export async function countDependent(sql: Sql, id: string, by: 1 | -1, now: Date): Promise<void> {
  let update = sql
    .updateTable('backups')
    .set((columns) => ({
      num_dependent_backups: columns(columns.fn.coalesce('num_dependent_backups', columns.lit(0)), '+', by),
      updated_at: now,
    }))
    .where('id', '=', id)
    .where('deleted', '=', false);
  if (by < 0) update = update.where('num_dependent_backups', '>', 0);
  await update.execute();
}

async function refuse(sql: Sql, id: string, from: readonly BackupStatus[], to: BackupStatus): Promise<never> {
  const { status } = await getBackup(sql, id);
  throw new BackupError(
    'stale-update',
    `backup ${id} is ${status}: it must be ${from.join(' or ')} to become ${to}`,
    { details: { status } },
  );
}

function toColumns(changes: BackupChanges) {
  const { failReason, container, prefix, service, sizeGiB, objectCount, parentId, restoreVolumeId, host } =
    changes;
  return {
    ...(failReason === undefined ? {} : { fail_reason: failReason }),
    ...(container === undefined ? {} : { container }),
    ...(prefix === undefined ? {} : { service_metadata: prefix }),
    ...(service === undefined ? {} : { service }),
    ...(sizeGiB === undefined ? {} : { size: sizeGiB }),
    ...(objectCount === undefined ? {} : { object_count: objectCount }),
    ...(parentId === undefined ? {} : { parent_id: parentId }),
    ...(restoreVolumeId === undefined ? {} : { restore_volume_id: restoreVolumeId }),
    ...(host === undefined ? {} : { host }),
  };
}

function fromRow(row: Selectable<BackupsTable>): Backup {
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
