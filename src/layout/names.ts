/**
 * Names in the store: where a backup's objects are and what they are called.
 * Followed: `_generate_object_name_prefix` and `update_container_name` of cinder/backup/drivers/{swift,s3,posix}.py,
 * `_backup_chunk`, `_metadata_filename` and `_sha256_filename` of cinder/backup/chunkeddriver.py.
 */
import { BackupError } from '../model/errors.ts';
import { requireUuid } from '../model/names.ts';

export type NamingKind = 'posix' | 'swift' | 's3';

/** Digits of an object's number in its key. */
const leastDigits = 5;
const mostDigits = 12;
const zeroCode = 0x30;
const closingPattern = /^(.+)_(?:sha256file|metadata)$/su;

/** The UTC time of a prefix, `YYYYMMDDhhmmss`. */
export function prefixTime(at: Date): string {
  return at.toISOString().slice(0, 19).replaceAll(/[-:T]/g, '');
}

/**
 * The prefix of a new backup's objects: `service_metadata` of its row. `availabilityZone` is
 * `storage_availability_zone`; posix names do not hold it. Throws `message-invalid` or `config-invalid`.
 */
export function backupPrefix(
  kind: NamingKind,
  backup: {
    readonly volumeId: string;
    readonly backupId: string;
    readonly at: Date;
    readonly availabilityZone: string;
  },
): string {
  const volume = `volume_${requireUuid('volume id', backup.volumeId)}`;
  const id = requireUuid('backup id', backup.backupId);
  const time = prefixTime(backup.at);
  if (kind === 'posix') return `${volume}_${time}_backup_${id}`;
  return `${volume}/${time}/az_${requireZone(backup.availabilityZone)}_backup_${id}`;
}

/**
 * The container of a backup: that of the row or of the configuration if there is one, else what Cinder's
 * driver takes: a directory of its own for posix, `volumebackups` for the others.
 */
export function backupContainer(kind: NamingKind, backupId: string, wanted: string | null): string {
  if (wanted !== null && wanted !== '') return wanted;
  if (kind !== 'posix') return 'volumebackups';
  const id = requireUuid('backup id', backupId);
  return `${id.slice(0, 2)}/${id.slice(2, 4)}/${id}`;
}

/** The key of data object `number`, which counts from 1. */
export function objectKey(prefix: string, number: number): string {
  return `${prefix}-${String(number).padStart(leastDigits, '0')}`;
}

/** The number of a data object's key, or undefined if `key` is not what `objectKey` gives. */
export function objectNumber(prefix: string, key: string): number | undefined {
  const first = prefix.length + 1;
  const digits = key.length - first;
  if (digits < leastDigits || digits > mostDigits || key[prefix.length] !== '-' || !key.startsWith(prefix)) {
    return undefined;
  }
  let number = 0;
  for (let at = first; at < key.length; at += 1) {
    const digit = key.charCodeAt(at) - zeroCode;
    if (digit < 0 || digit > 9) return undefined;
    number = number * 10 + digit;
  }
  const isPadded = digits === leastDigits || key[first] !== '0';
  return number > 0 && isPadded ? number : undefined;
}

export function sha256FileKey(prefix: string): string {
  return `${closingPrefix(prefix)}sha256file`;
}

export function metadataKey(prefix: string): string {
  return `${closingPrefix(prefix)}metadata`;
}

/** What the keys of a backup's two closing objects start with, and those of its data objects do not. */
export function closingPrefix(prefix: string): string {
  return `${prefix}_`;
}

/** The prefix of the backup that an object of this key closes; '' for any other key. */
export function closedPrefix(key: string): string {
  return closingPattern.exec(key)?.[1] ?? '';
}

function requireZone(zone: string): string {
  if (zone !== '' && zone.length <= 255 && !/[\p{Cc}/]/u.test(zone)) return zone;
  throw new BackupError(
    'config-invalid',
    `storage_availability_zone is ${JSON.stringify(zone.slice(0, 80))}: it becomes part of object names, so it must not be empty nor hold "/" or control characters`,
  );
}
