/** A backup's objects in the store: where they are, and their removal. */
import { closingPrefix, metadataKey, sha256FileKey, type NamingKind } from '../layout/names.ts';
import type { Backup } from '../model/backup.ts';
import { BackupError, isBackupError } from '../model/errors.ts';
import type { BackupPlace } from '../pipeline/jobs.ts';
import { requireContainer } from '../store/key-rules.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { removePrefix } from '../store/remove-prefix.ts';

/** Where the row says that the objects are, or undefined if it never came to writing any. */
export function placeOf(backup: Backup): BackupPlace | undefined {
  const { container, prefix } = backup;
  if (container === null || container === '' || prefix === null || prefix === '') return undefined;
  return { container, prefix };
}

const maxSegmentBytes = 255;

/** Throws `message-invalid` for what no store can have as a container. */
function requireNameable(container: string): void {
  const longest = Math.max(
    ...requireContainer(container)
      .split('/')
      .map((part) => Buffer.byteLength(part)),
  );
  if (longest <= maxSegmentBytes) return;
  throw new BackupError(
    'message-invalid',
    `a part of the container's name has ${longest} bytes: at most ${maxSegmentBytes} are possible`,
  );
}

/** Throws `message-invalid` unless a user may ask for a container of that name. */
export function requireWantedContainer(naming: NamingKind, container: string): void {
  requireNameable(container);
  if (naming !== 'posix' && container.includes('/')) {
    throw new BackupError('message-invalid', `container ${JSON.stringify(container)} must not hold "/"`);
  }
  if (naming === 'posix' && container.split('/').some((part) => part.startsWith('.cinder-delta-'))) {
    throw new BackupError('message-invalid', 'names with ".cinder-delta-" are kept for the store itself');
  }
}

/** True if the backup never had objects, because the store can never have accepted its place. */
function isUnplaced({ objectCount, container }: Backup): boolean {
  if (objectCount !== null || container === null) return false;
  try {
    requireNameable(container);
    return false;
  } catch (error) {
    if (isBackupError(error, 'message-invalid')) return true;
    throw error;
  }
}

/** As placeOf, but throws `chain-broken`. */
export function requirePlace(backup: Backup): BackupPlace {
  const place = placeOf(backup);
  if (place !== undefined) return place;
  throw new BackupError('chain-broken', `the row of backup ${backup.id} does not say where its objects are`);
}

/**
 * True if the prefix of the row names another backup: that of a record that was imported under an id of its own, as cinder-backup
 * lets it be. Its objects may be those of two rows then. Throws `state-invalid` for a prefix that names no backup at all.
 */
export function isForeign(backup: Backup): boolean {
  const prefix = placeOf(backup)?.prefix;
  if (prefix === undefined || prefix.includes(backup.id)) return false;
  if (ownerPattern.test(prefix)) return true;
  throw new BackupError(
    'state-invalid',
    `service_metadata of backup ${backup.id} is ${JSON.stringify(prefix)}: it does not name that backup, so nothing was removed; correct the row`,
  );
}

const ownerPattern = /_backup_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/u;

/**
 * Removes every object of a backup: first what says that it is complete, then the rest, so that whatever stops it
 * half-way leaves nothing that looks whole. May be called again. `state-invalid` if the row's prefix is not a backup's.
 */
export async function removeObjects(store: ObjectStore, backup: Backup, signal: AbortSignal): Promise<void> {
  const place = placeOf(backup);
  if (place === undefined || isUnplaced(backup)) return;
  isForeign(backup);
  const { container, prefix } = place;
  for (const key of [metadataKey(prefix), sha256FileKey(prefix)]) await store.remove(container, key, signal);
  // No more than these: a data object that was lost must not keep the backup from going.
  await store.flush(container, closingPrefix(prefix), signal);
  await removePrefix(store, container, prefix, signal);
  // Whoever forgets the row next must not have objects come back after a power failure.
  await store.flush(container, prefix, signal);
  await store.removeContainer(container, signal);
}
