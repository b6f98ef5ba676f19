/**
 * Volumes as RBD images of one pool (`volume-<uuid>`), backups by RBD snapshots (`backup.<uuid>.snap.<time>`, never protected,
 * so that Cinder's driver removes them with the volume: cinder/volume/drivers/rbd.py delete_volume).
 *
 * Entry: createRbdBackend. All calls go through librbd in worker threads (rbd-steps); bytes are read in the reader threads
 * (rbd-reader). No kernel client, no other process, no shell.
 *
 * - A volume's identity is the cluster, the pool and the id of the image; a snapshot's has its id too, which no
 *   other snapshot of a pool ever has. Names (a migrated volume, a snapshot made anew) do not count.
 * - A snapshot may be removed while it is read. librbd would then read newer bytes, so streams ask at their end whether
 *   it is still there, and finding asks the same of both snapshots.
 * - Images are made, grown and removed by Cinder, not here.
 *
 *   at the same time on one volume     allowed
 *   snapshots, reading, writing guest  yes, in any number
 *   restore target / restore target    no: the second is `state-invalid`
 *   restore target / another writer    no: the restore waits a while for it to let go, then is `state-invalid`
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createBudget } from '../async/limit.ts';
import type { Logger } from '../log.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import { snapshotNamePattern, volumeNamePattern } from '../model/names.ts';
import type { BackendInfo, SnapshotInfo, VolumeInfo } from '../protocol/calls.ts';
import { previousGone, requireFit, requireWholeLength } from './range-checks.ts';
import type { RbdSnapshotFacts } from './rbd-calls.ts';
import {
  createRbdConnection,
  createRbdThreads,
  type RbdConnection,
  type RbdThreads,
} from './rbd-connection.ts';
import { createRbdImages, type RbdImage } from './rbd-images.ts';
import { describeEach } from './rbd-listing.ts';
import { findRbdRanges } from './rbd-ranges.ts';
import type { ClusterSettings, RbdImageFacts, RbdPool } from './rbd-steps.ts';
import { createRbdTarget } from './rbd-target.ts';
import { requireAlone } from './rbd-watchers.ts';
import type { FindRequest, VolumeBackend, WriteTarget } from './volume-backend.ts';

/** Images that lists look at at a time: threads are left for restores. */
const describedAtOnce = 2;

/** How long a cluster may take to let the agent in, to answer one request, and to forget a client that died. */
export const rbdTimeouts = { connectTimeoutS: 15, answerTimeoutS: 120, watchTimeoutS: 40 } as const;

/**
 * Throws `config-invalid` if librbd, the configuration file, the keyring or the pool is not there. A cluster that does
 * not answer is no error: it is logged, and asked again with the first request.
 */
