/**
 * Names that reach a path or an argv. They are checked here before anything else sees them, and
 * only in the forms that Cinder and this project give: see cinder/objects/volume.py (name template
 * `volume-%s`), cinder/objects/snapshot.py (`snapshot-%s`), cinder/volume/drivers/rbd.py (backup snapshots).
 */
import { BackupError } from './errors.ts';

const uuidPattern = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}';
const uuid = new RegExp(`^${uuidPattern}$`);

export const volumeNamePattern = new RegExp(`^volume-(${uuidPattern})$`);
export const snapshotNamePattern = new RegExp(
  `^(?:snapshot-${uuidPattern}|backup\\.${uuidPattern}\\.snap\\.[0-9]{1,12}(?:\\.[0-9]{1,6})?)$`,
);
export const backendNamePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;

export function isUuid(value: string): boolean {
  return uuid.test(value);
}

/** Returns `value`, or throws `message-invalid`: `what` names the thing in the sentence. */
export function requireUuid(what: string, value: string): string {
  if (isUuid(value)) return value;
  throw invalidName(what, value, 'a lower-case UUID');
}

export function requireVolumeName(value: string): string {
  if (volumeNamePattern.test(value)) return value;
  throw invalidName('volume name', value, 'volume-<uuid>');
}

export function requireSnapshotName(value: string): string {
  if (snapshotNamePattern.test(value)) return value;
  throw invalidName('snapshot name', value, 'snapshot-<uuid> or backup.<uuid>.snap.<unix time>');
}

export function volumeName(volumeId: string): string {
  return `volume-${requireUuid('volume id', volumeId)}`;
}

export function cinderSnapshotName(snapshotId: string): string {
  return `snapshot-${requireUuid('snapshot id', snapshotId)}`;
}

/** The name of the storage snapshot that the agent keeps for a backup; `unixTime` in whole seconds. */
export function backupSnapshotName(backupId: string, unixTime: number): string {
  return `backup.${requireUuid('backup id', backupId)}.snap.${Math.floor(unixTime)}`;
}

/** The backup id of a backup snapshot's name, or undefined for every other name. */
export function backupIdOfSnapshot(name: string): string | undefined {
  return /^backup\.([0-9a-f-]{36})\.snap\./.exec(name)?.[1];
}

function invalidName(what: string, value: string, form: string): BackupError {
  const shown = JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
  return new BackupError('message-invalid', `${what} ${shown} is not valid: it must be ${form}`);
}
