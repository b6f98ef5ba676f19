import { setImmediate as turn } from 'node:timers/promises';
import type { ConsumeMessage } from 'amqplib';
import { afterEach, expect, test } from 'vitest';
import { openBroker } from '../../src/bus/broker-socket.ts';
import { createQueueConsumer } from '../../src/bus/consumer.ts';
import { createLink, type Link, type LinkSetup } from '../../src/bus/link.ts';
import { createPublisher, type Publication } from '../../src/bus/publisher.ts';
import type { QueueDeclaration } from '../../src/bus/topology.ts';
import type { BrokerConfig } from '../../src/config/messaging-config.ts';
import { createLogger } from '../../src/log.ts';
import { startScriptedBroker, type BrokerEvent, type ScriptedBroker } from '../support/scripted-broker.ts';

const log = createLogger({ level: 'silent' });
const cleanUp: (() => Promise<void>)[] = [];
const signal = new AbortController().signal;

afterEach(async () => {
  for (const one of cleanUp.splice(0).toReversed()) await one();
});

async function broker(script?: (event: BrokerEvent) => boolean): Promise<ScriptedBroker> {
  const started = await startScriptedBroker(script);
  cleanUp.push(() => started.close());
  return started;
}

function configOf(...ports: readonly number[]): BrokerConfig {
  return {
    hosts: ports.map((port) => ({ hostname: '127.0.0.1', port, username: 'u', password: 'a-secret' })),
    virtualHost: '/',
    loginMethod: 'AMQPLAIN',
    shuffleHosts: false,
    heartbeatSeconds: 0,
    tls: undefined,
    retry: { firstMs: 10, stepMs: 0, maxMs: 10 },
  };
}

function linkTo(config: BrokerConfig, setup: LinkSetup = () => Promise.resolve()): Link {
  const link = createLink({
    name: 'test',
    hosts: config.hosts,
    open: (host) => openBroker(config, host, 'test'),
    setup,
    retry: config.retry,
    log,
  });
  cleanUp.push(() => link.close());
  return link;
}

function publisherOn(link: Link) {
  return createPublisher({ link, wait: () => turn(), log });
}

const message: Publication = {
  exchange: { name: 'openstack', type: 'topic', durable: false, autoDelete: false },
  routingKey: 'cinder-backup',
  content: Buffer.from('{"a": 1}'),
};

test('a host that refuses is followed by the next one', async () => {
  const there = await broker();
  const gone = await startScriptedBroker();
  await gone.close();
  const link = linkTo(configOf(gone.port, there.port));
  await link.channel(signal);
  expect(there.events[0]?.method).toBe('connection.open');
});

test('a broker that cannot be used is named with user and virtual host, without the password', async () => {
  const gone = await startScriptedBroker();
  await gone.close();
  const config = configOf(gone.port);
  const [host] = config.hosts;
  if (host === undefined) throw new Error('no host');
  await expect(openBroker(config, host, 'test')).rejects.toMatchObject({
    code: 'bus-unavailable',
    message: expect.stringMatching(
      new RegExp(`127\\.0\\.0\\.1:${gone.port} .*user "u" in virtual host "/"`, 'u'),
    ),
  });
  await expect(openBroker(config, host, 'test')).rejects.not.toMatchObject({
    message: expect.stringContaining('a-secret'),
  });
});

test.each([
  ['cut', (there: ScriptedBroker) => there.connection(1).cut()],
  [
    'closed by the broker',
    (there: ScriptedBroker) => there.connection(1).closeConnection(320, 'CONNECTION_FORCED'),
  ],
  ['left without its channel', (there: ScriptedBroker) => there.connection(1).closeChannel(404, 'NOT_FOUND')],
])('a connection that is %s is made again, with the same set-up', async (_what, harm) => {
  const there = await broker();
  let setups = 0;
  const link = linkTo(configOf(there.port), async (channel) => {
    setups += 1;
    await channel.assertQueue('q');
  });
  const first = await link.channel(signal);
  harm(there);
  await there.waitFor('queue.declare', 2);
  expect(setups).toBe(2);
  expect(await link.channel(signal)).not.toBe(first);
});

test('a set-up that the broker refuses is tried again, and waiters get the first channel that stands', async () => {
  const there = await broker(({ method, connection }) => {
    if (method !== 'queue.declare' || connection.number > 2) return false;
    connection.closeChannel(404, 'NOT_FOUND - home node is down');
    return true;
  });
  const link = linkTo(configOf(there.port), async (channel) => {
    await channel.assertQueue('q');
  });
  await link.channel(signal);
  expect(there.events.filter(({ method }) => method === 'queue.declare')).toHaveLength(3);
});

test('a broker that falls silent during the handshake does not keep a close waiting', async () => {
  const there = await broker(({ method }) => method === 'connection.open');
  const link = linkTo(configOf(there.port));
  await there.waitFor('connection.open', 1);
  const waiting = link.channel(signal);
  const closed = Promise.all([expect(waiting).rejects.toMatchObject({ code: 'cancelled' }), link.close()]);
  there.connection(1).cut();
  await closed;
});

test('who waits for a channel stops when the signal aborts', async () => {
  const there = await broker(({ method }) => method === 'channel.open');
  const link = linkTo(configOf(there.port));
  const stop = new AbortController();
  const waiting = link.channel(stop.signal);
  stop.abort();
  await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
  await there.waitFor('channel.open', 1);
  there.connection(1).cut();
});

const queue: QueueDeclaration = {
  name: 'cinder-backup.h',
  durable: false,
  autoDelete: false,
  arguments: {},
  binding: {
    exchange: { name: 'openstack', type: 'topic', durable: false, autoDelete: false },
    routingKey: 'cinder-backup.h',
  },
  isStream: false,
  consumerArguments: {},
};

