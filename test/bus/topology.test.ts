import { expect, test } from 'vitest';
import {
  fanoutExchange,
  fanoutQueue,
  notificationQueue,
  queueSuffix,
  replyQueue,
  topicQueue,
  type QueueDeclaration,
} from '../../src/bus/topology.ts';
import { parseConfigFile } from '../../src/config/config-files.ts';
import { serviceConfigOf } from '../../src/config/service-config.ts';
import { topologyVariants } from '../support/wire-fixtures.ts';

function queuesWith(options: string) {
  const text = `[DEFAULT]\nbackup_driver = cinder.backup.drivers.posix.PosixBackupDriver\n[database]\nconnection = sqlite:////x\n[oslo_messaging_rabbit]\n${options}\n`;
  return serviceConfigOf({ files: [parseConfigFile('cinder.conf', text, [])], problems: [] }).config.messaging
    .queues;
}

const python = (value: boolean) => (value ? 'True' : 'False');

/** As the recording writes it: Python's names and texts. */
function describe({ name, durable, autoDelete, arguments: args }: QueueDeclaration): string {
  const kind = args['x-queue-type'] ?? 'classic';
  const entries = Object.entries(args)
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([key, value]) => `'${key}': ${typeof value === 'string' ? `'${value}'` : String(value)}`);
  return `queue ${name} ${kind} durable=${python(durable)} auto_delete=${python(autoDelete)} exclusive=False {${entries.join(', ')}}`;
}

const variants = topologyVariants()
  .split(/^# /mu)
  .filter((block) => block !== '')
  .map((block) => {
    const [head = '', ...lines] = block.trim().split('\n');
    const options = [...head.matchAll(/'(\w+)': '(\w+)'/gu)].map(([, name, value]) => `${name} = ${value}`);
    return { options: options.join('\n'), lines };
  });

test.each(variants)('with "$options" all is declared as oslo.messaging did', ({ options, lines }) => {
  const config = queuesWith(options);
  const suffixOf = (prefix: string) =>
    new RegExp(`queue ${prefix}([0-9a-f]{32}) `, 'u').exec(lines.join('\n'))?.[1] ?? '';
  const queues = [
    topicQueue(config, 'cinder-backup'),
    topicQueue(config, 'cinder-backup.refhost'),
    fanoutQueue(config, 'cinder-backup', suffixOf('cinder-backup_fanout_')),
    replyQueue(config, suffixOf('reply_')),
  ];
  expect(queues.map(describe)).toEqual(lines.filter((line) => line.startsWith('queue ')));
  const bindings = queues.flatMap(({ name, binding }) =>
    binding === undefined ? [] : [`binding ${binding.exchange.name} -> ${name} key=${binding.routingKey}`],
  );
  expect(bindings.toSorted()).toEqual(lines.filter((line) => line.startsWith('binding ')).toSorted());
  const exchanges = new Set(
    queues.flatMap(({ binding }) => {
      if (binding === undefined) return [];
      const { name, type, durable, autoDelete } = binding.exchange;
      return [`exchange ${name} ${type} durable=${python(durable)} auto_delete=${python(autoDelete)} {}`];
    }),
  );
  expect([...exchanges].toSorted()).toEqual(lines.filter((line) => line.startsWith('exchange ')).toSorted());
});

test('transient quorum queues are durable, with their limits and expiry', () => {
  const config = queuesWith(
    'rabbit_transient_quorum_queue = true\nrabbit_quorum_delivery_limit = 3\nrabbit_transient_queues_ttl = 60',
  );
  expect(replyQueue(config, 'x')).toMatchObject({
    durable: true,
    arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 3, 'x-expires': 60_000 },
  });
  expect(fanoutQueue(config, 't', 'x').binding?.exchange).toMatchObject({ durable: true, autoDelete: true });
});

test('the fanout as a stream is one queue for all', () => {
  const config = queuesWith(
    'rabbit_stream_fanout = true\nrabbit_transient_quorum_queue = true\nrabbit_qos_prefetch_count = 10',
  );
  expect(fanoutQueue(config, 'cinder-backup', 'x')).toMatchObject({
    name: 'cinder-backup_fanout',
    durable: true,
    isStream: true,
    arguments: { 'x-queue-type': 'stream', 'x-max-age': '1800s' },
  });
});

test('the fanout that others listen to is durable with transient quorum queues only', () => {
  expect(fanoutExchange(queuesWith('amqp_durable_queues = true'), 'cinder-scheduler')).toEqual({
    name: 'cinder-scheduler_fanout',
    type: 'fanout',
    durable: false,
    autoDelete: true,
  });
  expect(fanoutExchange(queuesWith('rabbit_transient_quorum_queue = true'), 't').durable).toBe(true);
});

test('a ttl of 0 is no expiry, and cancel on failover is asked of each consumer', () => {
  const config = queuesWith('rabbit_transient_queues_ttl = 0\nenable_cancel_on_failover = true');
  expect(replyQueue(config, 'x')).toMatchObject({
    arguments: {},
    consumerArguments: { 'x-cancel-on-ha-failover': true },
  });
  expect(notificationQueue(config, 'notifications.info').consumerArguments).toEqual({});
});

test('queue names are random, or made of host and process', () => {
  expect(queueSuffix(queuesWith(''), 1)).toMatch(/^[0-9a-f]{32}$/u);
  expect(queueSuffix(queuesWith('use_queue_manager = true\nhostname = n1\nprocessname = p'), 2)).toBe(
    'n1:p:2',
  );
});
