/**
 * A broker that speaks raw AMQP 0-9-1 frames, for what a real one does not do on demand: falling silent, cutting, refusing,
 * returning. It answers every method as RabbitMQ does unless the script does it. Frame: type (1 byte), channel (2),
 * size (4), payload, 0xCE; payload of a method: class (2), method (2), arguments.
 */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';

export type BrokerMethod =
  | 'connection.open'
  | 'channel.open'
  | 'confirm.select'
  | 'exchange.declare'
  | 'queue.declare'
  | 'queue.bind'
  | 'queue.delete'
  | 'basic.qos'
  | 'basic.consume'
  | 'basic.cancel'
  | 'basic.publish'
  | 'basic.ack';

/** What a client did. `name` is the exchange, queue or consumer tag that it named. */
export type BrokerEvent = {
  readonly method: BrokerMethod;
  readonly name: string;
  readonly routingKey: string;
  /** Of a declaration. */
  readonly isDurable: boolean;
  readonly body: Buffer;
  readonly connection: BrokerConnection;
};

export type BrokerConnection = {
  /** Counted from 1. */
  readonly number: number;
  /** Does what RabbitMQ would do for `event`. */
  answer(event: BrokerEvent): void;
  /** Closes the channel with an error, as for a declaration that does not match. */
  closeChannel(code: number, text: string): void;
  closeConnection(code: number, text: string): void;
  /** Cancels a consumer, as when its queue is deleted. */
  cancelConsumer(tag: string): void;
  deliver(tag: string, body: Buffer): void;
  /** Gives a mandatory message back. */
  return(event: BrokerEvent): void;
  nack(): void;
  /** Cuts the socket. */
  cut(): void;
};

export type ScriptedBroker = {
  readonly port: number;
  /** All that clients did, in order. */
  readonly events: readonly BrokerEvent[];
  /** Waits until `count` events of `method` have come. */
  waitFor(method: BrokerMethod, count: number): Promise<void>;
  connection(number: number): BrokerConnection;
  close(): Promise<void>;
};

