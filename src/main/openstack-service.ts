/**
 * The service in cinder-backup's place: Cinder's database, the message bus, the store of `backup_driver`, agents on the storage
 * nodes, and a REST API for the operator.
 *
 * | start | stop, the other way round |
 * |---|---|
 * | database | closed last |
 * | store, keys, sealing threads, agents | |
 * | bus connects | its connections end after the last notification |
 * | REST listens, and answers when earlier work is put right | shows operations until they have ended |
 * | the row in `services`; what an earlier process left is put right | operations end, or are cancelled after graceful_shutdown_timeout |
 * | requests are taken | no more are taken |
 * | heartbeat and capabilities | the schedulers are told |
 * | what can be put right later | cut off first |
 *
 * From the stop on a statement waits some seconds for a database that is away, no longer.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { anySignal } from '../async/any-signal.ts';
import { adminContext } from '../bus/bus-context.ts';
import { openMessageBus } from '../bus/message-bus.ts';
import type { ServiceConfig } from '../config/service-config.ts';
import { isServiceInUse } from '../database/backups.ts';
import { hostsOfBackedUpVolumes } from '../database/host-backups.ts';
import { openDatabase } from '../database/open-database.ts';
import type { Logger } from '../log.ts';
import type { ManagerEnvironment } from '../manager/environment.ts';
import { createHostEndpoints, type RpcHandler } from '../manager/host-endpoints.ts';
import { createHostLife } from '../manager/host-life.ts';
import { dropOrphans } from '../manager/drop-orphans.ts';
import { reconcile, serviceContext } from '../manager/init-host.ts';
import { createLostRequests } from '../manager/lost-requests.ts';
import { createVerify } from '../manager/manager.ts';
import { createNamedLoggers } from '../manager/named-loggers.ts';
import { createOperations, type Operations } from '../manager/operations.ts';
import { createRequestEndpoints } from '../manager/request-endpoints.ts';
import { createDispatch, type RpcEndpoints } from '../manager/rpc-endpoints.ts';
import { createStartVerbs } from '../manager/start-verbs.ts';
import type { Backup } from '../model/backup.ts';
import { systemClock } from '../model/clock.ts';
import { cancelledBy, isBackupError } from '../model/errors.ts';
import { objectSizes, slabObjectBytes } from '../pipeline/memory.ts';
import { divideMemory } from '../pipeline/object-room.ts';
import { createSealer } from '../pipeline/sealer.ts';
import { createOperatorApp } from '../rest/app.ts';
import { createMetrics } from '../rest/metrics.ts';
import { createAgentDirectory, readAgentAccess } from './agent-directory.ts';
import { createReleaseStack } from './lifecycle.ts';
import { listenForRest } from './listen-for-rest.ts';
import { createScopes } from './openstack-scopes.ts';
import { openCloudStore } from './open-cloud-store.ts';
import { openKeys } from './open-keys.ts';

export type OpenstackService = {
  /** Of the REST API. */
  readonly url: string;
  /** Takes no more requests, lets operations end or cancels them, and closes everything. */
  close(): Promise<void>;
};

const cleanupTimeoutMs = 120_000;
/** Well below service_down_time, within which the first heartbeat has to come. */
const agentTimeoutMs = 20_000;
const rowTimeoutMs = 900_000;
const watchIntervalMs = 2000;
/** A request that was sent has come by then; see lost-requests.ts. */
const requestGraceMs = 60_000;
/** Deletions of an earlier process go on when the store works: looked at so often. */
const storeComesBackMs = 5000;
const brokerComesBackMs = 1000;
const rememberedOperations = 1000;
/** Timers end at once with more than this. */
const longestTimerMs = 2 ** 31 - 1;
/** backup_max_operations = 0: no limit. */
const unlimitedOperations = 10_000;

/**
 * Starts the service; it takes requests when this returns. `config-invalid`, `database-unavailable`; a broker, a store or an
 * agent that is away is waited for while the service runs.
 */
