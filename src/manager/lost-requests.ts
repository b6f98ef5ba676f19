/**
 * Requests that never come. By default the queues of Cinder are not durable: a broker that is started anew has forgotten them, and
 * drops what is sent until they are declared again. cinder-api has changed the rows by then, so they would stay `creating`,
 * `restoring` or `deleting` until the next start; with cinder-backup they do. Imports are of no host until one takes them: each looks
 * after those too.
 *
 * Invariant: a row is taken for forgotten only if at two looks, one after the other, requests could come in and no operation was
 * busy with it. How far the looks are apart is the time that a request may take from cinder-api to here.
 */
import { findBackup } from '../database/backups.ts';
import { listIncompleteBackups, listUntakenImports } from '../database/host-backups.ts';
import type { Backup } from '../model/backup.ts';
import { throwIfAborted } from '../model/errors.ts';
import type { ManagerEnvironment } from './environment.ts';
import { endInterrupted } from './init-host.ts';

export type LostRequests = {
  /** Puts right what the last look found too. Returns the backups whose deletion has to go on. Throws errors of the database. */
  look(signal: AbortSignal): Promise<readonly Backup[]>;
};

export type LostRequestsOptions = {
  /** True while requests can come in. */
  readonly isConnected: () => boolean;
  /** False while the store does not work: deletions wait for it then. */
  readonly isWorking: () => boolean;
  readonly isBusy: (backupId: string) => boolean;
};

const transient: ReadonlySet<string> = new Set(['creating', 'restoring', 'deleting']);

export function createLostRequests(
  environment: ManagerEnvironment,
  { isConnected, isWorking, isBusy }: LostRequestsOptions,
): LostRequests {
  const { database, options, log } = environment;
  /** That of an encrypted backup only gets its end here: for that the store is not needed. */
  const waitsForStore = ({ status, encryptionKeyId }: Backup) =>
    status === 'deleting' && encryptionKeyId === null && !isWorking();
  const isForgotten = (backup: Backup) =>
    transient.has(backup.status) && !isBusy(backup.id) && !waitsForStore(backup);
  let suspects: ReadonlyMap<string, string> = new Map();

  return {
    async look(signal) {
      const before = suspects;
      suspects = new Map();
      if (!isConnected()) return [];
      const ours = await listIncompleteBackups(database.sql, options.host);
      const found = [...ours, ...(await listUntakenImports(database.sql))].filter(isForgotten);
      const deleting: Backup[] = [];
      for (const { id, status } of found.filter((each) => before.get(each.id) === each.status)) {
        throwIfAborted(signal);
        const backup = await findBackup(database.sql, id);
        if (backup?.status !== status || isBusy(id)) continue;
        log.warn({ backup: id, status }, 'no request came for this backup: putting it right');
        if (status === 'deleting' && backup.encryptionKeyId === null) deleting.push(backup);
        else await endInterrupted(environment, backup, signal);
      }
      suspects = new Map(found.map(({ id, status }) => [id, status]));
      return deleting;
    },
  };
}
