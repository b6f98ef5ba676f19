/** Statements on `volume_metadata`: the user's own keys on a volume. */
import type { UserMetadata } from './backup-metadata.ts';
import type { Sql } from './database.ts';

/** The metadata of several volumes, by volume id; a volume without any is absent. */
export async function listVolumeMetadata(
  sql: Sql,
  volumeIds: readonly string[],
): Promise<ReadonlyMap<string, UserMetadata>> {
  const found = new Map<string, Record<string, string>>();
  if (volumeIds.length === 0) return found;
  const rows = await sql
    .selectFrom('volume_metadata')
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

/** Sets the keys of `metadata` and leaves the others (cinder/db/sqlalchemy/api.py, volume_metadata_update with delete=False). */
export async function setVolumeMetadata(
  sql: Sql,
  volumeId: string,
  metadata: UserMetadata,
  now: Date,
): Promise<void> {
  const keys = Object.keys(metadata);
  if (keys.length === 0) return;
  await sql
    .updateTable('volume_metadata')
    .set({ deleted: true, deleted_at: now, updated_at: now })
    .where('volume_id', '=', volumeId)
    .where('key', 'in', keys)
    .where('deleted', '=', false)
    .execute();
  await sql
    .insertInto('volume_metadata')
    .values(
      keys.map((key) => ({
        created_at: now,
        deleted: false,
        volume_id: volumeId,
        key,
        value: metadata[key] ?? '',
      })),
    )
    .execute();
}

/** Makes `metadata` all that the volume has (the same with delete=True). */
export async function replaceVolumeMetadata(
  sql: Sql,
  volumeId: string,
  metadata: UserMetadata,
  now: Date,
): Promise<void> {
  await sql
    .updateTable('volume_metadata')
    .set({ deleted: true, deleted_at: now, updated_at: now })
    .where('volume_id', '=', volumeId)
    .where('deleted', '=', false)
    .execute();
  await setVolumeMetadata(sql, volumeId, metadata, now);
}
