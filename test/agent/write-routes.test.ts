import http from 'node:http';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { request } from 'undici';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  encodeFrame,
  encodeJsonFrame,
  headerBytes,
  preamble,
  streamContentType,
} from '../../src/protocol/frames.ts';
import {
  codeOf,
  freshVolumeName,
  openFilesBelow,
  startAgent,
  volumesPath,
  type Answer,
  type RunningAgent,
} from '../support/running-agent.ts';
import { makeVolumeFile, patternBytes } from '../support/random-volume.ts';

const mebibyte = 1024 * 1024;
const patience = { timeout: 20_000 };
const sizeBytes = 4 * mebibyte + 100;

describe('writing a stream into a volume', () => {
  let agent: RunningAgent;
  let volume: string;
  beforeAll(async () => {
    agent = await startAgent();
  });
  afterAll(() => agent.close());
  beforeEach(async () => {
    volume = freshVolumeName();
    await makeVolumeFile(join(agent.directory, volume), { sizeBytes });
  });

  const put = async (body: Buffer | Readable, contentType = streamContentType): Promise<Answer> => {
    const answer = await request(`${agent.url}${volumesPath(volume)}/data`, {
      method: 'PUT',
      headers: { 'content-type': contentType },
      body,
    });
    return { status: answer.statusCode, body: await answer.body.json() };
  };
  const content = () => readFile(join(agent.directory, volume));

  test('writes data and zeros in any order, and answers with their sums', async () => {
    const answer = await put(
      streamOf(
        data(2 * mebibyte, mebibyte, 2),
        zero(0, mebibyte),
        encodeFrame({ type: 'idle', offset: 0, length: 0 }),
        data(4 * mebibyte, 100, 3),
        data(mebibyte, 512, 4),
        totals(mebibyte + 612, mebibyte),
      ),
    );
    expect(answer).toEqual({ status: 200, body: { data_bytes: mebibyte + 612, zero_bytes: mebibyte } });
    const wanted = patternBytes(0, sizeBytes, 1);
    wanted.fill(0, 0, mebibyte);
    patternBytes(2 * mebibyte, mebibyte, 2).copy(wanted, 2 * mebibyte);
    patternBytes(4 * mebibyte, 100, 3).copy(wanted, 4 * mebibyte);
    patternBytes(mebibyte, 512, 4).copy(wanted, mebibyte);
    expect((await content()).equals(wanted)).toBe(true);
  });

  test('makes holes of zeros', async () => {
    const before = await agent.backend.getVolume(volume);
    expect((await put(streamOf(zero(0, 4 * mebibyte), totals(0, 4 * mebibyte)))).status).toBe(200);
    const after = await agent.backend.getVolume(volume);
    expect(before.allocated_bytes).toBeGreaterThan(4 * mebibyte);
    expect(after.allocated_bytes).toBeLessThan(mebibyte);
  });

  test('takes a stream in pieces of any size, over chunked encoding', async () => {
    const whole = streamOf(data(0, 3 * mebibyte, 5), totals(3 * mebibyte, 0));
    const pieces: Buffer[] = [];
    for (let at = 0, size = 1; at < whole.length; at += size, size = (size * 7) % 65_521) {
      pieces.push(whole.subarray(at, at + size));
    }
    expect((await put(Readable.from(pieces))).status).toBe(200);
    expect((await content()).subarray(0, 3 * mebibyte).equals(patternBytes(0, 3 * mebibyte, 5))).toBe(true);
  });

  test.each([
    ['an empty body', Buffer.alloc(0), 'corrupt'],
    ['no preamble', Buffer.from('{"data":"none"}'), 'corrupt'],
    ['only the preamble', preamble, 'corrupt'],
    ['no totals', streamOf(data(0, 512, 2)), 'corrupt'],
    ['half a frame', streamOf(data(0, 512, 2)).subarray(0, 300), 'corrupt'],
    ['half the totals', streamOf(data(0, 512, 2), totals(512, 0)).subarray(0, -5), 'corrupt'],
    ['too few bytes for its totals', streamOf(data(0, 512, 2), totals(1024, 0)), 'corrupt'],
    ['zeros counted as data', streamOf(zero(0, 512), totals(512, 0)), 'corrupt'],
    [
      'totals that are no JSON',
      streamOf(encodeFrame({ type: 'totals', offset: 0, length: 0 }, Buffer.from('{'))),
      'corrupt',
    ],
    ['frames after the totals', streamOf(totals(0, 0), data(0, 512, 2)), 'corrupt'],
    ['bytes after the totals', streamOf(totals(0, 0), Buffer.from('more')), 'corrupt'],
    [
      'a flipped byte of data',
      flipped(streamOf(data(0, 512, 2), totals(512, 0)), 8 + headerBytes + 100),
      'corrupt',
    ],
    ['a flipped offset', flipped(streamOf(data(0, 512, 2), totals(512, 0)), 8 + 9), 'corrupt'],
    ['data over the end', streamOf(data(4 * mebibyte, 512, 2), totals(512, 0)), 'message-invalid'],
    ['zeros far behind the end', streamOf(zero(2 ** 52, 512), totals(0, 512)), 'message-invalid'],
    ['data twice', streamOf(data(512, 1024, 2), data(1024, 1024, 2), totals(2048, 0)), 'message-invalid'],
    ['zeros over data', streamOf(data(512, 512, 2), zero(0, 2048), totals(512, 2048)), 'message-invalid'],
    ['data with digests', streamOf(withDigest(), totals(512, 0)), 'message-invalid'],
    ['a plan', streamOf(encodeJsonFrame('plan', {}), totals(0, 0)), 'message-invalid'],
    [
      'an error of the sender',
      streamOf(encodeJsonFrame('error', { code: 'corrupt', message: 'bad' })),
      'corrupt',
    ],
    [
      'an error that is not known',
      streamOf(encodeJsonFrame('error', { code: 'x', message: 'gone' })),
      'cancelled',
    ],
  ])('%s is never a success', async (_title, body, code) => {
    const answer = await put(body);
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(codeOf(answer)).toBe(code);
    await vi.waitFor(async () => expect(await openFilesBelow(agent.directory)).toBe(0), patience);
  });

  test('refuses another content type', async () => {
    const answer = await put(streamOf(totals(0, 0)), 'text/plain');
    expect([answer.status, codeOf(answer)]).toEqual([400, 'message-invalid']);
  });

  test('leaves what it has not been sent', async () => {
    await put(streamOf(data(512, 512, 2), data(512, 512, 3), totals(1024, 0)));
    const wanted = patternBytes(0, sizeBytes, 1);
    expect((await content()).subarray(1024).equals(wanted.subarray(1024))).toBe(true);
  });

  test('tells the sender what is wrong although it still has much to send', async () => {
    const body = Readable.from(
      (function* () {
        yield streamOf(data(0, 512, 2), data(0, 512, 2));
        for (let i = 0; i < 64; i += 1) yield Buffer.alloc(mebibyte, 0xaa);
      })(),
    );
    expect(codeOf(await put(body))).toBe('message-invalid');
  });

  test('lets one stream at a time into a volume, and the next after a sender has left', async () => {
    const outgoing = http.request(`${agent.url}${volumesPath(volume)}/data`, {
      method: 'PUT',
      headers: { 'content-type': streamContentType },
    });
    outgoing.on('error', () => {});
    outgoing.write(streamOf(data(0, mebibyte, 7)));
    await vi.waitFor(
      async () => expect((await content()).subarray(0, 512).equals(patternBytes(0, 512, 7))).toBe(true),
      patience,
    );

    const second = await put(streamOf(totals(0, 0)));
    expect([second.status, codeOf(second)]).toEqual([409, 'state-invalid']);

    outgoing.destroy();
    await vi.waitFor(async () => {
      expect((await put(streamOf(data(0, 512, 8), totals(512, 0)))).status).toBe(200);
    }, patience);
    await vi.waitFor(async () => expect(await openFilesBelow(agent.directory)).toBe(0), patience);
  });
});

