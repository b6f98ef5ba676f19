/**
 * Sends replies to the queues of callers (oslo_messaging/_drivers/amqpdriver.py, AMQPIncomingMessage). A caller whose queue
 * is not there may be reconnecting: the reply is tried again for a while, then the queue is given up, and no reply to it
 * is tried for a minute, so that a caller that is gone costs little.
 */
import type { Logger } from '../log.ts';
import { encodeEnvelope } from './envelope.ts';
import type { Publisher, Wait } from './publisher.ts';
import { renderReply, type RpcReply } from './rpc-message.ts';

export type ReplySender = {
  /** Sends a final reply; returns when it is in the caller's queue, or has been given up. */
  send(queue: string, reply: RpcReply, signal: AbortSignal): Promise<void>;
  /** Sends a sign of life, once. False if there is nobody to see it. */
  sendHeartbeat(queue: string, reply: RpcReply, signal: AbortSignal): Promise<boolean>;
};

export type ReplySenderDeps = {
  readonly publisher: Publisher;
  /** kombu_missing_consumer_retry_timeout. */
  readonly missingQueueMs: number;
  /** A clock that never goes back, in milliseconds. */
  readonly monotonicMs: () => number;
  readonly wait: Wait;
  readonly log: Logger;
};

const retryDelayMs = 250;
const givenUpMs = 60_000;
const givenUpLimit = 200;

export function createReplySender({
  publisher,
  missingQueueMs,
  monotonicMs,
  wait,
  log,
}: ReplySenderDeps): ReplySender {
  /** Queues that are gone, and until when nothing is sent there. */
  const givenUp = new Map<string, number>();

  function isGivenUp(queue: string): boolean {
    const until = givenUp.get(queue);
    if (until === undefined) return false;
    if (monotonicMs() < until) return true;
    givenUp.delete(queue);
    return false;
  }

  function giveUp(queue: string): void {
    givenUp.set(queue, monotonicMs() + givenUpMs);
    const [oldest] = givenUp.keys();
    if (givenUp.size > givenUpLimit && oldest !== undefined) givenUp.delete(oldest);
  }

  const publish = (queue: string, reply: RpcReply, signal: AbortSignal) =>
    publisher.publish(
      {
        exchange: undefined,
        routingKey: queue,
        content: encodeEnvelope(renderReply(reply)),
        mandatory: true,
      },
      signal,
    );

  return {
    async send(queue, reply, signal) {
      const fields = { reply_queue: queue, message_id: reply.messageId };
      const deadline = monotonicMs() + missingQueueMs;
      while (!isGivenUp(queue)) {
        if ((await publish(queue, reply, signal)) === 'routed') return;
        if (monotonicMs() >= deadline) {
          log.error(
            { ...fields, after_ms: missingQueueMs },
            'the reply queue of the caller does not exist: the reply is dropped',
          );
          giveUp(queue);
          return;
        }
        await wait(retryDelayMs, signal);
      }
      log.warn(fields, 'the caller is gone: the reply is dropped');
    },
    async sendHeartbeat(queue, reply, signal) {
      return !isGivenUp(queue) && (await publish(queue, reply, signal)) === 'routed';
    },
  };
}
