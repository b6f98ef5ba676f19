/** What a backup service looks for when it starts, and while it waits: rows by the host that works on them. */
import type { Backup } from '../model/backup.ts';
import { fromRow } from './backup-columns.ts';
import type { Sql } from './database.ts';

/** Backups of `host` that are neither available nor deleted: what a start has to look at. */
export async function listIncompleteBackups(sql: Sql, host: string): Promise<Backup[]> {
  const rows = await sql
    .selectFrom('backups')
    .selectAll()
    .where('deleted', '=', false)
    .where('host', '=', host)
    .where((where) => where.or([where('status', '<>', 'available'), where('status', 'is', null)]))
    .orderBy('created_at')
    .orderBy('id')
    .execute();
  return rows.map(fromRow);
}

/** What stands for the volume of a backup that is to be imported (cinder/backup/api.py, IMPORT_VOLUME_ID). */
export const importVolumeId = '00000000-0000-0000-0000-000000000000';

/** Rows that cinder-api made for imports which no host has taken. */
export async function listUntakenImports(sql: Sql): Promise<Backup[]> {
  const rows = await sql
    .selectFrom('backups')
    .selectAll()
    .where('deleted', '=', false)
    .where('status', '=', 'creating')
    .where('volume_id', '=', importVolumeId)
    .where('host', 'is', null)
    .orderBy('id')
    .execute();
  return rows.map(fromRow);
}

/** Failed backups of `host` for which cinder-volume has made something that is still there. */
export async function listTemporaryOwners(sql: Sql, host: string): Promise<Backup[]> {
  const rows = await sql
    .selectFrom('backups')
    .selectAll()
    .where('deleted', '=', false)
    .where('host', '=', host)
    .where('status', '=', 'error')
    .where((where) =>
      where.or([where('temp_volume_id', 'is not', null), where('temp_snapshot_id', 'is not', null)]),
    )
    .orderBy('created_at')
    .execute();
  return rows.map(fromRow);
}

/** The hosts of the volumes that a backup service on `host` ever made a backup of, as far as the volumes are still there. */
export async function hostsOfBackedUpVolumes(sql: Sql, host: string): Promise<readonly string[]> {
  const rows = await sql
    .selectFrom('volumes')
    .innerJoin('backups', 'backups.volume_id', 'volumes.id')
    .select('volumes.host')
    .distinct()
    .where('volumes.deleted', '=', false)
    .where('backups.host', '=', host)
    .execute();
  return rows.flatMap((row) => row.host ?? []);
}
