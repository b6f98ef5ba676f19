/** A manager over a real agent and real files, a store in memory that fails as planned, and rows in memory. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAgent } from '../../src/agent/agent.ts';
import { createFileBackend } from '../../src/agent/file-backend.ts';
import { createBudget } from '../../src/async/limit.ts';
import { findBackupEver } from '../../src/database/backups.ts';
import type { Database, Scope } from '../../src/database/database.ts';
import type { QuotaRules } from '../../src/database/quotas.ts';
import { openSqliteDatabase } from '../../src/database/sqlite/sqlite-database.ts';
import { registerBackupService } from '../../src/database/services.ts';
import { getVolume, insertVolume } from '../../src/database/volumes.ts';
import { createLogger, type Logger } from '../../src/log.ts';
import { createAgentStorage, createStorageDirectory } from '../../src/manager/agent-storage.ts';
import { noCloud } from '../../src/manager/cloud.ts';
import type { ManagerEnvironment, StorageBackend } from '../../src/manager/environment.ts';
import { createLocalVolumes, type LocalVolumes } from '../../src/manager/local-volumes.ts';
import { createManager, type Manager } from '../../src/manager/manager.ts';
import {
  createOperations,
  type Operation,
  type Operations,
  type StartedOperation,
} from '../../src/manager/operations.ts';
import type { BackupRequest } from '../../src/manager/request-backup.ts';
import type { Backup } from '../../src/model/backup.ts';
import { BackupError } from '../../src/model/errors.ts';
import { backupIdOfSnapshot, volumeName } from '../../src/model/names.ts';
import type { RequestContext } from '../../src/model/request-context.ts';
import { toGiB } from '../../src/model/volume.ts';
import { bytesPerObject } from '../../src/layout/chain.ts';
import { createSealer, type Sealer } from '../../src/pipeline/sealer.ts';
import { createAgentClient, type AgentClient } from '../../src/volume/agent-client.ts';
import { createFaultyStore, type FaultyStore } from '../support/faulty-store.ts';
import { createMemoryStore, type MemoryStore } from '../support/memory-store.ts';
import { patternBytes } from '../support/pattern.ts';

export const blockSize = 4096;
export const context: RequestContext = { projectId: 'demo', userId: 'tester', requestId: 'req-1' };

/** What a file of tests shares, because starting it takes time. */
export type Machine = {
  readonly directory: string;
  readonly client: AgentClient;
  readonly sealer: Sealer;
  readonly log: Logger;
  close(): Promise<void>;
};

export async function startMachine(): Promise<Machine> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-rig-'));
  const log = createLogger({ level: 'silent' });
  const backend = await createFileBackend({ name: 'file', directory, log });
  const agent = await createAgent({ backends: [backend], access: {}, host: '127.0.0.1', port: 0, log });
  const retry = { attempts: 1, firstDelayMs: 1, maxDelayMs: 1 };
  const client = createAgentClient({ url: agent.url, access: {}, log, retry });
  const sealer = await createSealer({ threads: 1 });
  return {
    directory,
    client,
    sealer,
    log,
    async close() {
      await client.close();
      await agent.close();
      await sealer.close();
      await rm(directory, { recursive: true });
    },
  };
}

export type Rig = {
  readonly environment: ManagerEnvironment;
  readonly database: Database;
  readonly manager: Manager;
  readonly operations: Operations;
  readonly volumes: LocalVolumes;
  readonly store: FaultyStore;
  readonly objects: MemoryStore;
  /** Of the calls to the database from now on, `after` are answered and the `times` that follow are not. */
  failDatabase(after: number, times: number): void;
  /** Calls of the storage that are answered otherwise than by the agent. */
  readonly overrides: Partial<StorageBackend>;
  readonly machine: Machine;
  /** A volume of bytes that tell their place and generation, with its row. */
  addVolume(sizeBytes: number, generation?: number): Promise<string>;
  path(volumeId: string): string;
  /** Overwrites a range with bytes of another generation. */
  change(volumeId: string, offset: number, length: number, generation: number): Promise<void>;
  bytes(volumeId: string): Promise<Buffer>;
  /** Asks for a backup, waits for its end, and returns row and operation. */
  backup(volumeId: string, changes?: Partial<BackupRequest>): Promise<{ row: Backup; operation: Operation }>;
  restore(backupId: string, volumeId: string | null): Promise<{ volumeId: string; operation: Operation }>;
  remove(backupId: string, force?: boolean): Promise<Operation>;
  /** The ids of the backups that have a snapshot of the volume, which may be gone. */
  snapshotOwners(volumeId: string): Promise<readonly string[]>;
  row(backupId: string): Promise<Backup>;
  /** A backup service on another host, seen `secondsAgo`. */
  addService(host: string, secondsAgo: number): Promise<void>;
  /** Waits until all operations have ended, and what they left for later. */
  settled(): Promise<void>;
  volumeStatus(volumeId: string): Promise<string>;
  close(): Promise<void>;
};

