/**
 * The server side of the RPC: takes requests from `<topic>`, `<topic>.<host>` and the fanout, and answers calls
 * (oslo_messaging/rpc/{server,dispatcher}.py). A request is acknowledged before it is dispatched: what dies with this process
 * is not delivered again; the rows tell what was under way. A message that cannot be read is logged and dropped.
 *
 * | may overlap | order |
 * |---|---|
 * | up to `requestLimit` requests | they start in the order of arrival |
 * | a reply and the next requests | none |
 */
import type { ConfirmChannel, ConsumeMessage } from 'amqplib';
import { createBudget } from '../async/limit.ts';
import type { QueueConfig } from '../config/messaging-config.ts';
import type { Logger } from '../log.ts';
import { messageOf } from '../model/errors.ts';
import { logFieldsOf, readContext, type BusContext } from './bus-context.ts';
import { startCallMonitor } from './call-monitor.ts';
import { createQueueConsumer } from './consumer.ts';
import { decodeEnvelope } from './envelope.ts';
import { noSuchMethod, renderFailure, unsupportedVersion } from './failure.ts';
import type { Link, LinkSetup } from './link.ts';
import type { ReplySender } from './reply-sender.ts';
import { isVersionCompatible, parseRequest, type RpcRequest } from './rpc-message.ts';
import { createSeenMessages } from './seen-messages.ts';
import { fanoutQueue, queueSuffix, topicQueue } from './topology.ts';
import { uniqueId } from './unique-id.ts';
import { decodeMap, encodeEntity, type Entity, type EntityMap } from './versioned-object.ts';

/** Does what a request asks for, and returns the result of a call (null for none). */
export type Dispatch = (method: string, args: EntityMap, context: BusContext) => Promise<Entity>;

export type RpcServer = {
  readonly isConnected: boolean;
  /** Takes no more requests; those under way go on, and their replies are still sent. */
  stopConsuming(): Promise<void>;
  /** Waits for the requests under way, or until the signal aborts. */
  drain(signal: AbortSignal): Promise<void>;
  /** Ends the connection, and removes this server's fanout queue. */
  close(): Promise<void>;
};

export type RpcServerDeps = {
  readonly openLink: (name: string, setup: LinkSetup) => Link;
  readonly queues: QueueConfig;
  readonly topic: string;
  /** `host` of the configuration. */
  readonly host: string;
  /** Highest version of the interface that is served. */
  readonly version: string;
  readonly methods: ReadonlySet<string>;
  readonly pingEnabled: boolean;
  readonly dispatch: Dispatch;
  readonly replies: ReplySender;
  readonly log: Logger;
};

/**
 * Requests that may be under way at once, waiting ones included, and messages that the broker sends ahead on each queue: at some
 * 16 KiB for a request that is a few dozen MiB at worst. oslo.messaging has no such bound.
 */
const requestLimit = 1024;

