/** Statements on `backups`. */
import { requireBackupStep, type Backup, type BackupStatus } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import { fromRow, toColumns, type BackupChanges } from './backup-columns.ts';
import { inTransaction, type Sql } from './database.ts';
import { boundsOf, type Page } from './pages.ts';
import { readFlag, readTime } from './row-values.ts';
import { isSameSecond, requireNotDone, requireNotInserted } from './transaction.ts';

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
  await requireNotInserted(sql, 'backups', backup.id);
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

export type Temporaries = {
  readonly volumeId: string | null;
  readonly snapshotId: string | null;
  /** The volume that the backup is of. */
  readonly sourceId: string;
};

/** The volume and the snapshot that cinder-volume made for a backup, deleted or not; null where there is none. */
export async function findTemporaries(sql: Sql, id: string): Promise<Temporaries> {
  const row = await sql
    .selectFrom('backups')
    .select(['temp_volume_id', 'temp_snapshot_id', 'volume_id'])
    .where('id', '=', id)
    .executeTakeFirst();
  return {
    volumeId: row?.temp_volume_id ?? null,
    snapshotId: row?.temp_snapshot_id ?? null,
    sourceId: row?.volume_id ?? '',
  };
}

/** Notes that a temporary volume or snapshot is not the backup's any more. */
export async function clearTemporary(
  sql: Sql,
  id: string,
  kind: 'volume' | 'snapshot',
  now: Date,
): Promise<void> {
  const cleared = kind === 'volume' ? { temp_volume_id: null } : { temp_snapshot_id: null };
  await sql
    .updateTable('backups')
    .set({ ...cleared, updated_at: now })
    .where('id', '=', id)
    .execute();
}

export type BackupQuery = Page & {
  readonly projectId?: string | undefined;
  readonly volumeId?: string | undefined;
  readonly name?: string | undefined;
  readonly status?: string | undefined;
  readonly parentId?: string | undefined;
  readonly host?: string | undefined;
  readonly restoreVolumeId?: string | undefined;
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
  if (query.restoreVolumeId !== undefined) {
    select = select.where('restore_volume_id', '=', query.restoreVolumeId);
  }
  const hasMarker = async (id: string) => (await findBackup(sql, id, query.projectId)) !== undefined;
  const { after, limit, offset } = await boundsOf('backups', query, hasMarker);
  const rows = await select
    .where(after)
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(limit)
    .offset(offset)
    .execute();
  return rows.map(fromRow);
}

/** True if another backup that is not deleted has its objects at the same place. */
export async function isPlaceShared(sql: Sql, { id, container, prefix }: Backup): Promise<boolean> {
  const other = await sql
    .selectFrom('backups')
    .select('id')
    .where('deleted', '=', false)
    .where('id', '<>', id)
    .where('container', '=', container)
    .where('service_metadata', '=', prefix)
    .executeTakeFirst();
  return other !== undefined;
}

/** True if there is a backup whose row says that this driver made it. */
export async function isServiceInUse(sql: Sql, service: string): Promise<boolean> {
  const row = await sql
    .selectFrom('backups')
    .select('id')
    .where('deleted', '=', false)
    .where('service', '=', service)
    .limit(1)
    .executeTakeFirst();
  return row !== undefined;
}

/** Status and host alone, for those who ask often: `deleted` once the row is, or if there is none. */
export async function readBackupState(
  sql: Sql,
  id: string,
): Promise<{ readonly status: string; readonly host: string | null }> {
  const row = await sql
    .selectFrom('backups')
    .select(['status', 'host', 'deleted'])
    .where('id', '=', id)
    .executeTakeFirst();
  if (row === undefined || readFlag(row.deleted)) return { status: 'deleted', host: null };
  return { status: row.status ?? 'error', host: row.host };
}

/**
 * The parent that cinder-api would choose: the newest available backup of that project and volume by
 * `data_timestamp`; for a backup of a snapshot only those older than it (cinder/backup/api.py, create).
 */
export async function newestBackup(sql: Sql, of: NewestQuery): Promise<Backup | undefined> {
  const [newest] = await newestBackups(sql, of, 1);
  return newest;
}

export type NewestQuery = {
  readonly volumeId: string;
  readonly projectId?: string | undefined;
  readonly before?: Date | undefined;
  /** Only of these drivers, or of none. */
  readonly services?: readonly string[] | undefined;
  /** Only those that are `available`, unless given. */
  readonly statuses?: readonly BackupStatus[];
};