export async function createOpenstackService(settings: {
  readonly config: ServiceConfig;
  readonly log: Logger;
  readonly signal: AbortSignal;
}): Promise<OpenstackService> {
  const { config, log, signal } = settings;
  const { core, delta, messaging } = config;
  const { host, availabilityZone } = core;
  const loggers = createNamedLoggers(log);
  const stack = createReleaseStack();
  const stopping = new AbortController();
  try {
    const database = await openDatabase(config.database, {
      log: loggers.named('cinder.db'),
      clock: systemClock,
      signal: anySignal([signal, stopping.signal]),
    });
    stack.add('database', () => database.close());

    const opened = openCloudStore(config, loggers.named('cinder.backup.drivers'));
    const { store } = opened;
    stack.add('store', () => store.close());
    if (!(await isServiceInUse(database.sql, store.service))) await adopt(opened, log, signal);

    const keys = openKeys(config.keyManager, config.ownCredentials);
    stack.add('key manager', () => keys.close());

    const sealer = await createSealer({
      log,
      zlibEffort: delta.zlibEffort,
      ...(delta.sealThreads === undefined ? {} : { threads: delta.sealThreads }),
    });
    stack.add('sealer', () => sealer.close());
    const agents = createAgentDirectory(
      delta.agents,
      await readAgentAccess(delta.agents),
      loggers.named('cinder_delta.agents'),
    );
    stack.add('agents', () => agents.close());

    const bus = openMessageBus({
      config: messaging,
      host,
      programName: 'cinder-backup',
      clock: systemClock,
      log: loggers.named('oslo_messaging'),
    });
    stack.add('message bus', () => bus.close());

    const { buffers: memory, objectLists } = divideMemory(delta.memoryLimitBytes);
    const metrics = createMetrics({ memory, operations: () => operations.list() });
    const operations: Operations = createOperations({
      maxRunning: core.maxOperations === 0 ? unlimitedOperations : core.maxOperations,
      maxQueued: Infinity,
      maxFinished: rememberedOperations,
      cleanupTimeoutMs: 2 * cleanupTimeoutMs,
      clock: systemClock,
      log: loggers.named('cinder.backup.manager'),
      onFinished: (operation) => metrics.observe(operation),
    });
    const base: Omit<ManagerEnvironment, 'cloud'> = {
      database,
      resources: { store, sealer, memory, objectLists, log: loggers.named('cinder_delta.pipeline') },
      storage: agents,
      clock: systemClock,
      log: loggers.named('cinder.backup.manager'),
      options: {
        host,
        availabilityZone,
        metadataVersion: core.metadataVersion,
        naming: opened.naming,
        container: opened.container,
        objectBytes: config.store.objectSizeBytes,
        blockSize: config.store.blockSizeBytes,
        codec: config.store.codec,
        mergeGapBytes: delta.objectMergeGapBytes ?? config.store.blockSizeBytes,
        cleanupTimeoutMs,
        rowTimeoutMs,
        watchIntervalMs,
        agentTimeoutMs,
        serviceDownMs: core.serviceDownMs,
        messageTtlMs: core.messageTtlMs,
        keepSnapshots: delta.keepSnapshots,
        quota: core.quota,
        notifyProgress: {
          objects: core.objectsPerNotification,
          intervalMs: config.store.enableProgressTimer ? core.progressIntervalMs : 0,
        },
      },
    };
    const life = createHostLife({
      database,
      bus,
      checkStore: (until) => opened.check(until),
      host,
      availabilityZone,
      enableNewServices: core.enableNewServices,
      driverName: store.service,
      reportIntervalMs: core.reportIntervalMs,
      capabilitiesIntervalMs: core.capabilitiesIntervalMs,
      driverCheckIntervalMs: core.driverCheckIntervalMs,
      wait,
      clock: systemClock,
      log: loggers.named('cinder.service'),
    });
    const scopeOf = createScopes({
      base,
      bus,
      isWorking: () => life.isWorking,
      hasWorked: () => life.hasWorked,
      keysOf: (context) => keys.keysOf(context),
      openCallerStore: opened.openFor,
    });
    const verbs = createStartVerbs(operations);

    const own = scopeOf(adminContext(`req-${randomUUID()}`, systemClock.now()));
    const manager = { verify: createVerify(own.environment, operations, verbs) };
    let isReady = false;
    const app = createOperatorApp(
      { database, operations, metrics, manager },
      { access: {}, log, isReady: () => isReady },
    );
    stack.add('REST', () => app.close());
    stack.add('operations', () =>
      operations.drain(
        core.shutdownTimeoutMs === 0 ? longestTimerMs : Math.min(core.shutdownTimeoutMs, longestTimerMs),
      ),
    );
    // Before the row says that this host is up: a start that fails here is tried again every few seconds.
    const url = await listenForRest(app, {
      ...delta.rest,
      remedy: 'choose another [delta] rest_port or rest_listen',
    });
    await life.register();
    const earlier = await reconcile(
      own.environment,
      { hasQueue: true, needsCaller: opened.openFor !== undefined },
      signal,
    );
    const { reset, deleting } = earlier;
    log.info({ reset, deleting: deleting.length }, 'earlier work put right');

    const endpoints: RpcEndpoints = {
      ...createRequestEndpoints({ operations, verbs }),
      ...ofHost(
        createHostEndpoints({
          database,
          life,
          loggers,
          driverName: store.service,
          host,
          availabilityZone,
          cast: (request, until) => bus.cast(request, until),
          clock: systemClock,
          log: base.log,
        }),
      ),
    };
    await life.examine(signal);
    // Who sees it answer may send requests: a restore sent before the looking at earlier work would be taken for interrupted.
    isReady = true;
    const goOn = (backups: readonly Backup[]) => {
      for (const backup of backups) {
        if (operations.find('delete', backup.id) !== undefined) continue;
        verbs.remove({ environment: own.environment, context: serviceContext(backup) }, backup);
      }
    };
    // Before the requests that ask for the same are taken from the queue.
    const isResumed = life.isWorking;
    if (isResumed) goOn(deleting);
    stack.add('requests', () => bus.drain(AbortSignal.timeout(cleanupTimeoutMs)));
    bus.serve(createDispatch(endpoints, scopeOf));
    stack.add('host life', () => life.stop());
    life.start();
    const lostRequests = createLostRequests(own.environment, {
      isConnected: () => bus.isConnected,
      isWorking: () => life.isWorking,
      isBusy: (id) => operations.isBusy(id),
    });
    const background = startInBackground(log, [
      async (until) => {
        if (isResumed) return;
        while (!life.isWorking) await wait(storeComesBackMs, until);
        goOn(deleting);
      },
      async (until) => {
        // What the start left to requests to come has a minute from here, not two.
        while (!bus.isConnected) await wait(brokerComesBackMs, until);
        for (;;) {
          try {
            goOn(await lostRequests.look(until));
          } catch (err) {
            if (until.aborted) throw err;
            log.warn({ err }, 'not looked for lost requests: looked again in a minute');
          }
          await wait(requestGraceMs, until);
        }
      },
      async (until) => {
        const hosts = await hostsOfBackedUpVolumes(database.sql, host);
        const served = hosts.filter((each) => each.includes('@'));
        const backends = new Set(served.map((each) => agents.forHost(each)));
        const dropped = await dropOrphans(own.environment, [...backends], until);
        log.info({ dropped }, 'needless backup snapshots looked for');
      },
    ]);
    stack.add('work of the start', background.stop);

    const { blockSizeBytes, objectSizeBytes } = config.store;
    const slabBytes = slabObjectBytes(base.resources.memory.capacity, blockSizeBytes);
    const objects = objectSizes(objectSizeBytes, blockSizeBytes, slabBytes);
    log.info(
      {
        host,
        store: store.service,
        url,
        memoryMiB: delta.memoryLimitBytes / 1024 ** 2,
        codec: config.store.codec,
        objectBytes: objects.dataBytes,
        zeroObjectBytes: objects.zeroBytes,
      },
      'cinder-delta is ready, in the place of cinder-backup',
    );
    return {
      url,
      close: async () => {
        stopping.abort();
        await stack.releaseAll();
      },
    };
  } catch (error) {
    stopping.abort();
    await stack.releaseAll().catch((err: unknown) => log.warn({ err }, 'not everything was closed'));
    throw error;
  }
}

