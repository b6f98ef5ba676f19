/** Statements on `volumes`. */
import type { Selectable, Updateable } from 'kysely';
import { BackupError } from '../model/errors.ts';
import type { Volume, VolumeStatus } from '../model/volume.ts';
import { inTransaction, type Sql } from './database.ts';
import { boundsOf, type Page } from './pages.ts';
import { readFlag, readSetTime, readTime } from './row-values.ts';
import type { VolumesTable } from './tables.ts';
import { isSameSecond, requireNotDone, requireNotInserted } from './transaction.ts';

export type NewVolume = {
  readonly id: string;
  readonly projectId: string;
  readonly userId: string;
  readonly host: string;
  readonly sizeGiB: number;
  readonly availabilityZone: string;
  readonly status: VolumeStatus;
  readonly name: string | null;
  readonly description: string | null;
  /** Cinder's own tables insist on it. */
  readonly volumeTypeId?: string;
};

export async function insertVolume(sql: Sql, volume: NewVolume, now: Date): Promise<void> {
  await requireNotInserted(sql, 'volumes', volume.id);
  await sql
    .insertInto('volumes')
    .values({
      id: volume.id,
      created_at: now,
      deleted: false,
      project_id: volume.projectId,
      user_id: volume.userId,
      host: volume.host,
      size: volume.sizeGiB,
      availability_zone: volume.availabilityZone,
      status: volume.status,
      attach_status: 'detached',
      scheduled_at: now,
      launched_at: volume.status === 'available' ? now : null,
      display_name: volume.name,
      display_description: volume.description,
      volume_type_id: volume.volumeTypeId ?? null,
      bootable: false,
      multiattach: false,
      use_quota: true,
    })
    .execute();
}

export async function findVolume(sql: Sql, id: string, projectId?: string): Promise<Volume | undefined> {
  let query = sql.selectFrom('volumes').selectAll().where('id', '=', id).where('deleted', '=', false);
  if (projectId !== undefined) query = query.where('project_id', '=', projectId);
  const row = await query.executeTakeFirst();
  return row === undefined ? undefined : fromRow(row);
}

/** The status alone, for those who ask often: `deleted` once the row is, undefined if there is none. */
export async function readVolumeStatus(sql: Sql, id: string): Promise<string | undefined> {
  const row = await sql
    .selectFrom('volumes')
    .select(['status', 'deleted'])
    .where('id', '=', id)
    .executeTakeFirst();
  if (row === undefined) return undefined;
  return readFlag(row.deleted) ? 'deleted' : (row.status ?? 'error');
}

/** Keeps others from moving the volume until the transaction ends; to be its first statement. Nothing happens if it is gone. */
export async function lockVolume(sql: Sql, id: string): Promise<void> {
  await sql
    .selectFrom('volumes')
    .select('id')
    .where('id', '=', id)
    .$if(sql.scope.hasRowLocks, (query) => query.forUpdate())
    .execute();
}

/** The volume also when its row is deleted: where it was. */
export async function findVolumeEver(sql: Sql, id: string): Promise<Volume | undefined> {
  const row = await sql.selectFrom('volumes').selectAll().where('id', '=', id).executeTakeFirst();
  return row === undefined ? undefined : fromRow(row);
}

/** Where the snapshots of a volume's backups are. */
export type BackedUpVolume = Pick<Volume, 'id' | 'nameId'> & { readonly host: string };

/**
 * Volumes, deleted ones too, of which one of these drivers, or none yet, ever made a backup: by id, at most `limit` after the id
 * `after`.
 */
export async function listBackedUpVolumes(
  sql: Sql,
  { services, after, limit }: { services: readonly string[]; after: string; limit: number },
): Promise<readonly BackedUpVolume[]> {
  const rows = await sql
    .selectFrom('backups')
    .innerJoin('volumes', 'volumes.id', 'backups.volume_id')
    .select(['volumes.id', 'volumes._name_id', 'volumes.host'])
    .distinct()
    .where('volumes.id', '>', after)
    .where('volumes.host', 'is not', null)
    .where((where) =>
      where.or([where('backups.service', 'in', services), where('backups.service', 'is', null)]),
    )
    .orderBy('volumes.id')
    .limit(limit)
    .execute();
  return rows.map((row) => ({ id: row.id, nameId: row['_name_id'] ?? row.id, host: row.host ?? '' }));
}

/** As findVolume, but throws `not-found`. */
export async function getVolume(sql: Sql, id: string, projectId?: string): Promise<Volume> {
  const volume = await findVolume(sql, id, projectId);
  if (volume !== undefined) return volume;
  throw new BackupError('not-found', `Volume ${id} could not be found.`);
}

/** Every column of a volume's row under its own name, for the backup's metadata; `not-found` if there is none. */
export async function getVolumeColumns(sql: Sql, id: string): Promise<Readonly<Record<string, Column>>> {
  const row = await sql
    .selectFrom('volumes')
    .selectAll()
    .where('id', '=', id)
    .where('deleted', '=', false)
    .executeTakeFirst();
  if (row === undefined) throw new BackupError('not-found', `Volume ${id} could not be found.`);
  return {
    ...row,
    created_at: readTime(row.created_at),
    updated_at: readTime(row.updated_at),
    deleted_at: readTime(row.deleted_at),
    scheduled_at: readTime(row.scheduled_at),
    launched_at: readTime(row.launched_at),
    terminated_at: readTime(row.terminated_at),
    deleted: readFlag(row.deleted),
    bootable: readFlag(row.bootable),
    multiattach: readFlag(row.multiattach),
    shared_targets: readFlag(row.shared_targets),
    use_quota: readFlag(row.use_quota),
  };
}