export async function createRbdBackend(options: {
  readonly name: string;
  readonly settings: ClusterSettings;
  /** Identities of the images that are restored to, of all backends that may serve the same ones. */
  readonly restoring: Set<string>;
  /** Threads of its own unless given; closed with it. */
  readonly threads?: RbdThreads;
  readonly log: Logger;
}): Promise<VolumeBackend> {
  const { log, name, restoring, settings, threads = createRbdThreads() } = options;
  const connection = createRbdConnection({ settings, threads, log });
  const images = createRbdImages(connection, log);
  const describing = createBudget(describedAtOnce);
  const closing = new AbortController();
  const targets = new Map<string, Promise<WriteTarget>>();
  /** Connections of restores that have ended. */
  const leaving = new Set<Promise<void>>();
  const info: BackendInfo = { name, type: 'rbd', delta: 'extents', restore: true, create_volume: false };

  const close = async () => {
    closing.abort();
    for (const target of await Promise.allSettled(targets.values())) {
      if (target.status === 'fulfilled') await target.value.close();
    }
    await Promise.all(leaving);
    await images.close();
    await connection.close();
    await threads.close();
  };
  try {
    await connection.use(async () => {});
  } catch (error) {
    if (!isBackupError(error, 'agent-unavailable')) {
      await close();
      throw error;
    }
    log.error({ backend: name, err: error }, 'cluster does not answer: it is asked again when it is needed');
  }

  const describe = (volume: string): Promise<{ pool: RbdPool; facts: RbdImageFacts }> =>
    connection.use(async ({ pool, run }) => {
      const { facts } = await run('facts', volume, { kind: 'describe', pool, name: volume });
      return { pool, facts };
    });

  /** `state-invalid` if this or another backend of the agent restores to the image, or any other client has it open. */
  const takeForRestore = async (volume: string, image: RbdImage): Promise<() => void> => {
    const identity = volumeIdentity(image.pool, image.facts);
    if (restoring.has(identity)) throw alreadyRestored(volume);
    restoring.add(identity);
    const release = () => void restoring.delete(identity);
    try {
      await requireAlone({
        volume,
        image,
        watchTimeoutS: settings.watchTimeoutS,
        sleep: (milliseconds) => sleep(milliseconds, undefined, { signal: closing.signal }).catch(() => {}),
        signal: closing.signal,
      });
      return release;
    } catch (error) {
      release();
      throw error;
    }
  };

  /** Closes a restore's connection. Only `close` waits for it: a cluster that has not answered does not answer this either. */
  const leave = (own: RbdConnection, imagesClosed: Promise<void>): void => {
    const left = imagesClosed.then(() => own.close()).finally(() => leaving.delete(left));
    leaving.add(left);
  };

  /** A restore has a connection of its own: what one leaves behind when it is cut, the next can put right. */
  const openTarget = async (volume: string): Promise<WriteTarget> => {
    const own = createRbdConnection({ settings, threads, log });
    const opened = createRbdImages(own, log);
    try {
      const image = await opened.open(volume, null);
      const release = await takeForRestore(volume, image);
      const ended = (imageClosed: Promise<void>) => {
        targets.delete(volume);
        release();
        leave(own, imageClosed);
      };
      return createRbdTarget({ volume, image, ended });
    } catch (error) {
      targets.delete(volume);
      leave(own, opened.close());
      throw error;
    }
  };

  /** Throws unless `volume` still is the image that `of` is, with all these snapshots. */
  const requireThere = async (
    volume: string,
    of: RbdImage,
    snapshots: readonly { readonly facts: RbdSnapshotFacts; readonly gone: () => BackupError }[],
  ): Promise<void> => {
    const now = await describe(volume).catch((error: unknown) => {
      if (!isBackupError(error, 'not-found')) throw error;
      return undefined;
    });
    const same = now?.facts.imageId === of.facts.imageId ? now.facts.snapshots : [];
    for (const { facts, gone } of snapshots) if (!same.some(({ id }) => id === facts.id)) throw gone();
  };

  const openSnapshot = async (volume: string, snapshot: string) => {
    const image = await images.open(volume, snapshot);
    if (image.snapshot !== null) return { image, facts: image.snapshot };
    await image.close();
    throw new BackupError('bug', `snapshot ${snapshot} of ${volume} was opened without one`);
  };

  const notCreated = () =>
    Promise.reject(
      new BackupError('state-invalid', `backend ${name} makes and resizes no volumes: Cinder does that`),
    );

  return {
    info,
    async listVolumes(signal) {
      const { names, pool } = await connection.use(async ({ pool: open, run }) => ({
        ...(await run('names', `pool ${settings.pool}`, { kind: 'list', pool: open })),
        pool: open,
      }));
      const volumes = names.filter((volume) => volumeNamePattern.test(volume)).toSorted();
      return await describeEach(volumes, describing, signal, async (volume) => {
        try {
          return volumeInfo(pool, volume, (await describe(volume)).facts);
        } catch (error) {
          if (isBackupError(error, 'not-found')) return undefined;
          throw error;
        }
      });
    },
    // A snapshot does not outlive its image.
    listGone: async () => [],
    async getVolume(volume) {
      const { facts, pool } = await describe(volume);
      return { ...volumeInfo(pool, volume, facts), snapshots: snapshotInfos(pool, facts) };
    },
    async listSnapshots(volume) {
      try {
        const { facts, pool } = await describe(volume);
        return snapshotInfos(pool, facts);
      } catch (error) {
        if (isBackupError(error, 'not-found')) return [];
        throw error;
      }
    },
    createVolume: notCreated,
    resizeVolume: notCreated,
    async createSnapshot(volume, snapshot, signal) {
      throwIfAborted(signal);
      const thing = `snapshot ${snapshot} of ${volume}`;
      const { facts, pool } = await connection.use(async ({ pool: open, run }) => {
        const step = { kind: 'make-snapshot', pool: open, name: volume, snapshot } as const;
        return { ...(await run('facts', thing, step, { signal })), pool: open };
      });
      const made = facts.snapshots.find((one) => one.name === snapshot);
      if (made !== undefined) return snapshotInfo(pool, facts, made);
      throw new BackupError('state-invalid', `snapshot ${snapshot} of ${volume} was removed as it was made`);
    },
    async deleteSnapshot(volume, snapshot) {
      const thing = `snapshot ${snapshot} of ${volume}`;
      await connection.use(({ pool, run }) =>
        run('done', thing, { kind: 'drop-snapshot', pool, name: volume, snapshot }),
      );
    },
    async findRanges(request) {
      const { volume } = request;
      const { image, facts: current } = await openSnapshot(volume, request.current);
      try {
        requireWholeLength(request, current.sizeBytes);
        const previous = image.facts.snapshots.find((one) => one.name === request.previous);
        if (request.previous !== null) {
          if (previous === undefined) throw previousGone(request);
          requireFit(request, snapshotInfo(image.pool, image.facts, previous));
          requireOlder(request, previous, current);
        }
        const needed = [{ facts: current, gone: () => removed(volume, request.current) }];
        if (previous !== undefined) needed.push({ facts: previous, gone: () => previousGone(request) });
        return await findRbdRanges({
          image,
          request,
          previousBytes: previous?.sizeBytes ?? null,
          confirm: () => requireThere(volume, image, needed),
          close: () => image.close(),
        });
      } catch (error) {
        await image.close();
        throw error;
      }
    },
    async openSnapshot(volume, snapshot) {
      const { image, facts } = await openSnapshot(volume, snapshot);
      const requireSame = () =>
        requireThere(volume, image, [{ facts, gone: () => removed(volume, snapshot) }]);
      return {
        sizeBytes: facts.sizeBytes,
        identity: snapshotIdentity(image.pool, image.facts, facts),
        handle: {
          kind: 'rbd',
          image: image.handle,
          cluster: settings.clusterName,
          fsid: image.pool.fsid,
          thing: `snapshot ${snapshot} of ${volume}`,
        },
        requireNamed: requireSame,
        requireWhole: requireSame,
        close: () => image.close(),
      };
    },
    async openTarget(volume) {
      if (targets.has(volume)) throw alreadyRestored(volume);
      const opening = openTarget(volume);
      targets.set(volume, opening);
      return await opening;
    },
    // The cluster keeps nothing of a process that died, but its watch on an image that it wrote to, for half a minute.
    recover: async () => {},
    close,
  };
}

