/**
 * What stands around the backup service in a cloud: those who are told of its work, the volume service that owns
 * temporary volumes, the keeper of keys. One for each request: what it does, it does with the rights of who asked.
 */
import type { JsonObject } from '../bus/envelope.ts';
import type { Backup } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';

/** Notifications of cinder-backup, without `backup.` in front. */
export type BackupEvent =
  | 'create.start'
  | 'createprogress'
  | 'create.end'
  | 'restore.start'
  | 'restore.end'
  | 'delete.start'
  | 'delete.end'
  | 'reset_status.end';

/** What cinder-volume made to read a backup from, by its id, and the volume that it was made of. */
export type Temporary = { readonly id: string; readonly sourceId: string };

/** Copies of encryption keys: each volume and each backup has its own. */
export type KeyCopies = {
  /** Makes a copy of a key and returns its id. */
  clone(keyId: string, signal: AbortSignal): Promise<string>;
  /** Removes a key; succeeds also if it is gone. */
  remove(keyId: string, signal: AbortSignal): Promise<void>;
};

export type Cloud = {
  /** False while the store is not known to work: no backup is begun then. */
  isWorking(): boolean;
  /** False until the store has worked since the start: deletions are refused then, as cinder-backup refuses them. */
  hasWorked(): boolean;
  /** Tells Ceilometer and its like. Never fails, never waits. */
  notify(backup: Backup, event: BackupEvent, extra?: JsonObject): void;
  /**
   * Asks cinder-volume to remove a temporary volume; nothing happens if it has no row. Returns once the request is sent.
   * `state-invalid` for a volume that is not a temporary one of `sourceId`.
   */
  removeVolume(temporary: Temporary, signal: AbortSignal): Promise<void>;
  /** The same for a temporary snapshot. */
  removeSnapshot(temporary: Temporary, signal: AbortSignal): Promise<void>;
  readonly keys: KeyCopies;
  /** Lets go of what was opened for the request. Called when its work has ended. */
  end(): Promise<void>;
};

/** Standalone: there is nobody around. */
export const noCloud: Cloud = {
  isWorking: () => true,
  hasWorked: () => true,
  notify: () => {},
  removeVolume: async () => await Promise.resolve(),
  removeSnapshot: async () => await Promise.resolve(),
  keys: {
    clone: async () => await Promise.reject(noKeyManager()),
    remove: async () => await Promise.reject(noKeyManager()),
  },
  end: async () => await Promise.resolve(),
};

function noKeyManager(): BackupError {
  return new BackupError(
    'state-invalid',
    'the volume is encrypted, and there is no key manager that could copy its key',
  );
}
