/**
 * The standalone service: everything in one process under one state directory.
 *
 *   <state>/lock                     one process at a time
 *   <state>/cinder-delta.sqlite      rows, in Cinder's tables
 *   <state>/volumes/volume-<uuid>    raw volumes, served by an agent on loopback
 *   <state>/backups/                 the store, in the layout of Cinder's posix driver, unless another is configured
 */
import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { listBackups } from '../database/backups.ts';
import { openSqliteDatabase } from '../database/sqlite/sqlite-database.ts';
import { lockStateDirectory } from '../database/sqlite/sqlite-lock.ts';
import type { Logger } from '../log.ts';
import { createAgentStorage, createStorageDirectory } from '../manager/agent-storage.ts';
import { noCloud } from '../manager/cloud.ts';
import type { ManagerEnvironment } from '../manager/environment.ts';
import { createLocalVolumes } from '../manager/local-volumes.ts';
import { createManager } from '../manager/manager.ts';
import { createOperations, type Operations } from '../manager/operations.ts';
import { systemClock } from '../model/clock.ts';
import type { Codec } from '../model/codec.ts';
import { BackupError, isBackupError, messageOf } from '../model/errors.ts';
import type { DeflateEffort } from '../pipeline/codecs/open-codecs.ts';
import { objectSizes, slabObjectBytes } from '../pipeline/memory.ts';
import { divideMemory } from '../pipeline/object-room.ts';
import { createSealer } from '../pipeline/sealer.ts';
import { createRestApp } from '../rest/app.ts';
import { createMetrics } from '../rest/metrics.ts';
import { createAgentClient } from '../volume/agent-client.ts';
import { startAgentThread } from './agent-thread.ts';
import { createReleaseStack } from './lifecycle.ts';
import { listenForRest } from './listen-for-rest.ts';
import { openPosixStore, type OpenedStore } from './open-posix-store.ts';

export type StandaloneOptions = {
  /** Size of an object before compression: a multiple of the block size. */
  readonly objectBytes: number;
  /** Unit of hashing and of change. */
  readonly blockSize: number;
  readonly codec: Codec;
  readonly zlibEffort: DeflateEffort;
  /** Changed ranges nearer than this become one object. */
  readonly mergeGapBytes: number;
  /** Ceiling of the buffers of all operations. */
  readonly memoryBytes: number;
  /** Operations at once; more wait. */
  readonly maxOperations: number;
  /** How long a stop waits for running operations before it cancels them. */
  readonly drainMs: number;
  /** What `X-Auth-Token` must be; without one everybody on this machine may use the API. */
  readonly token?: string | undefined;
};

export const standaloneDefaults: StandaloneOptions = {
  objectBytes: 52_428_800,
  blockSize: 32_768,
  codec: 'zlib',
  zlibEffort: 'balanced',
  mergeGapBytes: 32_768,
  memoryBytes: 512 * 1024 * 1024,
  maxOperations: 15,
  drainMs: 30_000,
};

export type Standalone = {
  readonly url: string;
  readonly agentUrl: string;
  /** Takes no more requests, lets operations end or cancels them, and closes everything. */
  close(): Promise<void>;
};

/** Backends, hosts and zones of the one machine; the names stand in rows and in the metadata of backups. */
const serviceHost = 'standalone';
const backendName = 'file';
const availabilityZone = 'nova';
const cleanupTimeoutMs = 60_000;
const maxQueuedOperations = 1000;
const rememberedOperations = 1000;

/**
 * Starts the service; what an earlier process left has been put right when it returns. `config-invalid` if the
 * address cannot be had, `state-invalid` if another service runs on the directory.
 */
