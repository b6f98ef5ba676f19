/**
 * An agent that does as the test says: it speaks the protocol's frames over real HTTP, honestly from a scripted
 * volume, or with any lie or cut. `honestFrames` makes the truth, the test bends it, `encodeFrames` puts it on the wire.
 */
import { hash } from 'node:crypto';
import http from 'node:http';
import type { Socket } from 'node:net';
import { endOf, fromOffset, splitExtents, type Extent, type TypedExtent } from '../../src/model/extent.ts';
import { encodeFrame, preamble, streamContentType, type FrameType } from '../../src/protocol/frames.ts';
import { patternBytes } from './random-volume.ts';

export type ScriptedFrame = {
  readonly type: FrameType;
  readonly offset: number;
  readonly length: number;
  readonly digests?: Buffer;
  readonly data?: Buffer;
  /** The JSON of plan, totals and error frames. */
  readonly document?: unknown;
};

/** A volume whose bytes are the pattern of `generation` but for the zero extents. */
export type ScriptedVolume = {
  readonly lengthBytes: number;
  readonly blockSize: number;
  readonly generation: number;
  /** What a delta names, on block boundaries. For one without a previous snapshot they must tile the volume. */
  readonly extents: readonly TypedExtent[];
  readonly frameBytes: number;
};

type StreamKind = 'delta' | 'digests' | 'blocks';

export function blockDigests(bytes: Buffer, blockSize: number): Buffer {
  const digests: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += blockSize) {
    digests.push(hash('sha256', bytes.subarray(at, at + blockSize), 'buffer'));
  }
  return Buffer.concat(digests);
}

function parts(volume: ScriptedVolume, kind: StreamKind, asked: Record<string, unknown>): TypedExtent[] {
  const start = Number(asked['start_offset'] ?? 0);
  if (kind !== 'blocks') return [...fromOffset(volume.extents, start)];
  const named = asked['ranges'] as [number, number][];
  return named.flatMap(([offset, length]) => {
    const inside: TypedExtent[] = [];
    for (const extent of volume.extents) {
      const from = Math.max(offset, extent.offset);
      const to = Math.min(offset + length, endOf(extent));
      if (from < to) inside.push({ kind: extent.kind, offset: from, length: to - from });
    }
    return inside;
  });
}

/** What an honest agent sends for a request, `asked` being the JSON of it. */
export function honestFrames(
  volume: ScriptedVolume,
  kind: StreamKind,
  asked: Record<string, unknown> = {},
): ScriptedFrame[] {
  const { blockSize, generation, lengthBytes } = volume;
  const frames: ScriptedFrame[] = [];
  const sum = { data_bytes: 0, zero_bytes: 0, digests: 0, read_bytes: 0 };
  for (const part of splitExtents(parts(volume, kind, asked), volume.frameBytes)) {
    if (part.kind === 'zero') {
      frames.push({ type: 'zero', offset: part.offset, length: part.length });
      sum.zero_bytes += part.length;
      continue;
    }
    const bytes = patternBytes(part.offset, part.length, generation);
    const digests = blockDigests(bytes, blockSize);
    const place = { offset: part.offset, length: part.length, digests };
    if (kind === 'digests') frames.push({ type: 'digests', ...place });
    else frames.push({ type: 'data', ...place, data: bytes });
    sum.data_bytes += part.length;
    sum.digests += digests.length / 32;
    sum.read_bytes += part.length;
  }
  const plan = {
    method: 'extents',
    reason: 'scripted',
    data_bytes: sum.data_bytes,
    zero_bytes: sum.zero_bytes,
  };
  return [
    { type: 'plan', offset: 0, length: lengthBytes, document: plan },
    ...frames,
    { type: 'totals', offset: 0, length: 0, document: sum },
  ];
}

/** A whole stream with totals that are those of its frames, whatever was taken away or added. */
export function recounted(frames: readonly ScriptedFrame[]): ScriptedFrame[] {
  const sum = (type: ScriptedFrame['type']) =>
    frames.filter((frame) => frame.type === type).reduce((total, { length }) => total + length, 0);
  const digests = frames.reduce((count, frame) => count + (frame.digests?.length ?? 0) / 32, 0);
  const document = { data_bytes: sum('data'), zero_bytes: sum('zero'), digests, read_bytes: 0 };
  return [...frames.slice(0, -1), { type: 'totals', offset: 0, length: 0, document }];
}

export function encodeScripted(frame: ScriptedFrame): Buffer {
  const digests = frame.digests ?? Buffer.alloc(0);
  const data =
    frame.document === undefined
      ? (frame.data ?? Buffer.alloc(0))
      : Buffer.from(JSON.stringify(frame.document));
  return encodeFrame(
    { type: frame.type, digestCount: digests.length / 32, offset: frame.offset, length: frame.length },
    Buffer.concat([digests, data]),
  );
}

