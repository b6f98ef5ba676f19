/** Statements on `backup_metadata`: the user's own keys on a backup. */
import type { Sql } from './database.ts';

export type UserMetadata = Readonly<Record<string, string>>;

export async function insertBackupMetadata(
  sql: Sql,
  backupId: string,
  metadata: UserMetadata,
  now: Date,
): Promise<void> {
  const rows = Object.entries(metadata).map(([key, value]) => ({
    created_at: now,
    deleted: false,
    backup_id: backupId,
    key,
    value,
  }));
  if (rows.length > 0) await sql.insertInto('backup_metadata').values(rows).execute();
}

/** Makes `metadata` all that the backup has. To be in a transaction. */
export async function replaceBackupMetadata(
  sql: Sql,
  backupId: string,
  metadata: UserMetadata,
  now: Date,
): Promise<void> {
  await sql
    .updateTable('backup_metadata')
    .set({ deleted: true, deleted_at: now, updated_at: now })
    .where('backup_id', '=', backupId)
    .where('deleted', '=', false)
    .execute();
  await insertBackupMetadata(sql, backupId, metadata, now);
}

/** The metadata of several backups, by backup id; a backup without any is absent. */
export async function listBackupMetadata(
  sql: Sql,
  backupIds: readonly string[],
): Promise<ReadonlyMap<string, UserMetadata>> {
  const found = new Map<string, Record<string, string>>();
  if (backupIds.length === 0) return found;
  const rows = await sql
    .selectFrom('backup_metadata')
    .select(['backup_id', 'key', 'value'])
    .where('backup_id', 'in', backupIds)
    .where('deleted', '=', false)
    .orderBy('id')
    .execute();
  for (const row of rows) {
    const of = found.get(row.backup_id) ?? {};
    if (row.key !== null) of[row.key] = row.value ?? '';
    found.set(row.backup_id, of);
  }
  return found;
}
