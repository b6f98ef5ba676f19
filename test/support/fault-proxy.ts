/**
 * A TCP proxy that does to one request what networks and servers do: reset, silence, cut, slowness, changed bytes, an answer of
 * its own. It knows HTTP only so far that a request begins with its request line; connections may be kept alive.
 */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

export type Act =
  /** RST after so many bytes of the request went to the server. */
  | { readonly do: 'reset'; readonly afterBytes: number }
  /** Nothing of the request reaches the server, and nothing is answered. */
  | { readonly do: 'blackhole' }
  /** The connection ends after so many bytes of the answer. */
  | { readonly do: 'truncate'; readonly afterBytes: number }
  /** The answer stops after so many bytes, and the connection stays. */
  | { readonly do: 'stall'; readonly afterBytes: number }
  | { readonly do: 'throttle'; readonly side: 'request' | 'answer'; readonly bytesPerSecond: number }
  /** One bit is changed at this byte of the request or the answer, counted from its first header. */
  | { readonly do: 'flip'; readonly side: 'request' | 'answer'; readonly atByte: number }
  /** The first piece of the answer reads otherwise. */
  | { readonly do: 'replace'; readonly what: RegExp; readonly by: string }
  | { readonly do: 'answer'; readonly status: number; readonly headers?: string; readonly body?: string };

export type Fault = {
  readonly act: Act;
  /** Request lines (`PUT /v1/... HTTP/1.1`) that it befalls; all unless given. */
  readonly on?: RegExp;
  /** How many requests; 1 unless given. */
  readonly times?: number;
};

export type FaultProxy = {
  readonly url: string;
  readonly port: number;
  /** Plans faults in place of those before; null: none. A request meets the first that it fits and that is not used up. */
  plan(faults: Fault | readonly Fault[] | null): void;
  /** Requests that a fault has befallen since the last `plan`. */
  readonly fired: number;
  /** Request lines seen since the last `plan`. */
  readonly seen: readonly string[];
  /** From now on no byte passes, on any connection. */
  freeze(): void;
  /** Lets all go on. */
  thaw(): void;
  /** From now on connections are refused. */
  refuse(): Promise<void>;
  close(): Promise<void>;
};

type State = {
  faults: readonly (Fault & { left: number })[];
  fired: number;
  seen: string[];
  frozen: boolean;
};

const requestLine = /^(?:GET|HEAD|PUT|POST|DELETE) \S+ HTTP\/1\.1/;

export async function startFaultProxy(targetPort: number): Promise<FaultProxy> {
  const state: State = { faults: [], fired: 0, seen: [], frozen: false };
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(targetPort, '127.0.0.1');
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => sockets.delete(socket));
    }
    relay(client, upstream, state);
    if (state.frozen) for (const socket of [client, upstream]) socket.pause();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port was given');

  const end = async () => {
    for (const socket of sockets) socket.destroy();
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    await closed;
  };
  return {
    url: `http://127.0.0.1:${address.port}`,
    port: address.port,
    plan(faults) {
      const all = faults === null ? [] : 'act' in faults ? [faults] : faults;
      state.faults = all.map((fault) => ({ ...fault, left: fault.times ?? 1 }));
      state.fired = 0;
      state.seen = [];
    },
    get fired() {
      return state.fired;
    },
    get seen() {
      return state.seen;
    },
    freeze() {
      state.frozen = true;
      for (const socket of sockets) socket.pause();
    },
    thaw() {
      state.frozen = false;
      for (const socket of sockets) socket.resume();
    },
    refuse: end,
    close: end,
  };
}

function relay(client: Socket, upstream: Socket, state: State): void {
  let act: Act | null = null;
  let sent = 0;
  let received = 0;

  client.on('data', (chunk: Buffer) => {
    const line = requestLine.exec(chunk.subarray(0, 2048).toString('latin1'))?.[0];
    if (line !== undefined) {
      state.seen.push(line);
      act = takeFault(line, state);
      sent = 0;
      received = 0;
    }
    const before = sent;
    sent += chunk.length;
    if (act?.do === 'blackhole') return;
    if (act?.do === 'answer') {
      if (line !== undefined) client.end(answerOf(act));
      return;
    }
    if (act?.do === 'reset' && sent > act.afterBytes) {
      upstream.destroy();
      client.resetAndDestroy();
      return;
    }
    if (act?.do === 'flip' && act.side === 'request') flip(chunk, act.atByte - before);
    if (act?.do === 'throttle' && act.side === 'request')
      hold(client, chunk.length, act.bytesPerSecond, state);
    if (!upstream.write(chunk)) {
      client.pause();
      upstream.once('drain', () => goOn(client, state));
    }
  });
  upstream.on('data', (piece: Buffer) => {
    const chunk =
      act?.do === 'replace' && received === 0
        ? Buffer.from(piece.toString('latin1').replace(act.what, act.by), 'latin1')
        : piece;
    const before = received;
    received += chunk.length;
    if (act?.do === 'stall' && received > act.afterBytes) {
      client.write(chunk.subarray(0, Math.max(0, act.afterBytes - before)));
      upstream.pause();
      return;
    }
    if (act?.do === 'truncate' && received > act.afterBytes) {
      client.end(chunk.subarray(0, Math.max(0, act.afterBytes - before)));
      upstream.destroy();
      return;
    }
    if (act?.do === 'flip' && act.side === 'answer') flip(chunk, act.atByte - before);
    if (act?.do === 'throttle' && act.side === 'answer')
      hold(upstream, chunk.length, act.bytesPerSecond, state);
    if (!client.write(chunk)) {
      upstream.pause();
      client.once('drain', () => goOn(upstream, state));
    }
  });
  client.on('close', () => upstream.destroy());
  upstream.on('close', () => client.end());
}

function hold(socket: Socket, bytes: number, bytesPerSecond: number, state: State): void {
  socket.pause();
  setTimeout(() => goOn(socket, state), (bytes / bytesPerSecond) * 1000);
}

function goOn(socket: Socket, state: State): void {
  if (!state.frozen) socket.resume();
}

function takeFault(line: string, state: State): Act | null {
  const fault = state.faults.find(({ left, on }) => left > 0 && on?.test(line) !== false);
  if (fault === undefined) return null;
  fault.left -= 1;
  state.fired += 1;
  return fault.act;
}

function flip(chunk: Buffer, at: number): void {
  if (at >= 0 && at < chunk.length) chunk.writeUInt8(chunk.readUInt8(at) ^ 0x10, at);
}

function answerOf(act: {
  readonly status: number;
  readonly headers?: string;
  readonly body?: string;
}): string {
  const body = act.body ?? '';
  return `HTTP/1.1 ${act.status} Planned\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n${act.headers ?? ''}\r\n${body}`;
}