function consumeFrom(
  there: ScriptedBroker,
  declared: QueueDeclaration,
  onMessage: (message: ConsumeMessage) => void = () => undefined,
) {
  const consumer = createQueueConsumer({ queue: declared, tag: '1', prefetchCount: 0, onMessage, log });
  return linkTo(configOf(there.port), (channel, fail) => consumer.attach(channel, fail));
}

test('a consumer that the broker cancels comes back', async () => {
  const there = await broker();
  const got = Promise.withResolvers<string>();
  await consumeFrom(there, queue, ({ content }) => got.resolve(content.toString())).channel(signal);
  there.connection(1).cancelConsumer('1');
  await there.waitFor('basic.consume', 2);
  there.connection(2).deliver('1', Buffer.from('hello'));
  expect(await got.promise).toBe('hello');
});

test('a durable queue that the broker has as not durable is taken as it is', async () => {
  const there = await broker(({ method, connection, isDurable }) => {
    if (method !== 'exchange.declare' || !isDurable) return false;
    connection.closeChannel(
      406,
      "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'openstack' in vhost '/': received 'true' but current is 'false'",
    );
    return true;
  });
  const durable = {
    ...queue,
    durable: true,
    binding: {
      routingKey: 'k',
      exchange: { name: 'openstack', type: 'topic', durable: true, autoDelete: false },
    },
  } as const;
  const link = consumeFrom(there, durable);
  await link.channel(signal);
  const declared = there.events.filter(
    ({ method }) => method === 'exchange.declare' || method === 'queue.declare',
  );
  expect(declared.map(({ method, isDurable }) => [method, isDurable])).toEqual([
    ['exchange.declare', true],
    ['exchange.declare', false],
    ['queue.declare', false],
  ]);
});

test('a message counts as sent when the broker has confirmed it', async () => {
  const there = await broker();
  expect(await publisherOn(linkTo(configOf(there.port))).publish(message, signal)).toBe('routed');
  expect(there.events.filter(({ method }) => method === 'basic.publish')).toMatchObject([
    { name: 'openstack', routingKey: 'cinder-backup', body: message.content },
  ]);
});

test('an exchange is declared once for each channel', async () => {
  const there = await broker();
  const publisher = publisherOn(linkTo(configOf(there.port)));
  await publisher.publish(message, signal);
  await publisher.publish(message, signal);
  there.connection(1).cut();
  await there.waitFor('confirm.select', 2);
  await publisher.publish(message, signal);
  expect(there.events.filter(({ method }) => method === 'exchange.declare')).toHaveLength(2);
});

test.each([
  ['refused', ({ connection }: BrokerEvent) => connection.nack()],
  ['lost with the connection', ({ connection }: BrokerEvent) => connection.cut()],
  [
    'sent to an exchange that is gone',
    ({ connection }: BrokerEvent) => connection.closeChannel(404, "NOT_FOUND - no exchange 'openstack'"),
  ],
])('a message that is %s is sent again, the same bytes', async (_what, harm) => {
  let harmed = false;
  const there = await broker((event) => {
    if (event.method !== 'basic.publish' || harmed) return false;
    harmed = true;
    harm(event);
    return true;
  });
  expect(await publisherOn(linkTo(configOf(there.port))).publish(message, signal)).toBe('routed');
  const sent = there.events.filter(({ method }) => method === 'basic.publish');
  expect(sent.map(({ body }) => body)).toEqual([message.content, message.content]);
});

test('a mandatory message that no queue takes is unroutable, also among others', async () => {
  const there = await broker((event) => {
    if (event.method !== 'basic.publish' || event.routingKey !== 'reply_gone') return false;
    event.connection.return(event);
    return false;
  });
  const publisher = publisherOn(linkTo(configOf(there.port)));
  const reply = { exchange: undefined, content: Buffer.from('{"b": 2}'), mandatory: true };
  const outcomes = await Promise.all([
    publisher.publish({ ...reply, routingKey: 'reply_there' }, signal),
    publisher.publish({ ...reply, routingKey: 'reply_gone' }, signal),
    publisher.publish({ ...reply, routingKey: 'reply_there', content: Buffer.from('{"c": 3}') }, signal),
  ]);
  expect(outcomes).toEqual(['routed', 'unroutable', 'routed']);
});

test('an exchange that differs otherwise is an error that says what to configure', async () => {
  const there = await broker(({ method, connection }) => {
    if (method !== 'exchange.declare') return false;
    connection.closeChannel(
      406,
      "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for exchange 'openstack'",
    );
    return true;
  });
  await expect(publisherOn(linkTo(configOf(there.port))).publish(message, signal)).rejects.toMatchObject({
    code: 'config-invalid',
    message: expect.stringContaining('[oslo_messaging_rabbit]'),
  });
});

test('a broker that does not confirm is left when the signal aborts', async () => {
  const there = await broker(({ method }) => method === 'basic.publish');
  const stop = new AbortController();
  const sending = publisherOn(linkTo(configOf(there.port))).publish(message, stop.signal);
  await there.waitFor('basic.publish', 1);
  stop.abort();
  await expect(sending).rejects.toMatchObject({ code: 'cancelled' });
});

test('a message goes also to an exchange that the broker has as not durable', async () => {
  const there = await broker(({ method, connection, isDurable }) => {
    if (method !== 'exchange.declare' || !isDurable) return false;
    connection.closeChannel(406, "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'openstack'");
    return true;
  });
  const exchange = { name: 'openstack', type: 'topic', durable: true, autoDelete: false } as const;
  const publisher = publisherOn(linkTo(configOf(there.port)));
  expect(await publisher.publish({ ...message, exchange }, signal)).toBe('routed');
});
