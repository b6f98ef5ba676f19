import { Writable } from 'node:stream';
import { afterEach, expect, test } from 'vitest';
import { decodeEnvelope, encodeEnvelope, type JsonObject } from '../../src/bus/envelope.ts';
import type { Dispatch } from '../../src/bus/rpc-server.ts';
import { createLogger } from '../../src/log.ts';
import { openTestBus } from '../support/message-bus.ts';
import { startScriptedBroker, type BrokerEvent, type ScriptedBroker } from '../support/scripted-broker.ts';
import { wireFixture } from '../support/wire-fixtures.ts';

const cleanUp: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const one of cleanUp.splice(0).toReversed()) await one();
});

/** A served bus; `deliver` brings a message to its host's queue, on whichever connection consumes. */
async function serve(
  dispatch: Dispatch,
  options: { readonly script?: (event: BrokerEvent) => boolean; readonly general?: string } = {},
) {
  const there = await startScriptedBroker(options.script);
  const lines: string[] = [];
  const destination = new Writable({
    write(line: Buffer, _encoding, done) {
      lines.push(line.toString());
      done();
    },
  });
  const bus = openTestBus({
    url: `rabbit://u:p@127.0.0.1:${there.port}/`,
    host: 'node1',
    general: options.general ?? '',
    log: createLogger({ level: 'debug', destination }),
  });
  cleanUp.push(
    () => there.close(),
    () => bus.close(),
  );
  bus.serve(dispatch);
  await there.waitFor('basic.consume', 3);
  const consuming = there.events.find(({ method }) => method === 'basic.consume');
  const deliver = (body: Buffer) => consuming?.connection.deliver('2', body);
  return { there, bus, lines, deliver };
}

const request = (more: JsonObject = {}) =>
  encodeEnvelope({
    method: 'export_record',
    args: {},
    version: '2.0',
    _unique_id: 'u1',
    _context_request_id: 'req-1',
    ...more,
  });

const asCall = { _msg_id: 'm1', _reply_q: 'reply_1', _timeout: null };

async function repliesOf(there: ScriptedBroker): Promise<JsonObject[]> {
  const sent = there.events.filter(
    ({ method, routingKey }) => method === 'basic.publish' && routingKey === 'reply_1',
  );
  return Promise.all(sent.map(({ body }) => decodeEnvelope({ content: body, properties: {} })));
}

test('it consumes the topic, its own queue and the fanout', async () => {
  const { there } = await serve(() => Promise.resolve(null));
  const consumed = there.events
    .filter(({ method }) => method === 'basic.consume')
    .map(({ routingKey, name }) => [name, routingKey]);
  expect(consumed).toEqual([
    ['1', 'cinder-backup'],
    ['2', 'cinder-backup.node1'],
    ['3', expect.stringMatching(/^cinder-backup_fanout_[0-9a-f]{32}$/u)],
  ]);
});

test('a request is acknowledged before it is performed', async () => {
  const order: string[] = [];
  const { there, deliver } = await serve(
    () => {
      order.push('performed');
      return new Promise(() => undefined);
    },
    {
      script: ({ method }) => {
        if (method === 'basic.ack') order.push('acknowledged');
        return false;
      },
    },
  );
  deliver(request());
  await there.waitFor('basic.ack', 1);
  await expect.poll(() => order.length).toBe(2);
  expect(there.events.filter(({ method }) => method === 'basic.publish')).toEqual([]);
});

test('a call gets a mandatory reply that Python would send, a cast gets none', async () => {
  const { there, deliver } = await serve((_method, args) => Promise.resolve(args));
  deliver(request({ args: { a: 1 } }));
  deliver(request({ args: { b: 2 }, _unique_id: 'u2', ...asCall }));
  await there.waitFor('basic.publish', 1);
  expect(await repliesOf(there)).toEqual([
    {
      result: { b: 2 },
      failure: null,
      ending: true,
      _msg_id: 'm1',
      _unique_id: expect.stringMatching(/^[0-9a-f]{32}$/u),
    },
  ]);
});

test('a message that comes twice is performed once', async () => {
  let performed = 0;
  const { there, deliver } = await serve(() => {
    performed += 1;
    return Promise.resolve(null);
  });
  deliver(request({ ...asCall }));
  deliver(request({ ...asCall }));
  deliver(request({ ...asCall, _unique_id: 'u2' }));
  await there.waitFor('basic.publish', 2);
  expect(performed).toBe(2);
});

test.each([
  ['no JSON', Buffer.from('hello')],
  ['no request', encodeEnvelope({ result: 1 })],
  ['arguments that are a list', encodeEnvelope({ method: 'export_record', args: [] })],
])(
  'a message with %s is acknowledged, logged and dropped, and the next one is served',
  async (_what, body) => {
    const { there, lines, deliver } = await serve(() => Promise.resolve('fine'));
    deliver(body);
    deliver(request({ ...asCall }));
    await there.waitFor('basic.publish', 1);
    expect(there.events.filter(({ method }) => method === 'basic.ack')).toHaveLength(2);
    expect(await repliesOf(there)).toMatchObject([{ result: 'fine' }]);
    expect(lines.join('')).toContain('a message is no request: it is dropped');
  },
);

test('a malformed object is refused to its caller', async () => {
  const { there, deliver } = await serve(() => Promise.resolve(null));
  deliver(request({ ...asCall, args: { backup: { 'versioned_object.name': 'Backup' } } }));
  await there.waitFor('basic.publish', 1);
  expect(await repliesOf(there)).toMatchObject([
    { result: null, failure: expect.stringContaining('"class":"InvalidInput"') },
  ]);
});

test('every line of a request has its request id, and none the token', async () => {
  const { there, lines, deliver } = await serve(() => Promise.reject(new Error('broken')));
  deliver(Buffer.from(wireFixture('export_record').payload_raw));
  await there.waitFor('basic.publish', 1);
  const own = lines.filter((line) => line.includes('a request'));
  expect(own.length).toBeGreaterThan(1);
  expect(own.every((line) => line.includes('"request_id":"req-'))).toBe(true);
  expect(lines.join('')).not.toContain('keystone-token');
});

test('the ping of oslo.messaging is answered if that is configured', async () => {
  const { there, deliver } = await serve(() => Promise.resolve(null), { general: 'rpc_ping_enabled = true' });
  deliver(request({ ...asCall, method: 'oslo_rpc_server_ping' }));
  await there.waitFor('basic.publish', 1);
  expect(await repliesOf(there)).toMatchObject([{ result: 'pong' }]);
});

test('what comes after a drain has begun is left to the broker', async () => {
  const { there, bus } = await serve(() => Promise.resolve(null), {
    script: ({ method, name, connection }) => {
      if (method === 'basic.cancel' && name === '1') connection.deliver('2', request({ ...asCall }));
      return false;
    },
  });
  await expect.poll(() => bus.isConnected).toBe(true);
  await bus.drain(new AbortController().signal);
  expect(there.events.filter(({ method }) => method === 'basic.cancel')).toHaveLength(3);
  expect(there.events.filter(({ method }) => method === 'basic.ack')).toEqual([]);
});

test('no more requests than the limit are under way; the others are not acknowledged', async () => {
  const { there, deliver } = await serve(() => new Promise(() => undefined));
  for (let index = 0; index < 1030; index += 1) deliver(request({ _unique_id: `u${index}` }));
  await there.waitFor('basic.ack', 1024);
  deliver(Buffer.from('{}'));
  expect(there.events.filter(({ method }) => method === 'basic.ack')).toHaveLength(1024);
});
