/**
 * oslo.messaging's RPC and notifications over RabbitMQ: what makes this service look like cinder-backup to its peers.
 *
 * Entry: `openMessageBus`, then `serve` once the caller is ready for requests. The bus decodes and encodes; what a
 * request means is the business of the `dispatch` that the caller gives. Up to four connections: requests in, replies in, all
 * messages out (so that a broker that takes no more messages does not stop requests from coming in), notifications out (so that a
 * queue of theirs that the broker refuses takes neither replies nor the heartbeat with it).
 *
 * Invariants: a request is acknowledged before it is dispatched and handled once; a reply is confirmed by the broker and in the
 * caller's queue, or given up after a minute; a message sent while the broker is away is sent when it is back.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { BrokerConfig, MessagingConfig } from '../config/messaging-config.ts';
import type { Logger } from '../log.ts';
import type { Clock } from '../model/clock.ts';
import { cancelledBy } from '../model/errors.ts';
import { openBroker } from './broker-socket.ts';
import { createLink, type LinkSetup } from './link.ts';
import { createNotifier, type Notifier } from './notifier.ts';
import { createPublisher, type Wait } from './publisher.ts';
import { createReplySender } from './reply-sender.ts';
import { createRpcClient, type OutgoingRequest } from './rpc-client.ts';
import { startRpcServer, type Dispatch, type RpcServer } from './rpc-server.ts';
import type { Entity } from './versioned-object.ts';

/** Topic and highest version of cinder-backup's interface (cinder/backup/rpcapi.py, 2.4 in 2023.1 and later). */
export const backupTopic = 'cinder-backup';
export const backupRpcVersion = '2.4';

/** Every method of versions 2.0 to 2.4. */
export const backupMethods: ReadonlySet<string> = new Set([
  'create_backup',
  'continue_backup',
  'restore_backup',
  'delete_backup',
  'export_record',
  'import_record',
  'reset_status',
  'check_support_to_force_delete',
  'set_log_levels',
  'get_log_levels',
  'publish_service_capabilities',
]);

export type MessageBus = {
  readonly notifier: Notifier;
  /** True while requests can come in and messages can go out. */
  readonly isConnected: boolean;
  /** Starts taking requests. Called once. */
  serve(dispatch: Dispatch): void;
  /** Sends a request without waiting for its outcome; waits for broker and queue until the signal aborts. */
  cast(request: OutgoingRequest, signal: AbortSignal): Promise<void>;
  /** Sends a request and returns its result: see RpcClient. */
  call(request: OutgoingRequest, signal: AbortSignal, timeoutSeconds?: number): Promise<Entity>;
  /** Takes no more requests, and waits for those under way until the signal aborts. */
  drain(signal: AbortSignal): Promise<void>;
  /** Ends all connections. What is under way loses its reply. */
  close(): Promise<void>;
};

export type MessageBusDeps = {
  readonly config: MessagingConfig;
  /** `host` of the configuration: the name of this server in queues. */
  readonly host: string;
  /** What the broker's administrator sees of our connections. */
  readonly programName: string;
  readonly clock: Clock;
  readonly log: Logger;
};

/** Opens the bus; connecting goes on in the background, for as long as it takes. */
export function openMessageBus({ config, host, programName, clock, log }: MessageBusDeps): MessageBus {
  const linkTo = (broker: BrokerConfig) => {
    const hosts = shuffled(broker.hosts, broker.shuffleHosts);
    return (name: string, setup: LinkSetup) =>
      createLink({
        name,
        hosts,
        open: (at) => openBroker(broker, at, programName),
        setup,
        retry: broker.retry,
        log,
      });
  };
  const openLink = linkTo(config.broker);
  const outgoing = openLink('publisher', noSetup);
  const publisher = createPublisher({ link: outgoing, wait, log });
  const client = createRpcClient({
    openLink,
    queues: config.queues,
    publisher,
    responseTimeoutSeconds: config.responseTimeoutSeconds,
    wait,
    log,
  });
  const replies = createReplySender({
    publisher,
    missingQueueMs: config.missingReplyQueueSeconds * 1000,
    monotonicMs: () => performance.now(),
    wait,
    log,
  });
  const notified = config.notifications.broker ?? config.broker;
  const notifications =
    config.notifications.format === 'off' ? undefined : linkTo(notified)('notifications', noSetup);
  const notifier = createNotifier({
    config: config.notifications,
    queues: config.queues,
    publisher: notifications === undefined ? publisher : createPublisher({ link: notifications, wait, log }),
    reconnect: notified.retry,
    timeout: (ms) => AbortSignal.timeout(ms),
    host,
    clock,
    log,
  });
  let server: RpcServer | undefined;

  return {
    notifier,
    get isConnected() {
      return outgoing.isOpen && server?.isConnected !== false;
    },
    serve(dispatch) {
      server = startRpcServer({
        openLink,
        queues: config.queues,
        topic: backupTopic,
        host,
        version: backupRpcVersion,
        methods: backupMethods,
        pingEnabled: config.pingEnabled,
        dispatch,
        replies,
        log,
      });
    },
    cast: (request, signal) => client.cast(request, signal),
    call: (request, signal, timeoutSeconds) => client.call(request, signal, timeoutSeconds),
    async drain(signal) {
      await server?.stopConsuming();
      await server?.drain(signal);
    },
    async close() {
      await server?.close();
      await client.close();
      await Promise.all([outgoing.close(), notifications?.close()]);
      await notifier.settle();
    },
  };
}

const noSetup: LinkSetup = () => Promise.resolve();

const wait: Wait = async (delayMs, signal) => {
  try {
    await sleep(delayMs, undefined, { signal });
  } catch {
    throw cancelledBy(signal);
  }
};

/** The hosts from a random one on (oslo.messaging shuffles them, so that clients spread over a cluster). */
function shuffled<T>(items: readonly T[], wholly: boolean): readonly T[] {
  if (wholly)
    return items
      .map((item) => ({ item, order: Math.random() }))
      .toSorted((a, b) => a.order - b.order)
      .map(({ item }) => item);
  const start = Math.floor(Math.random() * items.length);
  return [...items.slice(start), ...items.slice(0, start)];
}