/** `on` is a rig whose rows and store are shared: the same service after a restart with other options. */
export function createRig(
  machine: Machine,
  changes: {
    readonly blockSize?: number;
    readonly maxRunning?: number;
    readonly maxObjects?: number;
    /** How often rows are looked at while their operations run; hardly ever unless given. */
    readonly watchIntervalMs?: number;
    readonly quota?: QuotaRules;
    readonly host?: string;
    readonly keepSnapshots?: number;
    readonly agentTimeoutMs?: number;
    /** Another database than one of its own in memory; the rig closes it. */
    readonly database?: Database;
    /** Told of each line of the log. */
    readonly onLine?: (line: string) => void;
    readonly on?: Rig;
  } = {},
): Rig {
  const database = changes.on?.database ?? changes.database ?? openSqliteDatabase(':memory:');
  const objectLists = createBudget((changes.maxObjects ?? 10_000) * bytesPerObject);
  const objects = changes.on?.objects ?? createMemoryStore();
  const store = createFaultyStore(objects);
  const { client, sealer, directory } = machine;
  const { onLine: write } = changes;
  const log = write === undefined ? machine.log : createLogger({ level: 'info', destination: { write } });
  const clock = { now: () => new Date() };
  const agentStorage = createAgentStorage(client, 'host@file', 'file');
  const overrides: { -readonly [call in keyof StorageBackend]?: StorageBackend[call] } = {};
  const storage = new Proxy(agentStorage, {
    get: (target, call: keyof StorageBackend) => overrides[call] ?? target[call],
  });
  const faulty = createFaultyDatabase(database);
  const environment: ManagerEnvironment = {
    database: faulty.database,
    resources: { store, sealer, memory: createBudget(64 * 1024 * 1024), objectLists, log },
    storage: createStorageDirectory([storage]),
    clock,
    log,
    options: {
      host: changes.host ?? 'host',
      availabilityZone: 'nova',
      naming: 'posix',
      container: undefined,
      objectBytes: 4 * blockSize,
      blockSize: changes.blockSize ?? blockSize,
      codec: 'zlib',
      mergeGapBytes: 0,
      metadataVersion: 2,
      cleanupTimeoutMs: 10_000,
      rowTimeoutMs: 10_000,
      watchIntervalMs: changes.watchIntervalMs ?? 3_600_000,
      serviceDownMs: 60_000,
      messageTtlMs: 3_600_000,
      agentTimeoutMs: changes.agentTimeoutMs ?? 10_000,
      keepSnapshots: changes.keepSnapshots ?? 1,
      quota: changes.quota ?? null,
      notifyProgress: { objects: Infinity, intervalMs: 0 },
    },
    cloud: noCloud,
  };
  const registry = createOperations({
    maxRunning: changes.maxRunning ?? 4,
    maxQueued: 100,
    maxFinished: 100,
    cleanupTimeoutMs: 10_000,
    clock,
    log,
  });
  const unsettled = new Set<Promise<void>>();
  const operations: Operations = {
    ...registry,
    start(subject, work) {
      const started = registry.start(subject, work);
      const settled = started.settled.finally(() => unsettled.delete(settled));
      unsettled.add(settled);
      return started;
    },
  };
  const volumes = createLocalVolumes(environment, { backend: storage, host: 'host@file#file' });
  const manager = createManager(environment, {
    operations,
    makeVolume: (asker, wanted) => volumes.make(asker, wanted),
  });
  const path = (volumeId: string) => join(directory, volumeName(volumeId));
  const ended = async (started: StartedOperation): Promise<Operation> => {
    await started.settled;
    const operation = operations.get(started.id);
    if (operation === undefined) throw new Error('the operation is forgotten');
    return operation;
  };
  const row = async (id: string): Promise<Backup> => {
    const found = await findBackupEver(database.sql, id);
    if (found === undefined) throw new Error(`no row of backup ${id}`);
    return found;
  };

  return {
    environment,
    database,
    manager,
    operations,
    volumes,
    store,
    objects,
    failDatabase: (after, times) => faulty.fail(after, times),
    overrides,
    machine,
    path,
    row,
    async addService(host, secondsAgo) {
      const seen = new Date(Date.now() - secondsAgo * 1000);
      const service = { host, availabilityZone: 'nova', enableNewServices: true };
      await registerBackupService(database.sql, service, seen);
    },
    async settled() {
      while (unsettled.size > 0) await Promise.all(unsettled);
    },
    async addVolume(sizeBytes, generation = 1) {
      const id = randomUUID();
      await writeFile(path(id), patternBytes(sizeBytes, generation));
      const host = 'host@file#file';
      const fields = { id, projectId: 'demo', userId: 'tester', host, availabilityZone: 'nova' };
      await insertVolume(
        database.sql,
        {
          ...fields,
          sizeGiB: toGiB(sizeBytes),
          status: 'available',
          name: 'v',
          description: null,
          ...(changes.database === undefined ? {} : { volumeTypeId: randomUUID() }),
        },
        clock.now(),
      );
      return id;
    },
    async change(volumeId, offset, length, generation) {
      await using file = await open(path(volumeId), 'r+');
      await file.write(patternBytes(length, generation, offset), 0, length, offset);
    },
    bytes: (volumeId) => readFile(path(volumeId)),
    async backup(volumeId, wanted = {}) {
      const { backup, operation } = await manager.backup(context, {
        volumeId,
        snapshotId: null,
        name: 'b',
        description: null,
        container: null,
        incremental: false,
        force: false,
        availabilityZone: null,
        metadata: {},
        ...wanted,
      });
      const end = await ended(operation);
      return { row: await row(backup.id), operation: end };
    },
    async restore(backupId, volumeId) {
      const { volume, operation } = await manager.restore(context, { backupId, volumeId, name: null });
      return { volumeId: volume.id, operation: await ended(operation) };
    },
    async remove(backupId, force = false) {
      const { operation } = await manager.remove(context, { backupId, force });
      return await ended(operation);
    },
    async snapshotOwners(volumeId) {
      const { signal } = new AbortController();
      const snapshots = await client.snapshots('file', volumeName(volumeId), signal);
      return snapshots.flatMap(({ name }) => backupIdOfSnapshot(name) ?? []);
    },
    async volumeStatus(volumeId) {
      return (await getVolume(database.sql, volumeId)).status;
    },
    async close() {
      await operations.drain(0);
      await volumes.close();
      await database.close();
    },
  };
}