function alreadyRestored(volume: string): BackupError {
  return new BackupError('state-invalid', `${volume} is being restored to: wait until that has ended`);
}

function removed(volume: string, snapshot: string): BackupError {
  return new BackupError(
    'state-invalid',
    `snapshot ${snapshot} of ${volume} was removed or made anew while it was read`,
  );
}

/** Snapshots of a pool are numbered as they are made, and librbd compares only from an older one to a newer one. */
function requireOlder(request: FindRequest, previous: RbdSnapshotFacts, current: RbdSnapshotFacts): void {
  if (previous.id <= current.id) return;
  throw new BackupError(
    'delta-unavailable',
    `the previous snapshot ${request.previous} of ${request.volume} is newer than the current one, ${request.current}: compare digests or do a full`,
  );
}

function volumeIdentity(pool: RbdPool, facts: RbdImageFacts): string {
  return `${pool.fsid}/${pool.poolId}/${facts.imageId}`;
}

function snapshotIdentity(pool: RbdPool, facts: RbdImageFacts, snapshot: RbdSnapshotFacts): string {
  return `${volumeIdentity(pool, facts)}@${snapshot.id}`;
}

function volumeInfo(pool: RbdPool, volume: string, facts: RbdImageFacts): VolumeInfo {
  const identity = volumeIdentity(pool, facts);
  return { name: volume, size_bytes: facts.sizeBytes, identity, allocated_bytes: null };
}

function snapshotInfo(pool: RbdPool, facts: RbdImageFacts, snapshot: RbdSnapshotFacts): SnapshotInfo {
  return {
    name: snapshot.name,
    size_bytes: snapshot.sizeBytes,
    identity: snapshotIdentity(pool, facts, snapshot),
    created_at: new Date(snapshot.createdAtMs).toISOString(),
  };
}

/** Those that Cinder or an agent made; others (of an administrator, of clones in the trash) are nobody's business here. */
function snapshotInfos(pool: RbdPool, facts: RbdImageFacts): SnapshotInfo[] {
  return facts.snapshots
    .filter(({ name }) => snapshotNamePattern.test(name))
    .map((snapshot) => snapshotInfo(pool, facts, snapshot));
}