/** That one and those before it, the newest first. */
export async function newestBackups(sql: Sql, of: NewestQuery, limit: number): Promise<readonly Backup[]> {
  let select = sql
    .selectFrom('backups')
    .selectAll()
    .where('deleted', '=', false)
    .where('status', 'in', of.statuses ?? ['available'])
    .where('volume_id', '=', of.volumeId);
  if (of.projectId !== undefined) select = select.where('project_id', '=', of.projectId);
  if (of.before !== undefined) select = select.where('data_timestamp', '<', of.before);
  const { services } = of;
  if (services !== undefined) {
    select = select.where((where) =>
      where.or([where('service', 'in', services), where('service', 'is', null)]),
    );
  }
  const rows = await select
    .orderBy('data_timestamp', 'desc')
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(limit)
    .execute();
  return rows.map(fromRow);
}

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
  await inTransaction(sql, async (inner) => {
    await requireUnmoved(inner, id, step.to, now);
    const result = await inner
      .updateTable('backups')
      .set({ ...toColumns(changes), status: step.to, updated_at: now })
      .where('id', '=', id)
      .where('deleted', '=', false)
      .where('status', 'in', step.from)
      .executeTakeFirst();
    if (result.numUpdatedRows === 0n) await refuse(inner, id, step.from, step.to);
  });
}

/** Writes `changes` on the condition that the status is `expected`; errors as moveBackup. */
export async function updateBackup(
  sql: Sql,
  id: string,
  expected: BackupStatus,
  changes: BackupChanges,
  now: Date,
): Promise<void> {
  await inTransaction(sql, async (inner) => {
    const result = await inner
      .updateTable('backups')
      .set({ ...toColumns(changes), updated_at: now })
      .where('id', '=', id)
      .where('deleted', '=', false)
      .where('status', '=', expected)
      .executeTakeFirst();
    if (result.numUpdatedRows === 0n) await refuse(inner, id, [expected], expected);
  });
}

/** Ends a backup in status `deleting` as Cinder does: the row stays, marked (cinder/db/sqlalchemy/api.py, backup_destroy). */
export async function softDeleteBackup(sql: Sql, id: string, now: Date): Promise<void> {
  requireBackupStep(['deleting'], 'deleted');
  await inTransaction(sql, async (inner) => {
    if (inner.scope.isRepeated) {
      const row = await inner.selectFrom('backups').selectAll().where('id', '=', id).executeTakeFirst();
      const isOurs =
        row !== undefined && readFlag(row.deleted) && isSameSecond(readTime(row.deleted_at), now);
      requireNotDone(inner, isOurs);
    }
    const result = await inner
      .updateTable('backups')
      .set({ status: 'deleted', deleted: true, deleted_at: now })
      .where('id', '=', id)
      .where('deleted', '=', false)
      .where('status', '=', 'deleting')
      .executeTakeFirst();
    if (result.numUpdatedRows === 0n) await refuse(inner, id, ['deleting'], 'deleted');
    await inner
      .updateTable('backup_metadata')
      .set({ deleted: true, deleted_at: now })
      .where('backup_id', '=', id)
      .where('deleted', '=', false)
      .execute();
  });
}

/**
 * Adds `by` (1 or -1) to the number of dependents, never below 0. Nothing happens, and it says false, if the backup is gone, or
 * in none of the statuses `among`. To be in one transaction with what it counts: alone it would count twice when it is done again.
 */
export async function countDependent(
  sql: Sql,
  id: string,
  by: 1 | -1,
  now: Date,
  among?: readonly BackupStatus[],
): Promise<boolean> {
  let update = sql
    .updateTable('backups')
    .set((columns) => ({
      num_dependent_backups: columns(columns.fn.coalesce('num_dependent_backups', columns.lit(0)), '+', by),
      updated_at: now,
    }))
    .where('id', '=', id)
    .where('deleted', '=', false);
  if (by < 0) update = update.where('num_dependent_backups', '>', 0);
  if (among !== undefined) update = update.where('status', 'in', among);
  return (await update.executeTakeFirst()).numUpdatedRows > 0n;
}

/** Ends a repeated transaction that had moved the backup to `to` at `now`. */
async function requireUnmoved(sql: Sql, id: string, to: BackupStatus, now: Date): Promise<void> {
  if (!sql.scope.isRepeated) return;
  const row = await findBackup(sql, id);
  requireNotDone(sql, row?.status === to && isSameSecond(row.updatedAt, now));
}

/** Says what keeps a step from being made, by the newest version of the row and not by that of the transaction's start. */
async function refuse(sql: Sql, id: string, from: readonly BackupStatus[], to: BackupStatus): Promise<never> {
  const row = await sql
    .selectFrom('backups')
    .select('status')
    .where('id', '=', id)
    .where('deleted', '=', false)
    .$if(sql.scope.hasRowLocks, (query) => query.forUpdate())
    .executeTakeFirst();
  if (row === undefined) throw new BackupError('not-found', `Backup ${id} could not be found.`);
  const status = row.status ?? 'error';
  throw new BackupError(
    'stale-update',
    `backup ${id} is ${status}: it must be ${from.join(' or ')} to become ${to}`,
    { details: { status } },
  );
}