describe('a sender that is refused, and goes on sending', () => {
  let agent: RunningAgent;
  beforeAll(async () => {
    agent = await startAgent({ access: { token: 'a secret of some length' }, lingerMs: 100 });
  });
  afterAll(() => agent.close());

  const authorization = 'Bearer a secret of some length';

  test.each([
    ['without the token', dataPath(), { authorization: 'none' }, 401],
    ['to another backend', dataPath().replace('files', 'other'), {}, 404],
    ['to a volume that is absent', dataPath(), {}, 404],
    ['with a name that is none', dataPath('x'), {}, 400],
    ['with a name that is far too long', dataPath('x'.repeat(400)), {}, 413],
    ['of another type', dataPath(), { 'content-type': 'text/plain' }, 400],
    ['where nothing is', '/v1/nothing', {}, 404],
  ])('%s is cut off', async (_title, to, given, status) => {
    const headers = { authorization, 'content-type': streamContentType, ...given };
    const outgoing = http.request(agent.url + to, { method: 'PUT', headers });
    const answered = once(outgoing, 'response') as Promise<[http.IncomingMessage]>;
    const closed = new Promise((resolve) => outgoing.once('close', resolve));
    outgoing.on('error', () => {});
    outgoing.write(preamble);
    const sending = setInterval(() => outgoing.write(zero(0, 512)), 10);
    try {
      const [answer] = await answered;
      answer.on('error', () => {}).resume();
      expect(answer.statusCode).toBe(status);
      await closed;
    } finally {
      clearInterval(sending);
    }
  });

  test('is not cut off when it comes to its end in time', async () => {
    const keptAlive = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const ask = async (): Promise<{ status: number | undefined; reused: boolean }> => {
      const headers = { authorization: 'none', 'content-type': streamContentType };
      const outgoing = http.request(agent.url + dataPath(), {
        method: 'PUT',
        agent: keptAlive,
        headers,
      });
      outgoing.write(preamble);
      const [answer] = (await once(outgoing, 'response')) as [http.IncomingMessage];
      outgoing.end(zero(0, 512));
      answer.resume();
      await once(outgoing, 'close');
      return { status: answer.statusCode, reused: outgoing.reusedSocket };
    };
    expect(await ask()).toEqual({ status: 401, reused: false });
    await sleep(300);
    expect(await ask()).toEqual({ status: 401, reused: true });
    keptAlive.destroy();
  });
});

