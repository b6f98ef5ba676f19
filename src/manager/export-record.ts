/** Exports a backup: what BackupManager.export_record and Backup.encode_record do (cinder/backup/manager.py, cinder/objects/backup.py). */
import { cinderError } from '../bus/cinder-exceptions.ts';
import { writeBackup, type BackupObject } from '../bus/cinder-objects.ts';
import { listBackupMetadata } from '../database/backup-metadata.ts';
import type { Database } from '../database/database.ts';
import { pythonJsonLine } from '../layout/python-json.ts';
import { encodeMap } from '../bus/versioned-object.ts';
import { isOwnService } from '../model/driver-class.ts';

/** What `backup-import` takes: the driver that can read the backup, and its row. */
export type BackupRecord = {
  readonly backup_service: string | null;
  /** Base64 of the row as JSON. */
  readonly backup_url: string;
};

/** The record of the backup that a request brings. Throws InvalidBackup. */
export async function exportRecord(
  { database, driverName }: { readonly database: Database; readonly driverName: string },
  object: BackupObject,
): Promise<BackupRecord> {
  const { id, status, service } = object.backup;
  if (status !== 'available') {
    throw cinderError('InvalidBackup', {
      reason: `Export backup aborted, expected backup status available but got ${status}.`,
    });
  }
  if (!isOwnService(driverName, service)) {
    throw cinderError('InvalidBackup', {
      reason: `Export record aborted, the backup service currently configured [${driverName}] is not the backup service that was used to create this backup [${service}].`,
    });
  }
  const metadata = object.metadata ?? (await listBackupMetadata(database.sql, [id])).get(id) ?? {};
  const { data } = writeBackup({ ...object, metadata, parent: undefined });
  // The chunked drivers have nothing of their own to tell.
  const json = pythonJsonLine({ driver_info: {}, ...encodeMap(data) });
  return { backup_service: service, backup_url: Buffer.from(json, 'ascii').toString('base64') };
}
