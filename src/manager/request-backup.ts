/** Asking for a backup: what cinder-api does before the manager gets to work (cinder/backup/api.py, create). */
import { randomUUID } from 'node:crypto';
import { insertBackupMetadata, type UserMetadata } from '../database/backup-metadata.ts';
import { getBackup, insertBackup, newestBackup } from '../database/backups.ts';
import { getSnapshot, moveSnapshot } from '../database/snapshots.ts';
import { requireNotInserted } from '../database/transaction.ts';
import { getVolume, moveVolume } from '../database/volumes.ts';
import type { Backup } from '../model/backup.ts';
import { BackupError } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { Snapshot, Volume } from '../model/volume.ts';
import { requireWantedContainer } from './backup-objects.ts';
import type { ManagerEnvironment } from './environment.ts';
import { persist } from './row-step.ts';

export type BackupRequest = {
  readonly volumeId: string;
  readonly snapshotId: string | null;
  readonly name: string | null;
  readonly description: string | null;
  readonly container: string | null;
  readonly incremental: boolean;
  readonly force: boolean;
  readonly availabilityZone: string | null;
  readonly metadata: UserMetadata;
};

/**
 * Checks the request, takes the volume or the snapshot (`backing-up`) and makes the row (`creating`), all at once.
 * `not-found`, `state-invalid`, `message-invalid`.
 */
export async function requestBackup(
  environment: ManagerEnvironment,
  context: RequestContext,
  request: BackupRequest,
): Promise<Backup> {
  const { database, clock, options } = environment;
  const { container } = request;
  if (container !== null && container !== '') requireWantedContainer(options.naming, container);
  const id = randomUUID();
  const now = clock.now();
  await database.transaction(async (sql) => {
    await requireNotInserted(sql, 'backups', id);
    const volume = await getVolume(sql, request.volumeId, context.projectId);
    const snapshot =
      request.snapshotId === null ? null : await getSnapshot(sql, request.snapshotId, context.projectId);
    if (snapshot === null) requireVolume(volume, request.force);
    else requireSnapshot(volume, snapshot);

    const parent = request.incremental
      ? await newestBackup(sql, {
          volumeId: volume.id,
          projectId: context.projectId,
          before: snapshot?.createdAt,
        })
      : undefined;
    if (request.incremental && parent === undefined) {
      throw new BackupError(
        'state-invalid',
        'Invalid backup: No backups available to do an incremental backup.',
      );
    }

    if (snapshot === null) {
      const step = { from: ['available', 'in-use'], to: 'backing-up' } as const;
      await moveVolume(sql, volume.id, step, { previousStatus: volume.status }, now);
    } else {
      await moveSnapshot(sql, snapshot.id, { from: ['available'], to: 'backing-up' }, now);
    }
    await insertBackup(
      sql,
      {
        id,
        projectId: context.projectId,
        userId: context.userId,
        volumeId: volume.id,
        snapshotId: snapshot?.id ?? null,
        parentId: parent?.id ?? null,
        name: request.name,
        description: request.description,
        host: options.host,
        availabilityZone: request.availabilityZone,
        container: request.container,
        sizeGiB: volume.sizeGiB,
        dataTimestamp: snapshot?.createdAt ?? now,
      },
      now,
    );
    await insertBackupMetadata(sql, id, request.metadata, now);
  });
  // The row is made: only its operation gives back what it holds.
  return await persist(() => getBackup(database.sql, id), AbortSignal.timeout(options.rowTimeoutMs));
}

function requireVolume(volume: Volume, force: boolean): void {
  if (volume.status !== 'available' && volume.status !== 'in-use') {
    throw new BackupError(
      'state-invalid',
      `Invalid volume: Volume to be backed up must be available or in-use, but the current status is "${volume.status}".`,
    );
  }
  if (volume.status === 'in-use' && !force) {
    throw new BackupError(
      'state-invalid',
      'Invalid volume: Backing up an in-use volume must use the force flag.',
    );
  }
}

function requireSnapshot(volume: Volume, snapshot: Snapshot): void {
  if (snapshot.volumeId !== volume.id) {
    throw new BackupError(
      'message-invalid',
      `Invalid volume: Volume ${volume.id} does not match with snapshot.volume_id ${snapshot.volumeId}.`,
    );
  }
  if (snapshot.status !== 'available') {
    throw new BackupError(
      'state-invalid',
      `Invalid snapshot: Snapshot to be backed up must be available, but the current status is "${snapshot.status}".`,
    );
  }
}
