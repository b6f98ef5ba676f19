/** Declares a queue on a channel and consumes it: what a link's set-up is made of. */
import type { ConfirmChannel, ConsumeMessage } from 'amqplib';
import type { Logger } from '../log.ts';
import { BackupError, messageOf } from '../model/errors.ts';
import type { QueueDeclaration } from './topology.ts';

export type QueueConsumer = {
  /** Declares, binds and consumes on `channel`; called once for each connection. `fail` ends the connection. */
  attach(channel: ConfirmChannel, fail: (reason: Error) => void): Promise<void>;
};

export type QueueConsumerDeps = {
  readonly queue: QueueDeclaration;
  /** Consumer tags are numbers, as Python's are. */
  readonly tag: string;
  /** 0: no limit. */
  readonly prefetchCount: number;
  /** Gets each message, on the channel that it must be acknowledged on. */
  readonly onMessage: (message: ConsumeMessage, channel: ConfirmChannel) => void;
  readonly log: Logger;
};

export function createQueueConsumer({
  queue,
  tag,
  prefetchCount,
  onMessage,
  log,
}: QueueConsumerDeps): QueueConsumer {
  let isDurable = queue.durable;
  let nextOffset: number | undefined;

  async function declare(channel: ConfirmChannel): Promise<void> {
    const { name, autoDelete, binding } = queue;
    if (binding !== undefined) {
      const { exchange } = binding;
      const durable = exchange.durable && isDurable;
      await channel.assertExchange(exchange.name, exchange.type, {
        durable,
        autoDelete: exchange.autoDelete,
      });
    }
    await channel.assertQueue(name, { durable: isDurable, autoDelete, arguments: queue.arguments });
    if (binding !== undefined) await channel.bindQueue(name, binding.exchange.name, binding.routingKey);
  }

  return {
    async attach(channel, fail) {
      try {
        await declare(channel);
      } catch (error) {
        throw explain(error);
      }
      if (prefetchCount > 0) await channel.prefetch(prefetchCount);
      const offset = queue.isStream ? { 'x-stream-offset': nextOffset ?? 'last' } : {};
      await channel.consume(
        queue.name,
        (message) => {
          if (message === null) {
            nextOffset = undefined;
            fail(new Error(`the broker cancelled the consumer of ${queue.name}`));
            return;
          }
          const at: unknown = message.properties.headers?.['x-stream-offset'];
          if (typeof at === 'number') nextOffset = at + 1;
          onMessage(message, channel);
        },
        { consumerTag: tag, arguments: { ...queue.consumerArguments, ...offset } },
      );
    },
  };

  /** A queue or exchange that exists with other properties: not durable is taken as it is, all else must be configured. */
  function explain(error: unknown): unknown {
    const text = messageOf(error);
    if (!text.includes('PRECONDITION')) return error;
    if (isDurable && text.includes("'durable'")) {
      isDurable = false;
      log.warn(
        { queue: queue.name },
        'the broker has it as not durable, against the configuration: taken as it is',
      );
      return error;
    }
    const remedy = 'give [oslo_messaging_rabbit] the options that the other services have, or delete it';
    return new BackupError('config-invalid', `queue ${queue.name}: ${text}: ${remedy}`, { cause: error });
  }
}
