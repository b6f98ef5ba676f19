/** A backup's objects in the store: where they are, and their removal. */
import { metadataKey, sha256FileKey } from '../layout/names.ts';
import type { Backup } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import type { BackupPlace } from '../pipeline/jobs.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { removePrefix } from '../store/remove-prefix.ts';

/** Where the row says that the objects are, or undefined if it never came to writing any. */
export function placeOf(backup: Backup): BackupPlace | undefined {
  const { container, prefix } = backup;
  if (container === null || container === '' || prefix === null || prefix === '') return undefined;
  return { container, prefix };
}

/** As placeOf, but throws `chain-broken`. */
export function requirePlace(backup: Backup): BackupPlace {
  const place = placeOf(backup);
  if (place !== undefined) return place;
  throw new BackupError('chain-broken', `the row of backup ${backup.id} does not say where its objects are`);
}

/**
 * Removes every object of a backup: first what says that it is complete, then the rest, so that whatever stops it
 * half-way leaves nothing that looks whole. May be called again. `state-invalid` if the row's prefix is not the backup's.
 */
export async function removeObjects(store: ObjectStore, backup: Backup, signal: AbortSignal): Promise<void> {
  const place = placeOf(backup);
  if (place === undefined) return;
  const { container, prefix } = place;
  if (!prefix.includes(backup.id)) {
    throw new BackupError(
      'state-invalid',
      `service_metadata of backup ${backup.id} is ${JSON.stringify(prefix)}: it does not name that backup, so nothing was removed; correct the row`,
    );
  }
  for (const key of [metadataKey(prefix), sha256FileKey(prefix)]) await store.remove(container, key, signal);
  await store.flush(container, signal);
  await removePrefix(store, container, prefix, signal);
  await store.removeContainer(container, signal);
}
