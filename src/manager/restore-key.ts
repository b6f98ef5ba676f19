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

/** Does nothing where neither is encrypted. */
export async function restoreKey(
  { cloud, database, clock, options }: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  { encryptionKeyId: restoredKeyId }: RestoredMeta,
  signal: AbortSignal,
): Promise<void> {
  const { sql } = database;
  if (restoredKeyId === null || restoredKeyId === volume.encryptionKeyId) return;
  const sourceKeyId = backup.encryptionKeyId ?? restoredKeyId;
  if (backup.encryptionKeyId === null) {
    await updateBackup(sql, backup.id, 'restoring', { encryptionKeyId: restoredKeyId }, clock.now());
  }
  const keyId = await cloud.keys.clone(sourceKeyId, signal);
  try {
    await setVolumeEncryptionKey(sql, volume.id, keyId, clock.now());
  } catch (error) {
    const cleanup = AbortSignal.timeout(options.cleanupTimeoutMs);
    throw await settleAll(error, [() => cloud.keys.remove(keyId, cleanup)]);
  }
  if (volume.encryptionKeyId !== null) await cloud.keys.remove(volume.encryptionKeyId, signal);
}