/** `script` is asked first; it returns true if it has dealt with the event. */
export async function startScriptedBroker(
  script: (event: BrokerEvent) => boolean = () => false,
): Promise<ScriptedBroker> {
  const events: BrokerEvent[] = [];
  const connections: BrokerConnection[] = [];
  const sockets = new Set<Socket>();
  let watchers: (() => void)[] = [];

  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    const connection = serve(socket, connections.length + 1, (event) => {
      events.push(event);
      if (!script(event)) connection.answer(event);
      for (const watcher of watchers) watcher();
    });
    connections.push(connection);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port was given');

  return {
    port: address.port,
    events,
    async waitFor(method, count) {
      const isThere = () => events.filter((event) => event.method === method).length >= count;
      if (isThere()) return;
      await new Promise<void>((resolve) => {
        const watcher = () => {
          if (!isThere()) return;
          watchers = watchers.filter((one) => one !== watcher);
          resolve();
        };
        watchers.push(watcher);
      });
    },
    connection(number) {
      const connection = connections[number - 1];
      if (connection === undefined) throw new Error(`there is no connection ${number}`);
      return connection;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

const methods: Readonly<Record<string, BrokerMethod>> = {
  '10.40': 'connection.open',
  '20.10': 'channel.open',
  '85.10': 'confirm.select',
  '40.10': 'exchange.declare',
  '50.10': 'queue.declare',
  '50.20': 'queue.bind',
  '50.40': 'queue.delete',
  '60.10': 'basic.qos',
  '60.20': 'basic.consume',
  '60.30': 'basic.cancel',
  '60.40': 'basic.publish',
  '60.80': 'basic.ack',
};

function serve(socket: Socket, number: number, onEvent: (event: BrokerEvent) => void): BrokerConnection {
  let buffered: Buffer = Buffer.alloc(0);
  let isGreeted = false;
  let published = 0;
  let delivered = 0;
  let content: { readonly event: BrokerEvent; readonly size: number; body: Buffer } | undefined;

  const send = (channel: number, id: string, ...args: readonly Buffer[]) => {
    const [classId = 0, methodId = 0] = id.split('.').map(Number);
    socket.write(frame(1, channel, Buffer.concat([short(classId), short(methodId), ...args])));
  };
  const sendContent = (body: Buffer) => {
    socket.write(frame(2, 1, Buffer.concat([short(60), short(0), longLong(body.length), short(0)])));
    socket.write(frame(3, 1, body));
  };

  const connection: BrokerConnection = {
    number,
    answer({ method, name }) {
      switch (method) {
        case 'connection.open':
          return send(0, '10.41', shortText(''));
        case 'channel.open':
          return send(1, '20.11', longText(''));
        case 'confirm.select':
          return send(1, '85.11');
        case 'exchange.declare':
          return send(1, '40.11');
        case 'queue.declare':
          return send(1, '50.11', shortText(name), long(0), long(0));
        case 'queue.bind':
          return send(1, '50.21');
        case 'queue.delete':
          return send(1, '50.41', long(0));
        case 'basic.qos':
          return send(1, '60.11');
        case 'basic.consume':
          return send(1, '60.21', shortText(name));
        case 'basic.cancel':
          return send(1, '60.31', shortText(name));
        case 'basic.publish':
          return send(1, '60.80', longLong(published), Buffer.from([0]));
        case 'basic.ack':
          return undefined;
        default:
          return method satisfies never;
      }
    },
    closeChannel: (code, text) => send(1, '20.40', short(code), shortText(text), short(0), short(0)),
    closeConnection: (code, text) => send(0, '10.50', short(code), shortText(text), short(0), short(0)),
    cancelConsumer: (tag) => send(1, '60.30', shortText(tag), Buffer.from([1])),
    deliver(tag, body) {
      delivered += 1;
      send(
        1,
        '60.60',
        shortText(tag),
        longLong(delivered),
        Buffer.from([0]),
        shortText(''),
        shortText('key'),
      );
      sendContent(body);
    },
    return({ name, routingKey, body }) {
      send(1, '60.50', short(312), shortText('NO_ROUTE'), shortText(name), shortText(routingKey));
      sendContent(body);
    },
    nack: () => send(1, '60.120', longLong(published), Buffer.from([0])),
    cut: () => socket.destroy(),
  };

  socket.on('data', (piece) => {
    buffered = Buffer.concat([buffered, piece]);
    if (!isGreeted) {
      if (buffered.length < 8) return;
      buffered = buffered.subarray(8);
      isGreeted = true;
      const capabilities = table({
        publisher_confirms: true,
        consumer_cancel_notify: true,
        'basic.nack': true,
      });
      send(
        0,
        '10.10',
        Buffer.from([0, 9]),
        table({ capabilities }),
        longText('PLAIN AMQPLAIN'),
        longText('en_US'),
      );
    }
    while (buffered.length >= 8 && buffered.length >= 8 + buffered.readUInt32BE(3)) {
      const size = buffered.readUInt32BE(3);
      take(buffered.readUInt8(0), buffered.subarray(7, 7 + size));
      buffered = buffered.subarray(8 + size);
    }
  });

  function take(type: number, payload: Buffer): void {
    if (type === 1)
      return takeMethod(`${payload.readUInt16BE(0)}.${payload.readUInt16BE(2)}`, payload.subarray(4));
    if (content === undefined) return undefined;
    if (type === 2) content = { ...content, size: Number(payload.readBigUInt64BE(4)) };
    else content.body = Buffer.concat([content.body, payload]);
    if (content.body.length < content.size || content.size === 0) return undefined;
    const { event, body } = content;
    content = undefined;
    published += 1;
    return onEvent({ ...event, body });
  }

  function takeMethod(id: string, args: Buffer): void {
    if (id === '10.11') return send(0, '10.30', short(2047), long(131_072), short(0));
    if (id === '10.50') return send(0, '10.51');
    if (id === '20.40') return send(1, '20.41');
    const method = methods[id];
    if (method === undefined) return undefined;
    const event = { method, body: Buffer.alloc(0), connection, ...namesOf(method, args) };
    if (method === 'basic.publish') content = { event, size: 0, body: Buffer.alloc(0) };
    else onEvent(event);
    return undefined;
  }

  return connection;
}

type Named = Pick<BrokerEvent, 'name' | 'routingKey' | 'isDurable'>;

const durableBit = 2;

/** What the arguments name; most methods begin with two reserved bytes. */
function namesOf(method: BrokerMethod, args: Buffer): Named {
  const textAt = (at: number) => args.subarray(at + 1, at + 1 + args.readUInt8(at)).toString();
  const after = (at: number) => at + 1 + args.readUInt8(at);
  const named = { name: '', routingKey: '', isDurable: false };
  switch (method) {
    case 'exchange.declare':
      return { ...named, name: textAt(2), isDurable: (args.readUInt8(after(after(2))) & durableBit) !== 0 };
    case 'queue.declare':
      return { ...named, name: textAt(2), isDurable: (args.readUInt8(after(2)) & durableBit) !== 0 };
    case 'queue.delete':
    case 'queue.bind':
      return { ...named, name: textAt(2) };
    case 'basic.consume':
      return { ...named, name: textAt(after(2)), routingKey: textAt(2) };
    case 'basic.publish':
      return { ...named, name: textAt(2), routingKey: textAt(after(2)) };
    case 'basic.cancel':
      return { ...named, name: textAt(0) };
    case 'connection.open':
    case 'channel.open':
    case 'confirm.select':
    case 'basic.qos':
    case 'basic.ack':
      return named;
    default:
      return method satisfies never;
  }
}

function frame(type: number, channel: number, payload: Buffer): Buffer {
  return Buffer.concat([
    Buffer.from([type]),
    short(channel),
    long(payload.length),
    payload,
    Buffer.from([0xce]),
  ]);
}

function short(value: number): Buffer {
  const out = Buffer.alloc(2);
  out.writeUInt16BE(value);
  return out;
}

function long(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
}

function longLong(value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt(value));
  return out;
}

function shortText(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

function longText(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([long(bytes.length), bytes]);
}

/** A field table of booleans and of tables that are encoded already. */
function table(entries: Readonly<Record<string, boolean | Buffer>>): Buffer {
  const encoded = Object.entries(entries).map(([key, value]) =>
    Buffer.concat([
      shortText(key),
      typeof value === 'boolean'
        ? Buffer.from(`t${value ? '\u0001' : '\0'}`)
        : Buffer.concat([Buffer.from('F'), value]),
    ]),
  );
  const bytes = Buffer.concat(encoded);
  return Buffer.concat([long(bytes.length), bytes]);
}