export async function createStandalone(settings: {
  readonly stateDir: string;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly options?: Partial<StandaloneOptions>;
  /** Instead of `<state>/backups`; it is closed with the service. */
  readonly store?: OpenedStore | undefined;
  readonly log: Logger;
}): Promise<Standalone> {
  const { log, host, port } = settings;
  const options = { ...standaloneDefaults, ...settings.options };
  const stateDir = resolve(settings.stateDir);
  const stack = createReleaseStack();
  try {
    const volumesDir = join(stateDir, 'volumes');
    const backupsDir = join(stateDir, 'backups');
    for (const directory of [stateDir, volumesDir, backupsDir]) await makeDirectory(directory);

    const lock = lockStateDirectory(join(stateDir, 'lock'), stateDir);
    stack.add('lock', () => lock.release());
    const database = openSqliteDatabase(join(stateDir, 'cinder-delta.sqlite'));
    stack.add('database', () => database.close());
    const opened = settings.store ?? openPosixStore(backupsDir, log);
    const { store, naming, container } = opened;
    stack.add('store', () => store.close());
    const starting = new AbortController().signal;
    const known = await listBackups(database.sql, {});
    if (!known.some(({ service }) => service === store.service)) {
      await opened.adopt(starting).catch((err: unknown) => {
        if (!isBackupError(err)) throw err;
        log.warn({ err }, 'the store is not ready: backups fail until it is');
      });
    }
    const sealer = await createSealer({ log, zlibEffort: options.zlibEffort });
    stack.add('sealer', () => sealer.close());

    const access = { token: randomBytes(32).toString('hex') };
    const agent = await startAgentThread(
      { directory: volumesDir, backendName, ...access, ...agentRoom(options.maxOperations) },
      log.child({ part: 'agent' }, { level: 'warn' }),
    );
    stack.add('agent', () => agent.close());
    const client = createAgentClient({ url: agent.url, access, log });
    stack.add('agent client', () => client.close());

    const { buffers: memory, objectLists } = divideMemory(options.memoryBytes);
    const metrics = createMetrics({ memory, operations: () => operations.list() });
    const operations: Operations = createOperations({
      maxRunning: options.maxOperations,
      maxQueued: maxQueuedOperations,
      maxFinished: rememberedOperations,
      cleanupTimeoutMs: 2 * cleanupTimeoutMs,
      clock: systemClock,
      log,
      onFinished: (operation) => metrics.observe(operation),
    });
    stack.add('operations', () => operations.drain(options.drainMs));

    const storageName = `${serviceHost}@${backendName}`;
    const storage = createAgentStorage(client, storageName, backendName);
    const environment: ManagerEnvironment = {
      database,
      resources: { store, sealer, memory, objectLists, log },
      storage: createStorageDirectory([storage]),
      clock: systemClock,
      log,
      options: {
        host: serviceHost,
        availabilityZone,
        naming,
        container,
        objectBytes: options.objectBytes,
        blockSize: options.blockSize,
        codec: options.codec,
        mergeGapBytes: options.mergeGapBytes,
        metadataVersion: 2,
        cleanupTimeoutMs,
        rowTimeoutMs: cleanupTimeoutMs,
        watchIntervalMs: 60_000,
        agentTimeoutMs: 20_000,
        keepSnapshots: 1,
        serviceDownMs: 60_000,
        messageTtlMs: 30 * 86_400_000,
        quota: null,
        notifyProgress: { objects: Infinity, intervalMs: 0 },
      },
      cloud: noCloud,
    };
    const volumes = createLocalVolumes(environment, {
      backend: storage,
      host: `${storageName}#${backendName}`,
    });
    stack.add('volumes', () => volumes.close());
    const manager = createManager(environment, {
      operations,
      makeVolume: (context, wanted) => volumes.make(context, wanted),
    });
    await manager.initHost(starting);
    await volumes.reconcile(starting);

    const services = { database, manager, volumes, operations, metrics };
    const app = createRestApp(services, { access: { token: options.token }, log });
    stack.add('REST', () => app.close());
    const url = await listenForRest(app, { host, port, remedy: 'choose another --port or --host' });
    const info = await storage.info(starting);
    const { blockSize, codec } = options;
    const slabBytes = slabObjectBytes(memory.capacity, blockSize);
    const objects = objectSizes(options.objectBytes, blockSize, slabBytes);
    log.info(
      {
        node: process.versions.node,
        deflate: sealer.deflate,
        sealingThreads: sealer.threads,
        codec,
        objectBytes: objects.dataBytes,
        zeroObjectBytes: objects.zeroBytes,
        delta: info.delta,
        memoryMiB: options.memoryBytes / 1024 ** 2,
        stateDir,
        agentUrl: agent.url,
        url,
      },
      'cinder-delta is ready',
    );
    return { url, agentUrl: agent.url, close: () => stack.releaseAll() };
  } catch (error) {
    await stack.releaseAll().catch((err: unknown) => log.warn({ err }, 'not everything was closed'));
    throw error;
  }
}

/**
 * How much the agent has to do at once for so many operations: each holds up to two streams and makes one snapshot, and
 * a call that was cut is asked for again before the agent has noticed.
 */
export function agentRoom(maxOperations: number): {
  readonly maxStreams: number;
  readonly maxSnapshots: number;
} {
  const spare = 8;
  return { maxStreams: 2 * maxOperations + spare, maxSnapshots: maxOperations + spare };
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new BackupError(
      'config-invalid',
      `the state directory ${directory} cannot be made: ${messageOf(error)}; choose another with --state-dir`,
      { cause: error },
    );
  }
}
