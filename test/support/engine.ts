/**
 * Our side of an interop test: a running standalone service, its rows, its store, and its volumes with what they
 * must hold. Cinder's side works on the same rows and the same store (cinder-peer.ts).
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { z } from 'zod';
import { requireAvailable, type RestClient } from '../../src/main/rest-client.ts';
import { toGiB } from '../../src/model/volume.ts';
import type { PeerRow } from './cinder-peer.ts';
import { makeVolumeFile } from './random-volume.ts';
import { startService, type ServiceOptions, type ServiceProcess } from '../../src/main/service-process.ts';
import { trackVolume, type TrackedVolume } from './tracked-volume.ts';

export const project = 'demo';

const rowSchema = z.looseObject({
  id: z.string(),
  volume_id: z.string(),
  parent_id: z.string().nullable(),
  container: z.string().nullable(),
  service_metadata: z.string().nullable(),
  size: z.number(),
  created_at: z.string(),
  display_name: z.string().nullable(),
  display_description: z.string().nullable(),
  object_count: z
    .number()
    .nullable()
    .transform((count) => count ?? 0),
  status: z.string(),
  num_dependent_backups: z.number().nullable(),
});

export type EngineRow = z.infer<typeof rowSchema>;

export type EngineVolume = { readonly id: string; readonly file: TrackedVolume };

export type Engine = AsyncDisposable & {
  /** Of the process that runs now: a restart brings another. */
  readonly client: RestClient;
  readonly service: ServiceProcess;
  readonly stateDir: string;
  /** The directory of the posix store. */
  readonly storeDir: string;
  /** A volume file of zeros, put where the service finds it. The size is a multiple of 512. */
  addVolume(sizeBytes: number): Promise<EngineVolume>;
  volumePath(volumeId: string): string;
  /** Makes a backup and waits until it is available and nothing is left to tidy up. */
  backup(volumeId: string, kind: 'full' | 'incremental'): Promise<PeerRow>;
  /** Restores into an existing volume and waits. */
  restore(backupId: string, volumeId: string): Promise<void>;
  /** The ranges that a verify finds bad. */
  verify(backupId: string): Promise<readonly unknown[]>;
  /** Stops the service, or kills it, and starts it again on the same state. */
  restart(how: 'stop' | 'kill'): Promise<void>;
  /** The rows of `backups` that are not deleted. */
  rows(): readonly EngineRow[];
  /** A new row in status creating, as cinder-api writes it before it calls cinder-backup. */
  insertRow(row: {
    readonly volumeId: string;
    readonly parentId: string | null;
    readonly sizeBytes: number;
  }): PeerRow;
  /** Writes back what Cinder's driver made of a row; a parent's dependents are counted, as its manager does. */
  updateRow(
    row: Pick<PeerRow, 'id' | 'container' | 'service_metadata' | 'object_count'> & {
      readonly service?: string | null | undefined;
    },
    status: string,
  ): void;
};

/** Starts a service; it goes when this is disposed of, and so does its state directory unless that was given. */
export async function startEngine(options: Partial<ServiceOptions> = {}): Promise<Engine> {
  const stateDir = options.stateDir ?? (await mkdtemp(join(tmpdir(), 'cinder-delta-engine-')));
  const discardState = async () => {
    if (options.stateDir === undefined) await rm(stateDir, { recursive: true, force: true });
  };
  let service = await startService({ ...options, stateDir }).catch(async (error: unknown) => {
    await discardState();
    throw error;
  });
  const database = new DatabaseSync(join(stateDir, 'cinder-delta.sqlite'), { timeout: 10_000 });
  const execute = (text: string, ...values: SQLInputValue[]) => database.prepare(text).run(...values);
  const rows = () =>
    z
      .array(rowSchema)
      .parse(database.prepare('SELECT * FROM backups WHERE NOT deleted ORDER BY created_at').all());
  const rowOf = (id: string) => {
    const row = rows().find((each) => each.id === id);
    if (row === undefined) throw new Error(`there is no row of backup ${id}`);
    return row;
  };
  const volumePath = (volumeId: string) => join(stateDir, 'volumes', `volume-${volumeId}`);

  return {
    get client() {
      return service.client;
    },
    get service() {
      return service;
    },
    stateDir,
    storeDir: join(stateDir, 'backups'),
    rows,
    volumePath,
    async addVolume(sizeBytes) {
      const id = randomUUID();
      await makeVolumeFile(volumePath(id), { sizeBytes, extents: [] });
      return { id, file: trackVolume(volumePath(id), sizeBytes) };
    },
    async backup(volumeId, kind) {
      const { client } = service;
      const id = await client.createBackup({ volumeId, incremental: kind === 'incremental' });
      requireAvailable(await client.settled(id));
      for (const { id: operationId } of await client.operations(id)) await client.finished(operationId);
      return rowOf(id);
    },
    async restore(backupId, volumeId) {
      await service.client.restore(backupId, volumeId);
      requireAvailable(await service.client.settled(backupId));
    },
    async verify(backupId) {
      const { client } = service;
      const operation = await client.finished(await client.startVerify(backupId));
      if (operation.result === null) throw new Error(`verify of ${backupId}: ${operation.error?.message}`);
      return operation.result.bad_ranges;
    },
    async restart(how) {
      if (how === 'kill') await service.kill();
      else await service.stop();
      service = await startService({ ...options, stateDir });
    },
    insertRow({ volumeId, parentId, sizeBytes }) {
      const id = randomUUID();
      const now = new Date().toISOString().replace('T', ' ').replace('Z', '');
      execute(
        `INSERT INTO backups (id, volume_id, parent_id, size, status, created_at, data_timestamp, deleted,
           project_id, user_id, host, availability_zone)
         SELECT ?, ?, ?, ?, 'creating', ?, ?, 0, ?, 'peer', 'peer', 'nova'`,
        id,
        volumeId,
        parentId,
        toGiB(sizeBytes),
        now,
        now,
        project,
      );
      return rowOf(id);
    },
    updateRow(row, status) {
      execute(
        `UPDATE backups SET status = ?, container = ?, service_metadata = ?, object_count = ?,
           service = ? WHERE id = ?`,
        status,
        row.container,
        row.service_metadata,
        row.object_count,
        row.service ?? 'cinder.backup.drivers.posix.PosixBackupDriver',
        row.id,
      );
      execute(
        `UPDATE backups SET num_dependent_backups =
           (SELECT count(*) FROM backups AS child WHERE child.parent_id = backups.id AND NOT child.deleted)`,
      );
    },
    async [Symbol.asyncDispose]() {
      database.close();
      await service[Symbol.asyncDispose]();
      await discardState();
    },
  };
}
