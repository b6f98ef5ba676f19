/**
 * The key of a restored volume (cinder/backup/manager.py, end of _run_restore; cinder/backup/driver.py,
 * _restore_vol_base_meta): an encrypted backup makes the volume encrypted, with a copy of the backup's key.
 */
import { updateBackup } from '../database/backups.ts';
import { setVolumeEncryptionKey } from '../database/volumes.ts';
import type { Backup } from '../model/backup.ts';
import type { Volume } from '../model/volume.ts';
import type { ManagerEnvironment } from './environment.ts';
import { settleAll } from './settle-all.ts';
import type { RestoredMeta } from './volume-meta.ts';

/**
 * Does nothing where the volume has the very key that the backup was made with, or the backup says nothing of keys. A volume
 * to which an unencrypted backup is restored has no key any more, as in Python: what is on it is not encrypted.
 */
export async function restoreKey(
  { cloud, database, clock, options }: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  { encryptionKeyId: restoredKeyId }: RestoredMeta,
  signal: AbortSignal,
): Promise<void> {
  const { sql } = database;
  if (restoredKeyId === undefined || restoredKeyId === volume.encryptionKeyId) return;
  const sourceKeyId = backup.encryptionKeyId ?? restoredKeyId;
  if (backup.encryptionKeyId !== sourceKeyId) {
    await updateBackup(sql, backup.id, 'restoring', { encryptionKeyId: sourceKeyId }, clock.now());
  }
  const keyId = sourceKeyId === null ? null : await cloud.keys.clone(sourceKeyId, signal);
  try {
    await setVolumeEncryptionKey(sql, volume.id, keyId, clock.now());
  } catch (error) {
    const cleanup = AbortSignal.timeout(options.cleanupTimeoutMs);
    throw await settleAll(error, keyId === null ? [] : [() => cloud.keys.remove(keyId, cleanup)]);
  }
  if (volume.encryptionKeyId !== null) await cloud.keys.remove(volume.encryptionKeyId, signal);
}
