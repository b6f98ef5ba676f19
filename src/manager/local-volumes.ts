/**
 * What cinder-volume does, on one machine: volumes and their snapshots over the agent. Volumes that lie on the storage
 * without a row - an operator put a file there - are adopted by the project that first asks for them.
 */
import { randomUUID } from 'node:crypto';
import type { UserMetadata } from '../database/backup-metadata.ts';
import type { Sql } from '../database/database.ts';
import { setVolumeMetadata } from '../database/volume-metadata.ts';
import { getSnapshot, insertSnapshot, moveSnapshot } from '../database/snapshots.ts';
import {
  findVolume,
  getVolume,
  insertVolume,
  knownVolumes,
  listVolumes,
  moveVolume,
} from '../database/volumes.ts';
import { BackupError, isBackupError } from '../model/errors.ts';
import { cinderSnapshotName, isUuid, volumeName, volumeNamePattern } from '../model/names.ts';
import type { RequestContext } from '../model/request-context.ts';
import { gibibyte, toGiB, type Snapshot, type Volume, type VolumeStatus } from '../model/volume.ts';
import type { VolumeInfo } from '../protocol/calls.ts';
import type { ManagerEnvironment, StorageBackend } from './environment.ts';
import { endDeletion, endExtending, reconcileVolumes } from './reconcile-volumes.ts';
import { persistAndTell } from './row-step.ts';
import { settleAll } from './settle-all.ts';

export type LocalVolumes = {
  /** Makes rows for what is on the storage without one. */
  adopt(context: RequestContext, signal: AbortSignal): Promise<void>;
  /** Makes the row of one volume if it is on the storage and unknown. */
  adoptOne(context: RequestContext, volumeId: string, signal: AbortSignal): Promise<void>;
  /** A new volume of zeros, `creating` still: who asked for it takes it. */
  make(context: RequestContext, wanted: NewLocalVolume): Promise<Volume>;
  /** A new volume of zeros, `available` when it is returned. */
  create(context: RequestContext, wanted: NewLocalVolume): Promise<Volume>;
  /** Sets the status of a volume by hand. `state-invalid` while something is done to it. */
  reset(context: RequestContext, volumeId: string, to: 'available' | 'in-use' | 'error'): Promise<void>;
  /** The next three check, write the row and go on by themselves; the row's status tells what became of it. */
  extend(context: RequestContext, volumeId: string, sizeGiB: number): Promise<void>;
  createSnapshot(context: RequestContext, wanted: NewLocalSnapshot): Promise<Snapshot>;
  deleteSnapshot(context: RequestContext, snapshotId: string): Promise<void>;
  /** Ends what an earlier process left half done. */
  reconcile(signal: AbortSignal): Promise<void>;
  /** Waits until nothing goes on by itself any more. */
  settle(): Promise<void>;
  /** Cancels what goes on and waits for it. */
  close(): Promise<void>;
};

export type NewLocalVolume = {
  readonly sizeGiB: number;
  readonly name: string | null;
  readonly description: string | null;
  readonly metadata?: UserMetadata;
};

export type NewLocalSnapshot = {
  readonly volumeId: string;
  readonly name: string | null;
  readonly description: string | null;
  readonly force: boolean;
};

/** Statuses that nothing leaves by itself. */
const resettable: readonly VolumeStatus[] = [
  'available',
  'in-use',
  'error',
  'error_restoring',
  'error_extending',
];

