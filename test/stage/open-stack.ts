/** What the end-to-end tests do: volumes with known content, requests through the real client, and waiting for rows. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { RowDataPacket } from 'mysql2/promise';
import { startPythonPeer } from '../support/python-peer.ts';
import { openCinderDatabase } from './brokers.ts';
import { createCinderClient, type CinderClient } from './client.ts';
import { cephDirectory } from './cloud.ts';
import { openStage, type Stage } from './stage.ts';
import { logIn, swiftObjects } from './swift-objects.ts';

/** Offset, length and generation, later ones over earlier ones; generation 0 is zeros. In bytes, multiples of 8. */
export type Content = readonly (readonly [offset: number, length: number, generation: number])[];

export type StageVolume = {
  readonly id: string;
  /** What it holds now. */
  content(): Content;
  /** Writes the next generation there. */
  write(...extents: readonly (readonly [offset: number, length: number])[]): Promise<void>;
  discard(offset: number, length: number): Promise<void>;
};

type Value = string | number | null;
export type TableRow = Readonly<Record<string, Value>>;

export type OpenStack = AsyncDisposable & {
  readonly stage: Stage;
  readonly admin: CinderClient;
  readonly demo: CinderClient;
  /** A volume of `sizeGiB` (1) with some megabytes written, unless `blank`. */
  makeVolume(options?: { readonly sizeGiB?: number; readonly blank?: boolean }): Promise<StageVolume>;
  /** Starts a backup with `cinder backup-create`; its id. */
  requestBackup(volumeId: string, ...args: readonly string[]): Promise<string>;
  /** As `requestBackup`, and waits until it is available. */
  backUp(volumeId: string, ...args: readonly string[]): Promise<string>;
  /** `cinder backup-restore`, to a new volume unless one is given; the volume's id, once the volume is available. */
  restore(backupId: string, volumeId?: string): Promise<string>;
  deleteBackup(backupId: string): Promise<void>;
  /** Fails unless the volume holds this and nothing else. */
  expectContent(volumeId: string, content: Content): Promise<void>;
  snapshotsOf(volumeId: string): Promise<readonly string[]>;
  /** Names of the objects in Swift's container that are a backup's, in the account of the administrator. */
  objectsOf(backupId: string): Promise<readonly string[]>;
  /** What the project of the administrator uses of a quota. */
  usageOf(resource: 'backups' | 'backup_gigabytes'): Promise<number>;
  /** Stops Swift from answering, so that backups, restores and deletes stand still in their middle, until released. */
  holdSwift(): Promise<AsyncDisposable>;
  /** Rows of Cinder's database. Columns as text or numbers. */
  rows(sql: string, ...values: readonly Value[]): Promise<readonly TableRow[]>;
  backupRow(id: string): Promise<TableRow>;
  volumeRow(id: string): Promise<TableRow>;
  execute(sql: string, ...values: readonly Value[]): Promise<void>;
  /** Waits for a status of a table's row. Fails at once on a status of `never`. */
  waitFor(
    table: 'backups' | 'volumes' | 'snapshots',
    id: string,
    status: string,
    options?: WaitOptions,
  ): Promise<TableRow>;
  /** Waits until the probe gives something else than undefined. */
  until<T>(what: string, probe: () => Promise<T | undefined>, timeoutMs?: number): Promise<T>;
};

export type WaitOptions = { readonly timeoutMs?: number; readonly never?: readonly string[] };

const MiB = 1024 * 1024;
const waitTimeoutMs = 120_000;
const imagesScript = fileURLToPath(new URL('rbd_images.py', import.meta.url));
const imageOf = (volumeId: string) => `volume-${volumeId}`;