/** The entries of host-endpoints.ts in the form of the dispatch table. */
function ofHost(handlers: Readonly<Record<string, RpcHandler>>): RpcEndpoints {
  return Object.fromEntries(
    Object.entries(handlers).map(([method, handle]) => [method, ({ args, bus }) => handle(args, bus)]),
  );
}

/** A new directory becomes the store; one that is not there yet may come later. */
async function adopt(
  opened: { adopt(signal: AbortSignal): Promise<void> },
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  try {
    await opened.adopt(signal);
  } catch (err) {
    if (!isBackupError(err)) throw err;
    log.warn({ err }, 'the store is not ready: backups fail until it is');
  }
}

/** What a start leaves for later: it ends with the service. */
function startInBackground(
  log: Logger,
  works: readonly ((signal: AbortSignal) => Promise<void>)[],
): { readonly stop: () => Promise<void> } {
  const ending = new AbortController();
  const run = async (work: (signal: AbortSignal) => Promise<void>) => {
    try {
      await work(ending.signal);
    } catch (err) {
      if (!ending.signal.aborted)
        log.error({ err }, 'part of what an earlier process left was not put right');
    }
  };
  const done = Promise.all(works.map(run));
  return {
    stop: async () => {
      ending.abort();
      await done;
    },
  };
}

async function wait(delayMs: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(delayMs, undefined, { signal });
  } catch {
    throw cancelledBy(signal);
  }
}
