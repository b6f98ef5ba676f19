/**
 * The life of this host in the eyes of the other services: its row in `services`, the heartbeat in it, what the
 * schedulers know, and the store on which all of that depends.
 *
 * Order: `register` before anything else of the service starts (peers that start meanwhile read the row), `examine` before
 * requests are taken (those that waited in the queue would be refused), `start` when they are, `stop` before the bus is
 * drained.
 *
 * | what | when |
 * |---|---|
 * | store tested | at the start, every `capabilitiesIntervalMs`; while it does not work after 2 s, 4 s, ... up to `driverCheckIntervalMs` |
 * | heartbeat | every `reportIntervalMs`, while store and bus work |
 * | capabilities | at the start, every `capabilitiesIntervalMs`, when the store comes or goes, when a scheduler asks, at the stop |
 */
import { anySignal } from '../async/any-signal.ts';
import { repeat, type Wait } from '../async/periodic.ts';
import type { MessageBus } from '../bus/message-bus.ts';
import type { Database } from '../database/database.ts';
import type { Logger } from '../log.ts';
import type { Clock } from '../model/clock.ts';
import type { StoreCheck } from '../store/check-store.ts';
import { createCapabilities } from './capabilities.ts';
import { createServiceHeartbeat } from './service-heartbeat.ts';
import { createStoreWatch } from './store-watch.ts';

export type HostLife = {
  /** False while the store does not work: then no backup is begun here. */
  readonly isWorking: boolean;
  /** False until the store has worked once: then none is removed either. */
  readonly hasWorked: boolean;
  /** Finds or makes the row. Errors of the database. */
  register(): Promise<void>;
  /** Tests the store once; returns whatever it found. Throws only when the signal aborts. */
  examine(signal: AbortSignal): Promise<void>;
  /** Lives on in the background. Called once, after `examine`. */
  start(): void;
  /** What publish_service_capabilities asks for; returns at once. */
  publish(): void;
  /** Ends heartbeat and tests, and tells the schedulers to place nothing here any more. */
  stop(): Promise<void>;
};

export type HostLifeDeps = {
  readonly database: Database;
  readonly bus: Pick<MessageBus, 'cast' | 'isConnected'>;
  /** The self-test of the store; one that is only reachable with a user's token has none, and is ready. */
  readonly checkStore: (signal: AbortSignal) => Promise<StoreCheck>;
  readonly host: string;
  readonly availabilityZone: string;
  readonly enableNewServices: boolean;
  /** Class path of the store's driver. */
  readonly driverName: string;
  readonly reportIntervalMs: number;
  readonly capabilitiesIntervalMs: number;
  readonly driverCheckIntervalMs: number;
  readonly wait: Wait;
  readonly clock: Clock;
  readonly log: Logger;
};

const farewellMs = 2000;
const connectionPollMs = 100;

export function createHostLife(deps: HostLifeDeps): HostLife {
  const { bus, host, log, reportIntervalMs, capabilitiesIntervalMs, wait } = deps;
  const ending = new AbortController();
  let background: Promise<unknown> = Promise.resolve();
  let nextTestMs = 0;
  let isStarted = false;
  let waitsForBroker = false;

  const watch = createStoreWatch({
    check: deps.checkStore,
    intervalMs: capabilitiesIntervalMs,
    retryMs: deps.driverCheckIntervalMs,
    onChange: () => publish(),
    log,
  });
  const heartbeat = createServiceHeartbeat({
    ...deps,
    impediments: () => [
      ...(watch.isWorking ? [] : ['the store does not work']),
      ...(bus.isConnected ? [] : ['there is no connection to the message broker']),
    ],
  });
  const capabilities = createCapabilities({
    ...deps,
    cast: (request, signal) => bus.cast(request, signal),
    isWorking: () => watch.isWorking && !ending.signal.aborted,
    giveUpMs: capabilitiesIntervalMs,
  });

  /** Not waited for: it takes as long as the broker is away. One that waits for it says what is true when it comes. */
  function publish(): void {
    if (!isStarted || waitsForBroker || ending.signal.aborted) return;
    void publishOnce().catch(tellUnlessEnding);
  }

  /** Only with the queue of this host there: a backup that is sent before is lost in the broker. */
  async function publishOnce(): Promise<void> {
    const { signal } = ending;
    waitsForBroker = true;
    try {
      while (!bus.isConnected) await wait(connectionPollMs, signal);
    } finally {
      waitsForBroker = false;
    }
    await capabilities.publish(signal);
  }

  function tellUnlessEnding(error: unknown): void {
    if (!ending.signal.aborted) log.error({ err: error, host }, 'part of the host life has failed');
  }

  function live(firstTestMs: number): void {
    const { signal } = ending;
    const parts = [
      repeat((until) => watch.check(until), { firstDelayMs: firstTestMs, wait, signal }),
      repeat(beat, { firstDelayMs: reportIntervalMs, wait, signal }),
      repeat(publishAgain, { firstDelayMs: capabilitiesIntervalMs, wait, signal }),
    ];
    background = Promise.all(parts.map(async (part) => await part.catch(tellUnlessEnding)));
  }

  async function beat(): Promise<number> {
    await heartbeat.beat();
    return reportIntervalMs;
  }

  async function publishAgain(): Promise<number> {
    publish();
    return await Promise.resolve(capabilitiesIntervalMs);
  }

  return {
    get isWorking() {
      return watch.isWorking;
    },
    get hasWorked() {
      return watch.hasWorked;
    },
    register: () => heartbeat.register(),
    async examine(signal) {
      nextTestMs = await watch.check(anySignal([signal, ending.signal]));
    },
    start() {
      isStarted = true;
      publish();
      live(nextTestMs);
    },
    publish,
    async stop() {
      if (ending.signal.aborted) return;
      ending.abort();
      await background;
      await capabilities
        .publish(AbortSignal.timeout(farewellMs))
        .catch((error: unknown) =>
          log.warn({ err: error, host }, 'the schedulers were not told that this service stops'),
        );
    },
  };
}