export async function openOpenStack(directory: string): Promise<OpenStack> {
  const stage = await openStage(directory);
  if (stage === undefined) throw new Error(`there is no stage in ${directory}`);
  const { settings } = stage;
  const images = startPythonPeer(imagesScript, join(cephDirectory(settings), 'ceph.conf'));
  const admin = createCinderClient(settings, 'admin');
  const demo = createCinderClient(settings, 'demo');

  // A connection each time: the tests also restart the database.
  const rows = async (sql: string, ...values: readonly Value[]): Promise<readonly TableRow[]> => {
    const connection = await openCinderDatabase(settings);
    try {
      const [found] = await connection.query<(RowDataPacket & TableRow)[]>(sql, [...values]);
      return found;
    } finally {
      await connection.end();
    }
  };
  const row = async (table: string, id: string): Promise<TableRow> => {
    const [found] = await rows(`SELECT * FROM ${table} WHERE id = ?`, id);
    if (found === undefined) throw new Error(`there is no row ${id} in ${table}`);
    return found;
  };
  const waitFor: OpenStack['waitFor'] = async (
    table,
    id,
    status,
    { timeoutMs, never = ['error', 'error_restoring'] } = {},
  ) =>
    await until(
      `${table} ${id} ${status}`,
      async () => {
        const found = await row(table, id);
        if (found['status'] === status) return found;
        const now = String(found['status']);
        if (never.includes(now)) {
          const why = String(found['fail_reason'] ?? '');
          throw new Error(`${table} ${id} is ${now} instead of ${status}: ${why}`);
        }
        return undefined;
      },
      timeoutMs,
    );
  const requestBackup: OpenStack['requestBackup'] = async (volumeId, ...args) => {
    const { id } = await admin.show('backup-create', ...args, volumeId);
    if (id === undefined) throw new Error('cinder backup-create printed no id');
    return id;
  };
  return {
    stage,
    admin,
    demo,
    rows,
    until,
    waitFor,
    requestBackup,
    backupRow: async (id) => await row('backups', id),
    volumeRow: async (id) => await row('volumes', id),
    async execute(sql, ...values) {
      await rows(sql, ...values);
    },
    async makeVolume({ sizeGiB = 1, blank = false } = {}) {
      const { id = '' } = await admin.show(
        'create',
        '--name',
        `v-${randomUUID().slice(0, 8)}`,
        String(sizeGiB),
      );
      await waitFor('volumes', id, 'available');
      const content: (readonly [number, number, number])[] = [];
      let generation = 0;
      const put = async (more: Content) => {
        await images.ask({ verb: 'write', image: imageOf(id), content: more });
        content.push(...more);
      };
      const volume: StageVolume = {
        id,
        content: () => [...content],
        async write(...extents) {
          generation += 1;
          await put(extents.map(([offset, length]) => [offset, length, generation] as const));
        },
        discard: async (offset, length) => await put([[offset, length, 0]]),
      };
      const end = sizeGiB * 1024 * MiB;
      if (!blank)
        await volume.write([0, 3 * MiB], [50 * MiB - 4096, 8192], [301 * MiB, 5 * MiB], [end - MiB, MiB]);
      return volume;
    },
    async backUp(volumeId, ...args) {
      const id = await requestBackup(volumeId, ...args);
      await waitFor('backups', id, 'available');
      return id;
    },
    async restore(backupId, volumeId) {
      const to = volumeId === undefined ? [] : ['--volume', volumeId];
      const { volume_id: target = '' } = await admin.show('backup-restore', ...to, backupId);
      // The volume's status comes before the backup's.
      await waitFor('volumes', target, 'available');
      await waitFor('backups', backupId, 'available');
      return target;
    },
    async deleteBackup(backupId) {
      await admin.run('backup-delete', backupId);
      await until(`${backupId} deleted`, async () =>
        (await row('backups', backupId))['deleted'] === 1 ? true : undefined,
      );
    },
    async expectContent(volumeId, content) {
      const differs = await images.ask({ verb: 'compare', image: imageOf(volumeId), content });
      if (differs !== null)
        throw new Error(`volume ${volumeId} differs at ${JSON.stringify(differs)} from what it must hold`);
    },
    async snapshotsOf(volumeId) {
      const names = await images.ask({ verb: 'snapshots', image: imageOf(volumeId) });
      return Array.isArray(names) ? names.map(String) : [];
    },
    async objectsOf(backupId) {
      const names = await swiftObjects(settings, 'volumebackups');
      return names.filter((name) => name.includes(backupId));
    },
    async usageOf(resource) {
      const { projectId } = await logIn(settings);
      const usage = await admin.list('quota-usage', projectId);
      return Number(usage.find(({ Type }) => Type === resource)?.['In_use']);
    },
    async holdSwift() {
      await stage.daemons.signal('swift', 'SIGSTOP');
      return { [Symbol.asyncDispose]: async () => await stage.daemons.signal('swift', 'SIGCONT') };
    },
    async [Symbol.asyncDispose]() {
      await images.close();
    },
  };
}

async function until<T>(
  what: string,
  probe: () => Promise<T | undefined>,
  timeoutMs = waitTimeoutMs,
): Promise<T> {
  for (const end = Date.now() + timeoutMs; Date.now() < end; await sleep(200)) {
    const found = await probe();
    if (found !== undefined) return found;
  }
  throw new Error(`${what}: not within ${timeoutMs / 1000} s`);
}
