/** Statements on `snapshots`: those that users make, not the storage snapshots of backups. */
import type { Selectable } from 'kysely';
import { BackupError } from '../model/errors.ts';
import type { Snapshot, SnapshotStatus } from '../model/volume.ts';
import { inTransaction, type Sql } from './database.ts';
import { boundsOf, type Page } from './pages.ts';
import { readFlag, readSetTime, readTime } from './row-values.ts';
import type { SnapshotsTable } from './tables.ts';
import type { Column } from './volumes.ts';
import { isSameSecond, requireNotDone, requireNotInserted } from './transaction.ts';

export type NewSnapshot = {
  readonly id: string;
  readonly volumeId: string;
  readonly projectId: string;
  readonly userId: string;
  readonly volumeSizeGiB: number;
  readonly name: string | null;
  readonly description: string | null;
  /** Cinder's own tables insist on it. */
  readonly volumeTypeId?: string;
};

/** A new row in status `creating`. */
export async function insertSnapshot(sql: Sql, snapshot: NewSnapshot, now: Date): Promise<void> {
  await requireNotInserted(sql, 'snapshots', snapshot.id);
  await sql
    .insertInto('snapshots')
    .values({
      id: snapshot.id,
      created_at: now,
      deleted: false,
      volume_id: snapshot.volumeId,
      project_id: snapshot.projectId,
      user_id: snapshot.userId,
      status: 'creating' satisfies SnapshotStatus,
      progress: '0%',
      volume_size: snapshot.volumeSizeGiB,
      display_name: snapshot.name,
      display_description: snapshot.description,
      volume_type_id: snapshot.volumeTypeId ?? null,
      use_quota: true,
    })
    .execute();
}

export async function findSnapshot(sql: Sql, id: string, projectId?: string): Promise<Snapshot | undefined> {
  let query = sql.selectFrom('snapshots').selectAll().where('id', '=', id).where('deleted', '=', false);
  if (projectId !== undefined) query = query.where('project_id', '=', projectId);
  const row = await query.executeTakeFirst();
  return row === undefined ? undefined : fromRow(row);
}

/** As findSnapshot, but throws `not-found`. */
export async function getSnapshot(sql: Sql, id: string, projectId?: string): Promise<Snapshot> {
  const snapshot = await findSnapshot(sql, id, projectId);
  if (snapshot !== undefined) return snapshot;
  throw new BackupError('not-found', `Snapshot ${id} could not be found.`);
}

/** Every column of a snapshot's row under its own name, for objects on the bus; `not-found` if there is none. */
export async function getSnapshotColumns(sql: Sql, id: string): Promise<Readonly<Record<string, Column>>> {
  const row = await sql
    .selectFrom('snapshots')
    .selectAll()
    .where('id', '=', id)
    .where('deleted', '=', false)
    .executeTakeFirst();
  if (row === undefined) throw new BackupError('not-found', `Snapshot ${id} could not be found.`);
  return {
    ...row,
    created_at: readTime(row.created_at),
    updated_at: readTime(row.updated_at),
    deleted_at: readTime(row.deleted_at),
    scheduled_at: readTime(row.scheduled_at),
    deleted: readFlag(row.deleted),
    use_quota: readFlag(row.use_quota),
  };
}

export type SnapshotQuery = Page & {
  readonly projectId?: string | undefined;
  readonly volumeId?: string | undefined;
  readonly status?: string | undefined;
  readonly name?: string | undefined;
};

/** Snapshots that are not deleted, the newest first. `message-invalid` if the marker is not among them. */
export async function listSnapshots(sql: Sql, query: SnapshotQuery): Promise<Snapshot[]> {
  let select = sql.selectFrom('snapshots').selectAll().where('deleted', '=', false);
  if (query.projectId !== undefined) select = select.where('project_id', '=', query.projectId);
  if (query.volumeId !== undefined) select = select.where('volume_id', '=', query.volumeId);
  if (query.status !== undefined) select = select.where('status', '=', query.status);
  if (query.name !== undefined) select = select.where('display_name', '=', query.name);
  const hasMarker = async (id: string) => (await findSnapshot(sql, id, query.projectId)) !== undefined;
  const { after, limit, offset } = await boundsOf('snapshots', query, hasMarker);
  const rows = await select
    .where(after)
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(limit)
    .offset(offset)
    .execute();
  return rows.map(fromRow);
}

/** Moves a snapshot from one of the statuses `from` to `to`. `stale-update` if its status is another, `not-found` if it is gone. */
export async function moveSnapshot(
  sql: Sql,
  id: string,
  step: { readonly from: readonly SnapshotStatus[]; readonly to: SnapshotStatus },
  now: Date,
): Promise<void> {
  const gone = step.to === 'deleted';
  await inTransaction(sql, async (inner) => {
    if (inner.scope.isRepeated) {
      const row = await inner.selectFrom('snapshots').selectAll().where('id', '=', id).executeTakeFirst();
      requireNotDone(inner, row?.status === step.to && isSameSecond(readTime(row.updated_at), now));
    }
    const result = await inner
      .updateTable('snapshots')
      .set({
        status: step.to,
        updated_at: now,
        ...(step.to === 'available' ? { progress: '100%' } : {}),
        ...(gone ? { deleted: true, deleted_at: now } : {}),
      })
      .where('id', '=', id)
      .where('deleted', '=', false)
      .where('status', 'in', step.from)
      .executeTakeFirst();
    if (result.numUpdatedRows === 0n) await refuse(inner, id, step);
  });
}

/** Says what keeps a step from being made, by the newest version of the row and not by that of the transaction's start. */
async function refuse(
  sql: Sql,
  id: string,
  step: { readonly from: readonly SnapshotStatus[]; readonly to: SnapshotStatus },
): Promise<never> {
  const row = await sql
    .selectFrom('snapshots')
    .select('status')
    .where('id', '=', id)
    .where('deleted', '=', false)
    .$if(sql.scope.hasRowLocks, (query) => query.forUpdate())
    .executeTakeFirst();
  if (row === undefined) throw new BackupError('not-found', `Snapshot ${id} could not be found.`);
  const status = row.status ?? 'error';
  throw new BackupError(
    'stale-update',
    `snapshot ${id} is ${status}: it must be ${step.from.join(' or ')} to become ${step.to}`,
    { details: { status } },
  );
}

function fromRow(row: Selectable<SnapshotsTable>): Snapshot {
  return {
    id: row.id,
    volumeId: row.volume_id,
    projectId: row.project_id ?? '',
    userId: row.user_id,
    status: row.status ?? 'error',
    volumeSizeGiB: row.volume_size ?? 0,
    name: row.display_name,
    description: row.display_description,
    createdAt: readSetTime(row.created_at),
    updatedAt: readTime(row.updated_at),
  };
}
