/** Statements on `volume_glance_metadata`: what a bootable volume keeps of its image. */
import type { UserMetadata } from './backup-metadata.ts';
import { inTransaction, type Sql } from './database.ts';

export async function findGlanceMetadata(sql: Sql, volumeId: string): Promise<UserMetadata> {
  const rows = await sql
    .selectFrom('volume_glance_metadata')
    .select(['key', 'value'])
    .where('volume_id', '=', volumeId)
    .where('deleted', '=', false)
    .orderBy('id')
    .execute();
  return Object.fromEntries(rows.flatMap(({ key, value }) => (key === null ? [] : [[key, value ?? '']])));
}

/** Makes `metadata` all that the volume has, and the volume bootable (cinder/backup/driver.py, _restore_vol_glance_meta). */
export async function replaceGlanceMetadata(
  sql: Sql,
  volumeId: string,
  metadata: UserMetadata,
  now: Date,
): Promise<void> {
  await inTransaction(sql, async (inner) => {
    await inner
      .updateTable('volume_glance_metadata')
      .set({ deleted: true, deleted_at: now })
      .where('volume_id', '=', volumeId)
      .where('deleted', '=', false)
      .execute();
    const rows = Object.entries(metadata).map(([key, value]) => ({
      created_at: now,
      deleted: false,
      volume_id: volumeId,
      key,
      value,
    }));
    if (rows.length > 0) await inner.insertInto('volume_glance_metadata').values(rows).execute();
    await inner
      .updateTable('volumes')
      .set({ bootable: true, updated_at: now })
      .where('id', '=', volumeId)
      .where('deleted', '=', false)
      .execute();
  });
}