/** A whole stream, preamble included. */
export function encodeFrames(frames: readonly ScriptedFrame[]): Buffer {
  return Buffer.concat([preamble, ...frames.map(encodeScripted)]);
}

export type AgentAsk = {
  readonly method: string;
  readonly path: string;
  readonly headers: http.IncomingHttpHeaders;
  /** The JSON body; empty for GET, DELETE and PUT. */
  readonly document: Record<string, unknown>;
  /** The unread body of a PUT. */
  readonly body: http.IncomingMessage;
};

export type AgentReply = {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** What an iterable yields is written piece by piece, as fast as it is read. */
  readonly body?: string | Buffer | AsyncIterable<Buffer>;
  /** Only so many bytes of the body are sent. */
  readonly cutAt?: number;
  /** What follows the body: its end, the connection's end, a reset, or nothing for ever. */
  readonly ending?: 'end' | 'close' | 'reset' | 'stall';
};

export type FakeAgent = {
  readonly url: string;
  /** Every request so far. */
  readonly asks: readonly AgentAsk[];
  openSockets(): number;
  close(): Promise<void>;
};

/** A reply that is a frame stream. */
export function streamReply(
  body: Buffer | AsyncIterable<Buffer>,
  rest: Omit<AgentReply, 'body'> = {},
): AgentReply {
  return { headers: { 'content-type': streamContentType }, body, ...rest };
}

/** A reply in JSON. */
export function jsonReply(document: unknown, status = 200): AgentReply {
  return { status, headers: { 'content-type': 'application/json' }, body: JSON.stringify(document) };
}

/** Listens on loopback; `reply` answers request number `index`, counted from 0. */
export async function startFakeAgent(
  reply: (ask: AgentAsk, index: number) => AgentReply | Promise<AgentReply>,
): Promise<FakeAgent> {
  const asks: AgentAsk[] = [];
  const sockets = new Set<Socket>();
  const server = http.createServer((request, response) => {
    void answer(request, response).catch((error: unknown) => response.destroy(error as Error));
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
  });

  const answer = async (request: http.IncomingMessage, response: http.ServerResponse): Promise<void> => {
    const { method = '', url = '', headers } = request;
    const document = method === 'PUT' ? {} : await readDocument(request);
    const ask = { method, path: url, headers, document, body: request };
    const index = asks.push(ask) - 1;
    const { status = 200, headers: given = {}, body = '', cutAt, ending = 'end' } = await reply(ask, index);
    response.writeHead(status, given);
    if (typeof body === 'object' && Symbol.asyncIterator in body) {
      for await (const piece of body) await new Promise((resolve) => response.write(piece, resolve));
      response.end();
      return;
    }
    const bytes = typeof body === 'string' ? Buffer.from(body) : body;
    const sent = bytes.subarray(0, cutAt);
    if (ending === 'end') {
      response.end(sent);
      return;
    }
    response.flushHeaders();
    await new Promise((resolve) => response.write(sent.length === 0 ? Buffer.from([]) : sent, resolve));
    if (ending === 'close') request.socket.destroySoon();
    if (ending === 'reset') request.socket.resetAndDestroy();
  };

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the fake agent has no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    asks,
    openSockets: () => sockets.size,
    async close() {
      server.closeAllConnections();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function readDocument(request: http.IncomingMessage): Promise<Record<string, unknown>> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  const text = Buffer.concat(pieces).toString('utf8');
  return text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
}

/** A scripted volume with data and zero extents by turns, an unaligned end and several frames. */
export function scriptedVolume(changes: Partial<ScriptedVolume> = {}): ScriptedVolume {
  const blockSize = 4096;
  const lengthBytes = 40 * blockSize + 1536;
  const tile = (kind: 'data' | 'zero', from: number, to: number): TypedExtent => ({
    kind,
    offset: from * blockSize,
    length: Math.min(to * blockSize, lengthBytes) - from * blockSize,
  });
  return {
    lengthBytes,
    blockSize,
    generation: 3,
    frameBytes: 3 * blockSize,
    extents: [
      tile('data', 0, 7),
      tile('zero', 7, 12),
      tile('data', 12, 13),
      tile('data', 13, 20),
      tile('zero', 20, 33),
      tile('data', 33, 41),
    ],
    ...changes,
  };
}

/** The same with gaps: what changed since a previous snapshot. */
export function scriptedDelta(): ScriptedVolume {
  const volume = scriptedVolume();
  return {
    ...volume,
    extents: volume.extents.filter((_, index) => index % 2 === 1 || index === 4 || index === 5),
  };
}

/** Extents as plain ranges, for `blocks`. */
export function rangesOf(extents: readonly TypedExtent[]): Extent[] {
  return extents.map(({ offset, length }) => ({ offset, length }));
}
