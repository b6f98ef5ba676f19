/**
 * A link: one connection with one channel, kept up. Whatever breaks it - the socket, a heartbeat that stays out, a
 * channel that the broker closed, a consumer that it cancelled - ends the whole connection, and another is made with the
 * same set-up, at the next host. amqplib's own recovery knows one host, and neither channels nor consumers, so it is not used.
 *
 * `setup` declares and consumes; it runs once for each connection. What is published or consumed on an old channel fails;
 * callers take the present channel for each message.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChannelModel, ConfirmChannel } from 'amqplib';
import type { BrokerHost } from '../config/transport-url.ts';
import type { Logger } from '../log.ts';
import { BackupError, cancelledBy, messageOf } from '../model/errors.ts';
import { destroyConnection } from './destroy-connection.ts';

export type Link = {
  /** The present channel; waits for one while there is none. Rejects when the signal aborts or the link is closed. */
  channel(signal: AbortSignal): Promise<ConfirmChannel>;
  readonly isOpen: boolean;
  /** Ends the connection for good. May be called twice. */
  close(): Promise<void>;
};

export type LinkSetup = (channel: ConfirmChannel, fail: (reason: Error) => void) => Promise<void>;

export type LinkDeps = {
  /** For logs: `rpc server`, `publisher`, ... */
  readonly name: string;
  /** Tried in turn, from the first. */
  readonly hosts: readonly BrokerHost[];
  readonly open: (host: BrokerHost) => Promise<ChannelModel>;
  readonly setup: LinkSetup;
  readonly retry: { readonly firstMs: number; readonly stepMs: number; readonly maxMs: number };
  readonly log: Logger;
};

type Waiter = {
  readonly resolve: (channel: ConfirmChannel) => void;
  readonly reject: (reason: unknown) => void;
};

/** A connection that lived this long was a good one: the waits between tries start again. */
const settledMs = 5000;
const closeTimeoutMs = 2000;

/** Starts the link at once. */
export function createLink({ name, hosts, open, setup, retry, log }: LinkDeps): Link {
  const stop = new AbortController();
  const waiters = new Set<Waiter>();
  let present: ConfirmChannel | undefined;
  let failures = 0;
  let turn = 0;

  function publish(channel: ConfirmChannel | undefined): void {
    present = channel;
    if (channel === undefined) return;
    for (const waiter of waiters) waiter.resolve(channel);
    waiters.clear();
  }

  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      const host = hosts[turn % hosts.length];
      if (host === undefined) throw new BackupError('bug', 'a link needs at least one host');
      const openedAt = performance.now();
      const reason = await session(host);
      if (stop.signal.aborted) return;
      if (performance.now() - openedAt > settledMs) failures = 0;
      turn += 1;
      failures += 1;
      const delayMs = delayBefore(failures);
      log.warn(
        { link: name, host: host.hostname, port: host.port, err: reason, delay_ms: delayMs },
        'the link to the message broker is down',
      );
      await sleep(delayMs, undefined, { signal: stop.signal }).catch(() => undefined);
    }
  }

  /** Hosts are tried one after the other without much delay; after a whole round the wait grows. */
  function delayBefore(failed: number): number {
    const round = Math.floor((failed - 1) / hosts.length);
    const isRoundOver = failed % hosts.length === 0;
    const base = isRoundOver ? Math.min(retry.maxMs, retry.firstMs + retry.stepMs * round) : 100;
    return Math.round(base * (0.5 + Math.random() / 2));
  }

  /** One connection, from opening to its end: returns why it ended. */
  async function session(host: BrokerHost): Promise<unknown> {
    const ended = Promise.withResolvers<unknown>();
    const onStop = () => ended.resolve(closedError(name));
    stop.signal.addEventListener('abort', onStop, { once: true });
    const opening = open(host);
    try {
      const model = await Promise.race([opening, ended.promise.then((reason) => Promise.reject(reason))]);
      model.on('error', ended.resolve);
      model.on('close', (error) => ended.resolve(error ?? new Error('the connection was closed')));
      model.on('blocked', (reason) =>
        log.warn({ link: name, reason }, 'the message broker takes no more messages for now'),
      );
      model.on('unblocked', () => log.info({ link: name }, 'the message broker takes messages again'));
      const channel = await model.createConfirmChannel();
      channel.on('error', ended.resolve);
      channel.on('close', () => ended.resolve(new Error('the channel was closed')));
      await Promise.race([
        setup(channel, ended.resolve),
        ended.promise.then((reason) => Promise.reject(reason)),
      ]);
      log.info({ link: name, host: host.hostname, port: host.port }, 'the link to the message broker is up');
      publish(channel);
      return await ended.promise;
    } catch (error) {
      return error;
    } finally {
      stop.signal.removeEventListener('abort', onStop);
      publish(undefined);
      ended.resolve(closedError(name));
      await opening.then(closeQuietly, () => undefined);
    }
  }

  const running = run();
  return {
    get isOpen() {
      return present !== undefined;
    },
    async channel(signal) {
      if (signal.aborted) throw cancelledBy(signal);
      if (stop.signal.aborted) throw closedError(name);
      if (present !== undefined) return present;
      const { promise, resolve, reject } = Promise.withResolvers<ConfirmChannel>();
      const waiter = { resolve, reject };
      const onAbort = () => reject(cancelledBy(signal));
      waiters.add(waiter);
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        return await promise;
      } finally {
        waiters.delete(waiter);
        signal.removeEventListener('abort', onAbort);
      }
    },
    async close() {
      stop.abort();
      for (const waiter of waiters) waiter.reject(closedError(name));
      waiters.clear();
      await running;
    },
  };

  async function closeQuietly(model: ChannelModel): Promise<void> {
    try {
      await Promise.race([
        model.close(),
        sleep(closeTimeoutMs, undefined, { ref: false }).then(() => destroyConnection(model)),
      ]);
    } catch (error) {
      log.debug({ link: name, reason: messageOf(error) }, 'the connection was closed already');
    }
  }
}

function closedError(name: string): BackupError {
  return new BackupError('cancelled', `the ${name} link to the message broker is closed`);
}