export function startRpcServer(deps: RpcServerDeps): RpcServer {
  const { queues, topic, host, replies, log } = deps;
  const seen = createSeenMessages();
  const slots = createBudget(requestLimit);
  const underWay = new Set<Promise<void>>();
  const stop = new AbortController();
  let isConsuming = true;

  const fanout = fanoutQueue(queues, topic, queueSuffix(queues, 1));
  const declared = [topicQueue(queues, topic), topicQueue(queues, `${topic}.${host}`), fanout];
  const tags = declared.map((_queue, index) => String(index + 1));
  const consumers = declared.map((queue, index) =>
    createQueueConsumer({
      queue,
      tag: tags[index] ?? '',
      prefetchCount: queues.prefetchCount === 0 ? requestLimit : queues.prefetchCount,
      onMessage,
      log,
    }),
  );
  const link = deps.openLink('rpc server', async (channel, fail) => {
    if (!isConsuming) return;
    for (const consumer of consumers) await consumer.attach(channel, fail);
    // A drain may have begun meanwhile.
    if (!isConsuming) await cancel(channel);
  });

  function onMessage(message: ConsumeMessage, channel: ConfirmChannel): void {
    const job = take(message, channel)
      .catch((error: unknown) => log.error({ err: error }, 'a request could not be answered'))
      .finally(() => underWay.delete(job));
    underWay.add(job);
  }

  /** What finds no slot stays unacknowledged: it is the broker's until it is taken, also when this process ends. */
  async function take(message: ConsumeMessage, channel: ConfirmChannel): Promise<void> {
    const release = await slots.acquire(1);
    try {
      if (isConsuming && acknowledge(message, channel)) await handle(message);
    } finally {
      release();
    }
  }

  function acknowledge(message: ConsumeMessage, channel: ConfirmChannel): boolean {
    try {
      channel.ack(message);
      return true;
    } catch (error) {
      log.warn(
        { reason: messageOf(error) },
        'a request could not be acknowledged: it will be delivered again',
      );
      return false;
    }
  }

  async function handle(message: ConsumeMessage): Promise<void> {
    const request = await read(message);
    if (request === undefined) return;
    const { method, call } = request;
    if (!seen.isNew(request.uniqueId)) {
      log.warn(
        { method, unique_id: request.uniqueId },
        'a request was delivered twice: the second one is dropped',
      );
      return;
    }
    const context = readContext(request.context);
    const requestLog = log.child({ ...logFieldsOf(context), method });
    const endMonitor = call === undefined ? () => undefined : startCallMonitor(call, replies, requestLog);
    try {
      const answer = await perform(request, context, requestLog);
      if (call === undefined) return;
      const reply = { ...answer, messageId: call.messageId, uniqueId: uniqueId(), ending: true };
      await replies.send(call.replyQueue, reply, stop.signal);
    } finally {
      endMonitor();
    }
  }

  async function read(message: ConsumeMessage): Promise<RpcRequest | undefined> {
    try {
      return parseRequest(await decodeEnvelope(message));
    } catch (error) {
      const { exchange, routingKey } = message.fields;
      log.error(
        { err: error, exchange, routing_key: routingKey, bytes: message.content.length },
        'a message is no request: it is dropped',
      );
      return undefined;
    }
  }

  async function perform(request: RpcRequest, context: BusContext, requestLog: Logger) {
    const { method, namespace, version } = request;
    if (deps.pingEnabled && method === 'oslo_rpc_server_ping') return { result: 'pong', failure: null };
    if (namespace !== undefined || !isVersionCompatible(deps.version, version)) {
      requestLog.error(
        { version, namespace, served: deps.version },
        'a request of a version that is not served: it is refused',
      );
      return { result: null, failure: unsupportedVersion(version, method) };
    }
    if (!deps.methods.has(method)) {
      requestLog.error({ version }, 'a request for a method that does not exist: it is refused');
      return { result: null, failure: noSuchMethod(method) };
    }
    requestLog.debug({ version }, 'a request has come in');
    try {
      const result = await deps.dispatch(method, decodeMap(request.args), context);
      return { result: encodeEntity(result), failure: null };
    } catch (error) {
      requestLog.error({ err: error }, 'a request has failed');
      return { result: null, failure: renderFailure(error) };
    }
  }

  return {
    get isConnected() {
      return link.isOpen;
    },
    async stopConsuming() {
      isConsuming = false;
      if (!link.isOpen) return;
      await cancel(await link.channel(stop.signal));
    },
    async drain(signal) {
      const aborted = new Promise<void>((resolve) => {
        if (signal.aborted) resolve();
        else signal.addEventListener('abort', () => resolve(), { once: true });
      });
      while (underWay.size > 0 && !signal.aborted) await Promise.race([Promise.all(underWay), aborted]);
    },
    async close() {
      stop.abort();
      isConsuming = false;
      if (link.isOpen && !fanout.isStream && queues.queueNames === 'random') await removeFanoutQueue();
      await link.close();
    },
  };

  async function cancel(channel: ConfirmChannel): Promise<void> {
    try {
      for (const tag of tags) await channel.cancel(tag);
    } catch (error) {
      log.debug({ reason: messageOf(error) }, 'the consumers are gone already');
    }
  }

  async function removeFanoutQueue(): Promise<void> {
    try {
      const channel = await link.channel(AbortSignal.timeout(2000));
      await channel.deleteQueue(fanout.name);
    } catch (error) {
      log.debug({ queue: fanout.name, reason: messageOf(error) }, 'the fanout queue is left to its expiry');
    }
  }
}
