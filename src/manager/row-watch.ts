/**
 * Looks at the rows of a running operation again and again. Whoever moves one on takes the operation from us: a user
 * deletes a backup by force while it is made, or resets it while it is restored, perhaps through another host
 * (cinder/backup/chunkeddriver.py looks before each object); or an administrator resets the volume that is written to.
 *
 * cinder-api writes any host that is up into the row of a backup that is to be reset. As long as the operation runs the row is
 * given its name back, by which others see that somebody works on it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { anySignal } from '../async/any-signal.ts';
import { readBackupState, updateBackup } from '../database/backups.ts';
import { readVolumeStatus } from '../database/volumes.ts';
import type { BackupStatus } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import type { VolumeStatus } from '../model/volume.ts';
import type { ManagerEnvironment } from './environment.ts';

export type RowWatch = Disposable & {
  /** Aborts when the operation was cancelled, or its row was taken: then with `cancelled`. */
  readonly signal: AbortSignal;
};

/**
 * Watches until it is disposed of: the backup has to be `expected`, the volume one of `statuses`. A database that does not
 * answer is no reason to stop the operation.
 */
export function watchRow(
  environment: ManagerEnvironment,
  backupId: string,
  expected: BackupStatus,
  cancelled: AbortSignal,
  volume?: { readonly id: string; readonly statuses: readonly VolumeStatus[] },
): RowWatch {
  const { database, options, log, clock } = environment;
  const taken = new AbortController();
  const stop = new AbortController();

  const takeBack = async (from: string | null): Promise<void> => {
    log.warn(
      { backup: backupId, from },
      'a backup that is worked on here was given to another host: taken back',
    );
    await updateBackup(database.sql, backupId, expected, { host: options.host }, clock.now());
  };

  const findTaken = async (): Promise<BackupError | undefined> => {
    const { status, host } = await readBackupState(database.sql, backupId);
    if (status !== expected) return takenAs('the backup', status);
    if (host !== options.host) await takeBack(host);
    if (volume === undefined) return undefined;
    const found = (await readVolumeStatus(database.sql, volume.id)) ?? 'deleted';
    return volume.statuses.some((each) => each === found) ? undefined : takenAs('the volume', found);
  };
  /** Undefined also if the database does not say. */
  const look = async (): Promise<BackupError | undefined> => {
    try {
      return await findTaken();
    } catch (err) {
      log.warn({ backup: backupId, err }, 'the rows of a running operation could not be looked at');
      return undefined;
    }
  };
  const watch = async (): Promise<void> => {
    while (!stop.signal.aborted && !taken.signal.aborted) {
      await sleep(options.watchIntervalMs, undefined, { signal: stop.signal, ref: false });
      const error = await look();
      if (error !== undefined && !stop.signal.aborted) taken.abort(error);
    }
  };
  watch().catch((err: unknown) => {
    if (!stop.signal.aborted) log.error({ backup: backupId, err }, 'the rows are not watched any more');
  });
  return {
    signal: anySignal([cancelled, taken.signal]),
    [Symbol.dispose]: () => stop.abort(),
  };
}

function takenAs(what: string, status: string): BackupError {
  return new BackupError('cancelled', `${what} became ${status} meanwhile`, { details: { status } });
}