function dataPath(volume = freshVolumeName()): string {
  return `${volumesPath(volume)}/data`;
}

function streamOf(...frames: readonly Buffer[]): Buffer {
  return Buffer.concat([preamble, ...frames]);
}

/** Data frames of at most 1 MiB. */
function data(offset: number, length: number, generation: number): Buffer {
  const frames: Buffer[] = [];
  for (let done = 0; done < length; done += mebibyte) {
    const bytes = patternBytes(offset + done, Math.min(mebibyte, length - done), generation);
    frames.push(encodeFrame({ type: 'data', offset: offset + done, length: bytes.length }, bytes));
  }
  return Buffer.concat(frames);
}

function withDigest(): Buffer {
  const payload = Buffer.concat([Buffer.alloc(32, 1), patternBytes(0, 512, 2)]);
  return encodeFrame({ type: 'data', digestCount: 1, offset: 0, length: 512 }, payload);
}

function zero(offset: number, length: number): Buffer {
  return encodeFrame({ type: 'zero', offset, length });
}

function totals(dataBytes: number, zeroBytes: number): Buffer {
  return encodeJsonFrame('totals', {
    data_bytes: dataBytes,
    zero_bytes: zeroBytes,
    digests: 0,
    read_bytes: 0,
  });
}

function flipped(bytes: Buffer, at: number): Buffer {
  const out = Buffer.from(bytes);
  out[at] = (out[at] ?? 0) ^ 0x10;
  return out;
}