export type Column = string | number | boolean | Date | null;

/** Which of `ids` have a row, deleted or not. */
export async function knownVolumes(sql: Sql, ids: readonly string[]): Promise<ReadonlySet<string>> {
  const known = new Set<string>();
  for (let done = 0; done < ids.length; done += 500) {
    const rows = await sql
      .selectFrom('volumes')
      .select('id')
      .where('id', 'in', ids.slice(done, done + 500))
      .execute();
    for (const row of rows) known.add(row.id);
  }
  return known;
}

export type VolumeQuery = Page & {
  readonly projectId?: string | undefined;
  readonly name?: string | undefined;
  readonly status?: string | undefined;
};

/** Volumes that are not deleted, the newest first. `message-invalid` if the marker is not among them. */
export async function listVolumes(sql: Sql, query: VolumeQuery): Promise<Volume[]> {
  let select = sql.selectFrom('volumes').selectAll().where('deleted', '=', false);
  if (query.projectId !== undefined) select = select.where('project_id', '=', query.projectId);
  if (query.name !== undefined) select = select.where('display_name', '=', query.name);
  if (query.status !== undefined) select = select.where('status', '=', query.status);
  const hasMarker = async (id: string) => (await findVolume(sql, id, query.projectId)) !== undefined;
  const { after, limit, offset } = await boundsOf('volumes', query, hasMarker);
  const rows = await select
    .where(after)
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(limit)
    .offset(offset)
    .execute();
  return rows.map(fromRow);
}

export type VolumeChanges = {
  readonly previousStatus?: string | null;
  readonly sizeGiB?: number;
  readonly name?: string | null;
  readonly description?: string | null;
  readonly launchedAt?: Date;
  readonly bootable?: boolean;
  readonly encryptionKeyId?: string | null;
  readonly volumeTypeId?: string;
};

/**
 * Moves a volume from one of the statuses `from` to `to` and writes `changes` with it. `stale-update` if its
 * status is another, `not-found` if it is gone.
 */
export async function moveVolume(
  sql: Sql,
  id: string,
  step: { readonly from: readonly VolumeStatus[]; readonly to: string },
  changes: VolumeChanges,
  now: Date,
): Promise<void> {
  await inTransaction(sql, async (inner) => {
    if (inner.scope.isRepeated) {
      const row = await findVolume(inner, id);
      requireNotDone(inner, row?.status === step.to && isSameSecond(row.updatedAt, now));
    }
    const result = await inner
      .updateTable('volumes')
      .set({ ...toColumns(changes), status: step.to, updated_at: now })
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
  step: { readonly from: readonly VolumeStatus[]; readonly to: string },
): Promise<never> {
  const row = await sql
    .selectFrom('volumes')
    .select('status')
    .where('id', '=', id)
    .where('deleted', '=', false)
    .$if(sql.scope.hasRowLocks, (query) => query.forUpdate())
    .executeTakeFirst();
  if (row === undefined) throw new BackupError('not-found', `Volume ${id} could not be found.`);
  const status = row.status ?? 'error';
  throw new BackupError(
    'stale-update',
    `volume ${id} is ${status}: it must be ${step.from.join(' or ')} to become ${step.to}`,
    { details: { status } },
  );
}

/** What is undefined is left as it is. */
function toColumns(changes: VolumeChanges): Updateable<VolumesTable> {
  return {
    previous_status: changes.previousStatus,
    size: changes.sizeGiB,
    display_name: changes.name,
    display_description: changes.description,
    launched_at: changes.launchedAt,
    bootable: changes.bootable,
    encryption_key_id: changes.encryptionKeyId,
    volume_type_id: changes.volumeTypeId,
  };
}

/** Gives a volume another encryption key, or none. `not-found` if it is gone. */
export async function setVolumeEncryptionKey(
  sql: Sql,
  id: string,
  keyId: string | null,
  now: Date,
): Promise<void> {
  await inTransaction(sql, async (inner) => {
    const result = await inner
      .updateTable('volumes')
      .set({ encryption_key_id: keyId, updated_at: now })
      .where('id', '=', id)
      .where('deleted', '=', false)
      .executeTakeFirst();
    if (result.numUpdatedRows === 0n) throw new BackupError('not-found', `Volume ${id} could not be found.`);
  });
}

function fromRow(row: Selectable<VolumesTable>): Volume {
  return {
    id: row.id,
    nameId: row['_name_id'] ?? row.id,
    projectId: row.project_id ?? '',
    userId: row.user_id,
    host: row.host,
    sizeGiB: row.size ?? 0,
    availabilityZone: row.availability_zone,
    status: row.status ?? 'error',
    previousStatus: row.previous_status,
    name: row.display_name,
    description: row.display_description,
    bootable: readFlag(row.bootable),
    encryptionKeyId: row.encryption_key_id,
    createdAt: readSetTime(row.created_at),
    updatedAt: readTime(row.updated_at),
    launchedAt: readTime(row.launched_at),
  };
}
