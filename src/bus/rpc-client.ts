/**
 * The client side of the RPC: casts, fanout casts and calls (oslo_messaging/_drivers/amqpdriver.py, _send). Replies come to
 * one queue of this process, which is declared at the first call.
 */
import type { ConfirmChannel, ConsumeMessage } from 'amqplib';
import { anySignal } from '../async/any-signal.ts';
import type { QueueConfig } from '../config/messaging-config.ts';
import type { Logger } from '../log.ts';
import { BackupError, cancelledBy, messageOf } from '../model/errors.ts';
import type { BusContext } from './bus-context.ts';
import { createQueueConsumer } from './consumer.ts';
import { decodeEnvelope, encodeEnvelope } from './envelope.ts';
import { parseFailure } from './failure.ts';
import type { Link, LinkSetup } from './link.ts';
import type { Publisher, Wait } from './publisher.ts';
import { parseReply, renderRequest, type PendingCall, type RpcReply } from './rpc-message.ts';
import { createSeenMessages } from './seen-messages.ts';
import { fanoutExchange, queueSuffix, replyQueue, topicExchange } from './topology.ts';
import { uniqueId } from './unique-id.ts';
import { decodeEntity, encodeMap, type Entity, type EntityMap } from './versioned-object.ts';

/** Who is meant: one server of a topic, any of them, or all. */
export type RpcTarget =
  | { readonly kind: 'topic'; readonly topic: string }
  | { readonly kind: 'server'; readonly topic: string; readonly server: string }
  | { readonly kind: 'fanout'; readonly topic: string };

export type OutgoingRequest = {
  readonly target: RpcTarget;
  readonly method: string;
  readonly args: EntityMap;
  readonly version: string;
  readonly context: BusContext;
};

export type RpcClient = {
  /** Returns when the request is in a queue. Waits for broker and queue until the signal aborts. */
  cast(request: OutgoingRequest, signal: AbortSignal): Promise<void>;
  /**
   * Returns the result. Throws the error that the peer's exception stands for, and `bus-unavailable` if no reply comes
   * in time: then it is not known whether the request was performed.
   */
  call(request: OutgoingRequest, signal: AbortSignal, timeoutSeconds?: number): Promise<Entity>;
  close(): Promise<void>;
};

export type RpcClientDeps = {
  readonly openLink: (name: string, setup: LinkSetup) => Link;
  readonly queues: QueueConfig;
  readonly publisher: Publisher;
  /** rpc_response_timeout. */
  readonly responseTimeoutSeconds: number;
  readonly wait: Wait;
  readonly log: Logger;
};

const unroutableDelayMs = 500;

/** The volume service of a row's `host` (`host@backend#pool`): cinder/volume/rpcapi.py, _get_cctxt. */
export function volumeTarget(volumeHost: string): RpcTarget {
  const backend = volumeHost.split('#', 1)[0] ?? volumeHost;
  return { kind: 'server', topic: `cinder-volume.${backend}`, server: backend.split('@', 1)[0] ?? backend };
}

export function createRpcClient(deps: RpcClientDeps): RpcClient {
  const { queues, publisher, log } = deps;
  const seen = createSeenMessages();
  const waiting = new Map<string, (reply: RpcReply) => void>();
  const queue = replyQueue(queues, queueSuffix(queues, 2));
  let link: Link | undefined;

  function openReplies(): Link {
    const consumer = createQueueConsumer({ queue, tag: '1', prefetchCount: 0, onMessage, log });
    return deps.openLink('rpc replies', (channel, fail) => consumer.attach(channel, fail));
  }

  function onMessage(message: ConsumeMessage, channel: ConfirmChannel): void {
    try {
      channel.ack(message);
    } catch (error) {
      log.debug({ reason: messageOf(error) }, 'a reply could not be acknowledged');
    }
    readReply(message).catch((error: unknown) =>
      log.error({ err: error }, 'a message is no reply: it is dropped'),
    );
  }

  async function readReply(message: ConsumeMessage): Promise<void> {
    const reply = parseReply(await decodeEnvelope(message));
    if (!seen.isNew(reply.uniqueId)) return;
    const deliver = waiting.get(reply.messageId);
    if (deliver === undefined)
      log.info({ message_id: reply.messageId }, 'a reply came for which nobody waits');
    else if (reply.ending) deliver(reply);
  }

  /**
   * Sends a request to where it will be read: a queue that is not there (the broker was restarted, its service has
   * not come back yet) is waited for, until the signal aborts. Nobody has to listen to a fanout.
   */
  async function publish(
    { target, method, args, version, context }: OutgoingRequest,
    call: PendingCall | undefined,
    signal: AbortSignal,
    expirationMs?: number,
  ): Promise<void> {
    const message = renderRequest({
      method,
      args: encodeMap(args),
      version,
      namespace: undefined,
      context: context.items,
      uniqueId: uniqueId(),
      call,
    });
    const publication = {
      exchange: target.kind === 'fanout' ? fanoutExchange(queues, target.topic) : topicExchange(queues),
      routingKey: routingKeyOf(target),
      content: encodeEnvelope(message),
      mandatory: target.kind !== 'fanout',
      ...(expirationMs === undefined ? {} : { expirationMs }),
    };
    if ((await publisher.publish(publication, signal)) === 'routed') return;
    log.warn(
      { queue: publication.routingKey, method },
      'the queue of a request does not exist: waiting for it',
    );
    do await deps.wait(unroutableDelayMs, signal);
    while ((await publisher.publish(publication, signal)) === 'unroutable');
  }

  return {
    async cast(request, signal) {
      await publish(request, undefined, signal);
    },
    async call(request, outer, timeoutSeconds = deps.responseTimeoutSeconds) {
      const { method, target } = request;
      const deadline = AbortSignal.timeout(timeoutSeconds * 1000);
      const signal = anySignal([outer, deadline]);
      const messageId = uniqueId();
      const answered = Promise.withResolvers<RpcReply>();
      const onAbort = () => answered.reject(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      waiting.set(messageId, answered.resolve);
      try {
        link ??= openReplies();
        await link.channel(signal);
        await publish(
          request,
          { messageId, replyQueue: queue.name, monitorSeconds: null },
          signal,
          timeoutSeconds * 1000,
        );
        const { failure, result } = await answered.promise;
        if (failure !== null) throw parseFailure(failure, method);
        return decodeEntity(result);
      } catch (error) {
        if (outer.aborted) throw cancelledBy(outer);
        if (!deadline.aborted) throw error;
        throw new BackupError(
          'bus-unavailable',
          `${routingKeyOf(target)} did not answer ${method} within ${timeoutSeconds} s: see whether that service runs`,
          { cause: error },
        );
      } finally {
        answered.promise.catch(() => undefined);
        signal.removeEventListener('abort', onAbort);
        waiting.delete(messageId);
      }
    },
    async close() {
      await link?.close();
    },
  };
}

function routingKeyOf(target: RpcTarget): string {
  switch (target.kind) {
    case 'topic':
      return target.topic;
    case 'server':
      return `${target.topic}.${target.server}`;
    case 'fanout':
      return '';
    default:
      return target satisfies never;
  }
}