/** The database, with calls that get no answer: statements outside of transactions, and whole transactions. */
function createFaultyDatabase(database: Database): {
  readonly database: Database;
  fail(after: number, times: number): void;
} {
  let [answered, failing] = [0, 0];
  const enter = () => {
    if (failing === 0) return;
    if (answered > 0) answered -= 1;
    else {
      failing -= 1;
      throw new BackupError('database-unavailable', 'the database does not answer');
    }
  };
  const scope: Scope = {
    ...database.sql.scope,
    async transaction(work) {
      enter();
      await database.transaction(work);
    },
  };
  const sql = new Proxy(database.sql, {
    get(target, name) {
      if (name === 'scope') return scope;
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        enter();
        return Reflect.apply(value, target, args);
      };
    },
  });
  return {
    database: {
      sql,
      async transaction(work) {
        enter();
        await database.transaction(work);
      },
      ping: () => database.ping(),
      close: () => database.close(),
    },
    fail(after, times) {
      [answered, failing] = [after, times];
    },
  };
}

/** Every object key in the store. */
export function keysIn(rig: Rig): readonly string[] {
  return Array.from(rig.objects.containers.values()).flatMap((container) => Array.from(container.keys()));
}

/** The key of a backup's closing document or data object: `_metadata`, `_sha256file`, `-00001`. */
export function keyOf(backup: Backup, ending: string): { container: string; key: string } {
  return { container: backup.container ?? '', key: `${backup.prefix}${ending}` };
}