export function createLocalVolumes(
  environment: ManagerEnvironment,
  /** The one backend, and the `host` that its volumes get (`host@backend#pool`). */
  place: { readonly backend: StorageBackend; readonly host: string },
): LocalVolumes {
  const { database, clock, options } = environment;
  const { backend, host } = place;
  const { sql } = database;
  const controller = new AbortController();
  const { signal: closing } = controller;
  const going = new Set<Promise<void>>();

  /** Lets `work` go on by itself; its rows tell how it ends, and the log why. */
  const goOn = (what: string, id: string, work: () => Promise<void>) => {
    const job = work()
      .catch((err: unknown) => environment.log.error({ id, err }, `${what} failed`))
      .finally(() => going.delete(job));
    going.add(job);
  };
  const settle = async () => {
    while (going.size > 0) await Promise.all(going);
  };

  const adoptInfo = async (context: RequestContext, info: VolumeInfo): Promise<void> => {
    const id = volumeNamePattern.exec(info.name)?.[1];
    if (id === undefined || info.size_bytes === 0) return;
    try {
      await insertVolume(
        sql,
        {
          id,
          projectId: context.projectId,
          userId: context.userId,
          host,
          sizeGiB: toGiB(info.size_bytes),
          availabilityZone: options.availabilityZone,
          status: 'available',
          name: null,
          description: null,
        },
        clock.now(),
      );
    } catch (error) {
      if (!isBackupError(error, 'already-exists')) throw error;
      return;
    }
    environment.log.info(
      { volume: id, bytes: info.size_bytes, project: context.projectId },
      'volume adopted',
    );
  };

  const make = async (
    context: RequestContext,
    { sizeGiB, name, description, metadata }: NewLocalVolume,
  ): Promise<Volume> => {
    const id = randomUUID();
    const { projectId, userId } = context;
    const { availabilityZone } = options;
    const row = { id, projectId, userId, host, sizeGiB, availabilityZone, name, description };
    const now = clock.now();
    await database.transaction(async (inner) => {
      await insertVolume(inner, { ...row, status: 'creating' }, now);
      await setVolumeMetadata(inner, id, metadata ?? {}, now);
    });
    try {
      await backend.createVolume(volumeName(id), sizeGiB * gibibyte, closing);
      return await getVolume(sql, id);
    } catch (error) {
      throw await settleAll(error, [
        () => moveVolume(sql, id, { from: ['creating'], to: 'error' }, {}, clock.now()),
      ]);
    }
  };

  return {
    async adopt(context, signal) {
      const { volumes: found } = await backend.listVolumes(signal);
      const ids = found.flatMap(({ name }) => volumeNamePattern.exec(name)?.[1] ?? []);
      const known = await knownVolumes(sql, ids);
      for (const info of found) {
        const id = volumeNamePattern.exec(info.name)?.[1];
        if (id !== undefined && !known.has(id)) await adoptInfo(context, info);
      }
      await refreshSizes(environment, found, context.projectId);
    },

    async adoptOne(context, volumeId, signal) {
      if (!isUuid(volumeId) || (await findVolume(sql, volumeId)) !== undefined) return;
      try {
        await adoptInfo(context, await backend.getVolume(volumeName(volumeId), signal));
      } catch (error) {
        if (!isBackupError(error, 'not-found')) throw error;
      }
    },

    make,

    async create(context, wanted) {
      const { id } = await make(context, wanted);
      const now = clock.now();
      await moveVolume(sql, id, { from: ['creating'], to: 'available' }, { launchedAt: now }, now);
      return await getVolume(sql, id);
    },

    async reset(context, volumeId, to) {
      const { status } = await getVolume(sql, volumeId, context.projectId);
      const from = resettable.filter((each) => each === status);
      if (from.length === 0) {
        throw new BackupError(
          'state-invalid',
          `Invalid volume: Volume ${volumeId} is ${status}: that ends by itself, or with the next start of the service.`,
        );
      }
      await moveVolume(sql, volumeId, { from, to }, {}, clock.now());
    },

    async extend(context, volumeId, sizeGiB) {
      const volume = await getVolume(sql, volumeId, context.projectId);
      if (volume.status !== 'available' && volume.status !== 'in-use') {
        throw new BackupError(
          'state-invalid',
          `Invalid volume: Volume ${volumeId} status must be available or in-use to extend, it is ${volume.status}.`,
        );
      }
      if (sizeGiB <= volume.sizeGiB) {
        throw new BackupError(
          'message-invalid',
          `Invalid input received: New size for extend must be greater than current size. (current: ${volume.sizeGiB}, extended: ${sizeGiB}).`,
        );
      }
      const { status } = volume;
      await moveVolume(
        sql,
        volumeId,
        { from: [status], to: 'extending' },
        { previousStatus: status },
        clock.now(),
      );
      goOn('extending a volume', volumeId, async () => {
        try {
          await backend.resizeVolume(volumeName(volumeId), sizeGiB * gibibyte, closing);
          await moveVolume(sql, volumeId, { from: ['extending'], to: status }, { sizeGiB }, clock.now());
        } catch (error) {
          const looking = AbortSignal.timeout(options.cleanupTimeoutMs);
          const end = () => endExtending(environment, backend, volumeId, 'error_extending', looking);
          throw await settleAll(error, [end]);
        }
      });
    },

    async createSnapshot(context, { volumeId, name, description, force }) {
      const volume = await getVolume(sql, volumeId, context.projectId);
      if (volume.status !== 'available' && !(force && volume.status === 'in-use')) {
        throw new BackupError(
          'state-invalid',
          `Invalid volume: Volume ${volumeId} status must be available, but current status is: ${volume.status}.`,
        );
      }
      const id = randomUUID();
      const { projectId, userId } = context;
      const row = { id, volumeId, projectId, userId, volumeSizeGiB: volume.sizeGiB, name, description };
      await insertSnapshot(sql, row, clock.now());
      goOn('creating a snapshot', id, async () => {
        try {
          await backend.createSnapshot(volumeName(volumeId), cinderSnapshotName(id), closing);
          await moveSnapshot(sql, id, { from: ['creating'], to: 'available' }, clock.now());
        } catch (error) {
          throw await settleAll(error, [
            () => moveSnapshot(sql, id, { from: ['creating'], to: 'error' }, clock.now()),
          ]);
        }
      });
      return await getSnapshot(sql, id);
    },

    async deleteSnapshot(context, snapshotId) {
      const snapshot = await getSnapshot(sql, snapshotId, context.projectId);
      if (snapshot.status !== 'available' && snapshot.status !== 'error') {
        throw new BackupError(
          'state-invalid',
          `Invalid snapshot: Snapshot status must be available or error, it is ${snapshot.status}.`,
        );
      }
      await moveSnapshot(sql, snapshotId, { from: [snapshot.status], to: 'deleting' }, clock.now());
      goOn('deleting a snapshot', snapshotId, () => endDeletion(environment, backend, snapshot, closing));
    },

    settle,
    async close() {
      controller.abort(new BackupError('cancelled', 'the service is stopping'));
      await settle();
    },

    async reconcile(signal) {
      const reconcile = () => reconcileVolumes(environment, backend, signal);
      await persistAndTell(environment.log, reconcile, signal);
    },
  };
}

/** A file that its owner made larger or smaller: the row of an idle volume follows. */
async function refreshSizes(
  { database, clock }: ManagerEnvironment,
  found: readonly VolumeInfo[],
  projectId: string,
): Promise<void> {
  const sizes = new Map(found.map(({ name, size_bytes }) => [name, toGiB(size_bytes)]));
  for (const volume of await listVolumes(database.sql, { projectId, status: 'available' })) {
    const sizeGiB = sizes.get(volumeName(volume.id));
    if (sizeGiB === undefined || sizeGiB === 0 || sizeGiB === volume.sizeGiB) continue;
    await moveIfStill(database.sql, volume.id, sizeGiB, clock.now());
  }
}

async function moveIfStill(sql: Sql, volumeId: string, sizeGiB: number, now: Date): Promise<void> {
  try {
    await moveVolume(sql, volumeId, { from: ['available'], to: 'available' }, { sizeGiB }, now);
  } catch (error) {
    if (!isBackupError(error, 'stale-update', 'not-found')) throw error;
  }
}
