/**
 * Looks at the row of a running operation again and again. Whoever moves it on takes the operation from us: a user
 * deletes a backup by force while it is made, or resets it while it is restored, perhaps through another host
 * (cinder/backup/chunkeddriver.py looks before each object).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { readBackupStatus } from '../database/backups.ts';
import type { BackupStatus } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import type { ManagerEnvironment } from './environment.ts';

export type RowWatch = Disposable & {
  /** Aborts when the operation was cancelled, or its row was taken: then with `cancelled`. */
  readonly signal: AbortSignal;
};

/** Watches until it is disposed of. A database that does not answer is no reason to stop the operation. */
export function watchRow(
  environment: ManagerEnvironment,
  backupId: string,
  expected: BackupStatus,
  cancelled: AbortSignal,
): RowWatch {
  const { database, options, log } = environment;
  const taken = new AbortController();
  const stop = new AbortController();

  /** Null if the database does not say. */
  const look = async (): Promise<string | null> => {
    try {
      return (await readBackupStatus(database.sql, backupId)) ?? 'deleted';
    } catch (err) {
      log.warn({ backup: backupId, err }, 'the row of a running operation could not be looked at');
      return null;
    }
  };
  const watch = async (): Promise<void> => {
    while (!stop.signal.aborted && !taken.signal.aborted) {
      await sleep(options.watchIntervalMs, undefined, { signal: stop.signal, ref: false });
      const status = await look();
      if (status === expected || status === null || stop.signal.aborted) continue;
      taken.abort(
        new BackupError('cancelled', `the backup became ${status} meanwhile`, { details: { status } }),
      );
    }
  };
  watch().catch((err: unknown) => {
    if (!stop.signal.aborted) log.error({ backup: backupId, err }, 'the row is not watched any more');
  });
  return {
    signal: AbortSignal.any([cancelled, taken.signal]),
    [Symbol.dispose]: () => stop.abort(),
  };
}
