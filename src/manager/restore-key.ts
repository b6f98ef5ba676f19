/**
 * The key of a restored volume (cinder/backup/manager.py, end of _run_restore; cinder/backup/driver.py,
 * _restore_vol_base_meta): an encrypted backup makes the volume encrypted, with a copy of the backup's key.
 */
import { anySignal } from '../async/any-signal.ts';
import { updateBackup } from '../database/backups.ts';
import { findVolumeEver, setVolumeEncryptionKey } from '../database/volumes.ts';
import type { Backup } from '../model/backup.ts';
import type { Volume } from '../model/volume.ts';
import type { ManagerEnvironment } from './environment.ts';
import { persist } from './row-step.ts';
import { settleAll } from './settle-all.ts';
import type { RestoredMeta } from './volume-meta.ts';

/**
 * Does nothing where the volume has the very key that the backup was made with, or the backup says nothing of keys. A volume
 * to which an unencrypted backup is restored has no key any more, as in Python: what is on it is not encrypted.
 */
export async function restoreKey(
  environment: ManagerEnvironment,
  backup: Backup,
  volume: Volume,
  { encryptionKeyId: restoredKeyId }: RestoredMeta,
  signal: AbortSignal,
): Promise<void> {
  const { cloud, database, clock, options } = environment;
  const { sql } = database;
  if (restoredKeyId === undefined || restoredKeyId === volume.encryptionKeyId) return;
  const sourceKeyId = backup.encryptionKeyId ?? restoredKeyId;
  const rows = anySignal([signal, AbortSignal.timeout(options.rowTimeoutMs)]);
  if (backup.encryptionKeyId !== sourceKeyId) {
    const now = clock.now();
    const changes = { encryptionKeyId: sourceKeyId };
    await persist(() => updateBackup(sql, backup.id, 'restoring', changes, now), rows);
  }
  const keyId = sourceKeyId === null ? null : await cloud.keys.clone(sourceKeyId, signal);
  const now = clock.now();
  try {
    await persist(() => setVolumeEncryptionKey(sql, volume.id, keyId, now), rows);
  } catch (error) {
    throw await settleAll(
      error,
      keyId === null ? [] : [() => removeUnlessTaken(environment, volume.id, keyId)],
    );
  }
  if (volume.encryptionKeyId !== null) await cloud.keys.remove(volume.encryptionKeyId, signal);
}

/** A write that got no answer may have been made: then the volume has the copy, and nothing else opens what is on it. */
async function removeUnlessTaken(
  { cloud, database, options }: ManagerEnvironment,
  volumeId: string,
  keyId: string,
): Promise<void> {
  const rows = AbortSignal.timeout(options.rowTimeoutMs);
  const volume = await persist(() => findVolumeEver(database.sql, volumeId), rows);
  if (volume?.encryptionKeyId === keyId) return;
  await cloud.keys.remove(keyId, AbortSignal.timeout(options.cleanupTimeoutMs));
}
