/**
 * The looking through of a start for storage snapshots that no backup needs any more: their removal failed, or nobody was there to do it.
 * Volumes are asked one by one, those that the rows tell to have had a backup: a pool holds many more.
 */
import { listBackedUpVolumes } from '../database/volumes.ts';
import { ownServices } from '../model/driver-class.ts';
import { isBackupError, throwIfAborted } from '../model/errors.ts';
import { backendOf } from '../model/volume.ts';
import { dropStaleSnapshots } from './backup-snapshots.ts';
import type { ManagerEnvironment, StorageBackend } from './environment.ts';

const volumesPerPage = 500;

/**
 * Removes the snapshots of backups that this database knows and no longer needs, also of volumes that are gone; unknown
 * ones belong to somebody else. What is wrong with one volume does not keep the others from it; an agent that does not answer is
 * asked no more. Returns how many went.
 */
export async function dropOrphans(
  environment: ManagerEnvironment,
  backends: readonly StorageBackend[],
  signal: AbortSignal,
): Promise<number> {
  const { log, database, resources } = environment;
  const services = ownServices(resources.store.service);
  const asked = new Map(backends.map((backend) => [backend.name, backend]));
  let count = 0;
  for (let after = ''; ;) {
    const page = await listBackedUpVolumes(database.sql, { services, after, limit: volumesPerPage });
    for (const volume of page) {
      throwIfAborted(signal);
      const backend = asked.get(backendOf(volume.host));
      if (backend === undefined) continue;
      try {
        const dropped = await dropStaleSnapshots(environment, backend, volume, signal);
        if (dropped.length > 0)
          log.info({ volume: volume.id, snapshots: dropped }, 'needless backup snapshots removed');
        count += dropped.length;
      } catch (err) {
        throwIfAborted(signal);
        log.error({ volume: volume.id, err }, 'backup snapshots of this volume not looked through');
        if (isBackupError(err, 'agent-unavailable')) asked.delete(backend.name);
      }
    }
    const last = page.at(-1);
    if (last === undefined || page.length < volumesPerPage) return count;
    after = last.id;
  }
}
