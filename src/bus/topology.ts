/**
 * Queues and exchanges as oslo.messaging declares them (oslo_messaging/_drivers/impl_rabbit.py, Zed to 2026.1): what one
 * service declares must be what all others declare, or the broker refuses it. Pure: declarations as data.
 */
import type { QueueConfig } from '../config/messaging-config.ts';
import { uniqueId } from './unique-id.ts';

export type ExchangeDeclaration = {
  readonly name: string;
  readonly type: 'topic' | 'fanout';
  readonly durable: boolean;
  readonly autoDelete: boolean;
};

export type QueueArguments = Readonly<Record<string, string | number | boolean>>;

export type QueueDeclaration = {
  readonly name: string;
  readonly durable: boolean;
  readonly autoDelete: boolean;
  readonly arguments: QueueArguments;
  /** Where it is bound, with which key; undefined: reached by its name only. */
  readonly binding: { readonly exchange: ExchangeDeclaration; readonly routingKey: string } | undefined;
  readonly isStream: boolean;
  readonly consumerArguments: QueueArguments;
};

/** The exchange of requests by topic, and of notifications. */
export function topicExchange(config: QueueConfig): ExchangeDeclaration {
  return {
    name: config.controlExchange,
    type: 'topic',
    durable: config.durable,
    autoDelete: config.autoDelete,
  };
}

/** The exchange that reaches every server of a topic. */
export function fanoutExchange(config: QueueConfig, topic: string): ExchangeDeclaration {
  return {
    name: `${topic}_fanout`,
    type: 'fanout',
    durable: config.transientQuorum,
    autoDelete: true,
  };
}

/** The queue of a topic, or of one server of it: `cinder-backup`, `cinder-backup.<host>`. */
export function topicQueue(config: QueueConfig, name: string): QueueDeclaration {
  return {
    name,
    durable: config.durable,
    autoDelete: config.autoDelete,
    arguments: { ...mirrored(config), ...quorum(config, config.quorum) },
    binding: { exchange: topicExchange(config), routingKey: name },
    isStream: false,
    consumerArguments: consumerArguments(config),
  };
}

/** One server's own queue of the fanout, or the stream that all share. */
export function fanoutQueue(config: QueueConfig, topic: string, suffix: string): QueueDeclaration {
  const isStream = config.streamFanout;
  const exchange = { ...fanoutExchange(config, topic), durable: config.transientQuorum || isStream };
  return {
    name: isStream ? `${topic}_fanout` : `${topic}_fanout_${suffix}`,
    durable: config.transientQuorum || isStream,
    autoDelete: false,
    arguments: isStream ? streamArguments(config) : transientArguments(config),
    binding: { exchange, routingKey: topic },
    isStream,
    consumerArguments: consumerArguments(config),
  };
}

/** The queue for the replies to one process; not bound: replies go through the default exchange. */
export function replyQueue(config: QueueConfig, suffix: string): QueueDeclaration {
  return {
    name: `reply_${suffix}`,
    durable: config.transientQuorum,
    autoDelete: false,
    arguments: transientArguments(config),
    binding: undefined,
    isStream: false,
    consumerArguments: consumerArguments(config),
  };
}

/** The queue that a publisher of notifications declares, so that none is lost before somebody reads them. */
export function notificationQueue(config: QueueConfig, routingKey: string): QueueDeclaration {
  return { ...topicQueue(config, routingKey), consumerArguments: {} };
}

/**
 * What fanout and reply queues end in: random, or `<host>:<process>:<number>` with use_queue_manager. `ordinal` is the
 * number of the queue in this process, from 1.
 */
export function queueSuffix(config: QueueConfig, ordinal: number): string {
  const { queueNames } = config;
  return queueNames === 'random' ? uniqueId() : `${queueNames.hostname}:${queueNames.processName}:${ordinal}`;
}

function mirrored(config: QueueConfig): QueueArguments {
  return config.haQueues ? { 'x-ha-policy': 'all' } : {};
}

function quorum(config: QueueConfig, wanted: boolean): QueueArguments {
  if (!wanted) return {};
  const limits = {
    'x-delivery-limit': config.quorumDeliveryLimit,
    'x-max-in-memory-length': config.quorumMaxMemoryLength,
    'x-max-in-memory-bytes': config.quorumMaxMemoryBytes,
  };
  const set = Object.entries(limits).filter(([, value]) => value !== 0);
  return { 'x-queue-type': 'quorum', ...Object.fromEntries(set) };
}

function transientArguments(config: QueueConfig): QueueArguments {
  const expires = config.transientTtlSeconds > 0 ? { 'x-expires': config.transientTtlSeconds * 1000 } : {};
  return { ...mirrored(config), ...quorum(config, config.transientQuorum), ...expires };
}

function streamArguments(config: QueueConfig): QueueArguments {
  const age = config.transientTtlSeconds > 0 ? { 'x-max-age': `${config.transientTtlSeconds}s` } : {};
  return { 'x-queue-type': 'stream', ...age };
}

function consumerArguments(config: QueueConfig): QueueArguments {
  return config.cancelOnFailover ? { 'x-cancel-on-ha-failover': true } : {};
}
