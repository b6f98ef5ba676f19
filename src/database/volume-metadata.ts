/** Statements on `volume_metadata`, the user's own keys on a volume, and on `volume_admin_metadata`, the administrator's. */
import type { UserMetadata } from './backup-metadata.ts';
import { inTransaction, type Sql } from './database.ts';

/** The metadata of several volumes, by volume id; a volume without any is absent. */
export async function listVolumeMetadata(
  sql: Sql,
  volumeIds: readonly string[],
): Promise<ReadonlyMap<string, UserMetadata>> {
  return await listOf(sql, 'volume_metadata', volumeIds);
}

/** As listVolumeMetadata, of the administrator's keys (`attached_mode`, `readonly`). */
export async function listVolumeAdminMetadata(
  sql: Sql,
  volumeIds: readonly string[],
): Promise<ReadonlyMap<string, UserMetadata>> {
  return await listOf(sql, 'volume_admin_metadata', volumeIds);
}

/** Sets the keys of `metadata` and leaves the others (cinder/db/sqlalchemy/api.py, volume_metadata_update with delete=False). */
export async function setVolumeMetadata(
  sql: Sql,
  volumeId: string,
  metadata: UserMetadata,
  now: Date,
): Promise<void> {
  await inTransaction(sql, async (inner) => write(inner, volumeId, metadata, now));
}

/** Makes `metadata` all that the volume has (the same with delete=True). */
export async function replaceVolumeMetadata(
  sql: Sql,
  volumeId: string,
  metadata: UserMetadata,
  now: Date,
): Promise<void> {
  await inTransaction(sql, async (inner) => {
    const surplus = (await rowsOf(inner, volumeId)).filter(({ key }) => !Object.hasOwn(metadata, key ?? ''));
    if (surplus.length > 0) {
      await inner
        .updateTable('volume_metadata')
        .set({ deleted: true, deleted_at: now, updated_at: now })
        .where(
          'id',
          'in',
          surplus.map(({ id }) => id),
        )
        .execute();
    }
    await write(inner, volumeId, metadata, now);
  });
}

/** A key that is there keeps its row; one that has the value already is not touched. */
async function write(sql: Sql, volumeId: string, metadata: UserMetadata, now: Date): Promise<void> {
  const known = new Map((await rowsOf(sql, volumeId)).map((row) => [row.key, row]));
  const missing = [];
  for (const [key, value] of Object.entries(metadata)) {
    const row = known.get(key);
    if (row === undefined) missing.push({ created_at: now, deleted: false, volume_id: volumeId, key, value });
    else if (row.value !== value) {
      await sql
        .updateTable('volume_metadata')
        .set({ value, updated_at: now })
        .where('id', '=', row.id)
        .execute();
    }
  }
  if (missing.length > 0) await sql.insertInto('volume_metadata').values(missing).execute();
}

async function rowsOf(sql: Sql, volumeId: string) {
  return await sql
    .selectFrom('volume_metadata')
    .select(['id', 'key', 'value'])
    .where('volume_id', '=', volumeId)
    .where('deleted', '=', false)
    .orderBy('id')
    .execute();
}

async function listOf(
  sql: Sql,
  table: 'volume_metadata' | 'volume_admin_metadata',
  volumeIds: readonly string[],
): Promise<ReadonlyMap<string, UserMetadata>> {
  const found = new Map<string, Record<string, string>>();
  if (volumeIds.length === 0) return found;
  const rows = await sql
    .selectFrom(table)
    .select(['volume_id', 'key', 'value'])
    .where('volume_id', 'in', volumeIds)
    .where('deleted', '=', false)
    .orderBy('id')
    .execute();
  for (const row of rows) {
    const of = found.get(row.volume_id) ?? {};
    if (row.key !== null) of[row.key] = row.value ?? '';
    found.set(row.volume_id, of);
  }
  return found;
}
