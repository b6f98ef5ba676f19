/**
 * Publishes over one link, with the broker's confirmation for each message. A message that was not confirmed because the
 * connection broke is sent again, the same bytes: receivers drop what they have seen (`_unique_id`).
 *
 * Exchanges are declared before the first message to them on each channel, as oslo.messaging does
 * (_drivers/impl_rabbit.py, _publish). An exchange that exists as not durable where it ought to be durable is taken as it is.
 */
import type { ConfirmChannel, Message } from 'amqplib';
import { untilAborted } from '../async/until-aborted.ts';
import type { Logger } from '../log.ts';
import { BackupError, cancelledBy, messageOf } from '../model/errors.ts';
import type { Link } from './link.ts';
import type { ExchangeDeclaration, QueueDeclaration } from './topology.ts';

export type Publication = {
  /** Undefined: the default exchange, where the routing key is the name of a queue. */
  readonly exchange: ExchangeDeclaration | undefined;
  readonly routingKey: string;
  readonly content: Buffer;
  /** Ask whether there is a queue for it. */
  readonly mandatory?: boolean;
  /** The broker drops it after this time. */
  readonly expirationMs?: number;
  /** A queue to declare first, bound to the exchange. */
  readonly queue?: QueueDeclaration;
};

export type Publisher = {
  /**
   * Sends a message and waits until the broker has it, however often the connection breaks meanwhile. `unroutable` if it
   * is mandatory and there is no queue for it. Throws `config-invalid` if the broker refuses the exchange or queue,
   * and the signal's reason.
   */
  publish(publication: Publication, signal: AbortSignal): Promise<'routed' | 'unroutable'>;
};

type Pending = { readonly routingKey: string; readonly content: Buffer; isReturned: boolean };
type ChannelState = { readonly declared: Set<string>; readonly pending: Set<Pending> };

const retryDelayMs = 100;

export type Wait = (delayMs: number, signal: AbortSignal) => Promise<void>;

export function createPublisher({ link, wait, log }: { link: Link; wait: Wait; log: Logger }): Publisher {
  const states = new WeakMap<ConfirmChannel, ChannelState>();
  /** Exchanges and queues that the broker has as not durable. */
  const notDurable = new Set<string>();

  function stateOf(channel: ConfirmChannel): ChannelState {
    const known = states.get(channel);
    if (known !== undefined) return known;
    const state: ChannelState = { declared: new Set(), pending: new Set() };
    states.set(channel, state);
    channel.on('return', (message: Message) => markReturned(state, message));
    return state;
  }

  async function declare(channel: ConfirmChannel, { exchange, queue }: Publication): Promise<void> {
    const { declared } = stateOf(channel);
    if (exchange !== undefined && !declared.has(exchange.name)) {
      const durable = exchange.durable && !notDurable.has(exchange.name);
      await guarded(exchange.name, exchange.durable, () =>
        channel.assertExchange(exchange.name, exchange.type, { durable, autoDelete: exchange.autoDelete }),
      );
      declared.add(exchange.name);
    }
    if (queue === undefined || declared.has(`queue ${queue.name}`)) return;
    const durable = queue.durable && !notDurable.has(queue.name);
    await guarded(queue.name, queue.durable, () =>
      channel.assertQueue(queue.name, { durable, autoDelete: queue.autoDelete, arguments: queue.arguments }),
    );
    if (exchange !== undefined)
      await channel.bindQueue(queue.name, exchange.name, queue.binding?.routingKey ?? queue.name);
    declared.add(`queue ${queue.name}`);
  }

  async function guarded(name: string, durable: boolean, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const text = messageOf(error);
      if (!text.includes('PRECONDITION')) throw error;
      if (!durable || notDurable.has(name) || !text.includes("'durable'")) {
        throw new BackupError(
          'config-invalid',
          `${text}: give [oslo_messaging_rabbit] the options that the other services have`,
          { cause: error },
        );
      }
      log.warn({ name }, 'the broker has it as not durable, against the configuration: taken as it is');
      notDurable.add(name);
      throw error;
    }
  }

  async function send(channel: ConfirmChannel, publication: Publication): Promise<'routed' | 'unroutable'> {
    const { exchange, routingKey, content, mandatory = false, expirationMs } = publication;
    const { pending } = stateOf(channel);
    const entry: Pending = { routingKey, content, isReturned: false };
    const confirmed = Promise.withResolvers<void>();
    pending.add(entry);
    try {
      channel.publish(
        exchange?.name ?? '',
        routingKey,
        content,
        {
          contentType: 'application/json',
          contentEncoding: 'utf-8',
          deliveryMode: 2,
          priority: 0,
          headers: {},
          mandatory,
          ...(expirationMs === undefined ? {} : { expiration: String(expirationMs) }),
        },
        (error: unknown) => {
          if (error === null || error === undefined) confirmed.resolve();
          else confirmed.reject(error);
        },
      );
      await confirmed.promise;
      return entry.isReturned ? 'unroutable' : 'routed';
    } finally {
      pending.delete(entry);
    }
  }

  return {
    async publish(publication, signal) {
      for (;;) {
        const channel = await link.channel(signal);
        try {
          return await untilAborted(
            declare(channel, publication).then(() => send(channel, publication)),
            signal,
          );
        } catch (error) {
          if (signal.aborted) throw cancelledBy(signal);
          if (error instanceof BackupError && error.code === 'config-invalid') throw error;
          log.debug(
            { reason: messageOf(error), routing_key: publication.routingKey },
            'a message was not confirmed, and is sent again',
          );
          await wait(retryDelayMs, signal);
        }
      }
    },
  };
}

/** A returned message comes back whole, before its confirmation; nothing else tells which one it was. */
function markReturned({ pending }: ChannelState, { fields, content }: Message): void {
  for (const entry of pending) {
    if (entry.routingKey === fields.routingKey && entry.content.equals(content)) entry.isReturned = true;
  }
}
