import { afterEach, describe, expect, it } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { BackupError } from '../../src/model/errors.ts';
import { createFrameDecoder, type FrameType } from '../../src/protocol/frames.ts';
import { createAgentClient, type AgentClient } from '../../src/volume/agent-client.ts';
import {
  jsonReply,
  startFakeAgent,
  type AgentAsk,
  type AgentReply,
  type FakeAgent,
} from '../support/fake-agent.ts';
import { patternBytes } from '../support/random-volume.ts';

const mebibyte = 1024 * 1024;
const lengthBytes = 64 * mebibyte;
const volume = 'volume-11111111-2222-4333-8444-555555555555';
const never = new AbortController().signal;

type Taken = { type: FrameType; offset: number; length: number; data: Buffer };

const opened: { agent: FakeAgent; client: AgentClient }[] = [];
afterEach(async () => {
  for (const { agent, client } of opened.splice(0)) {
    await client.close();
    await agent.close();
  }
});

async function setup(
  reply: (ask: AgentAsk, index: number) => AgentReply | Promise<AgentReply>,
  options: { idleTimeoutMs?: number; signal?: AbortSignal } = {},
) {
  const agent = await startFakeAgent(reply);
  const client = createAgentClient({
    url: agent.url,
    access: { token: 'sesame' },
    log: createLogger({ level: 'silent' }),
    retry: { attempts: 3, firstDelayMs: 1, maxDelayMs: 2 },
    idleTimeoutMs: options.idleTimeoutMs ?? 5_000,
  });
  opened.push({ agent, client });
  const target = await client.target({
    backend: 'lvm-1',
    volume,
    lengthBytes,
    signal: options.signal ?? never,
  });
  return { agent, client, target };
}

async function takeAll(ask: AgentAsk): Promise<Taken[]> {
  const decoder = createFrameDecoder();
  const frames: Taken[] = [];
  for await (const piece of ask.body) {
    for (const frame of decoder.push(piece as Buffer)) {
      frames.push({
        type: frame.type,
        offset: frame.offset,
        length: frame.length,
        data: Buffer.from(frame.data),
      });
    }
  }
  return frames;
}

/** Takes everything and answers with what came, after `note` saw it. */
const honest =
  (note: (frames: Taken[]) => void = () => {}) =>
  async (ask: AgentAsk): Promise<AgentReply> => {
    const frames = await takeAll(ask);
    note(frames);
    const sum = (type: FrameType) =>
      frames.filter((frame) => frame.type === type).reduce((total, frame) => total + frame.length, 0);
    return jsonReply({ data_bytes: sum('data'), zero_bytes: sum('zero') });
  };

describe('what is sent', () => {
  it('is the bytes at their offsets, in frames of at most 1 MiB, and then the totals', async () => {
    let frames: Taken[] = [];
    const { target, agent } = await setup(honest((taken) => (frames = taken)));
    const bytes = patternBytes(4096, 2 * mebibyte + 512, 2);
    await target.writeData(4096, bytes);
    await target.finish();
    const data = frames.filter((frame) => frame.type === 'data');
    expect(data.map(({ offset, length }) => [offset, length])).toEqual([
      [4096, mebibyte],
      [4096 + mebibyte, mebibyte],
      [4096 + 2 * mebibyte, 512],
    ]);
    expect(Buffer.concat(data.map((frame) => frame.data)).equals(bytes)).toBe(true);
    expect(JSON.parse(frames.at(-1)?.data.toString('utf8') ?? '')).toEqual({
      data_bytes: bytes.length,
      zero_bytes: 0,
      digests: 0,
      read_bytes: 0,
    });
    expect(agent.asks[0]).toMatchObject({
      method: 'PUT',
      path: `/v1/backends/lvm-1/volumes/${volume}/data`,
      headers: { authorization: 'Bearer sesame' },
    });
  });

  it('joins zero ranges that touch, and keeps apart those that do not', async () => {
    let frames: Taken[] = [];
    const { target } = await setup(honest((taken) => (frames = taken)));
    await target.writeZero(0, 4096);
    await target.writeZero(4096, 4096);
    await target.writeData(8192, patternBytes(8192, 512, 1));
    await target.writeZero(8704, 1024);
    await target.writeZero(mebibyte, 512);
    await target.writeZero(mebibyte + 512, 512);
    await target.finish();
    expect(frames.slice(0, -1).map(({ type, offset, length }) => [type, offset, length])).toEqual([
      ['zero', 0, 8192],
      ['data', 8192, 512],
      ['zero', 8704, 1024],
      ['zero', mebibyte, 1024],
    ]);
  });

  it('does not change when the caller reuses its buffer after each call', async () => {
    let frames: Taken[] = [];
    const { target } = await setup(honest((taken) => (frames = taken)));
    const buffer = Buffer.alloc(3 * mebibyte);
    for (let round = 0; round < 8; round += 1) {
      patternBytes(round * buffer.length, buffer.length, round).copy(buffer);
      await target.writeData(round * buffer.length, buffer);
      buffer.fill(0xee);
    }
    await target.finish();
    for (const { type, offset, length, data } of frames) {
      if (type === 'data') {
        expect(data.equals(patternBytes(offset, length, Math.floor(offset / buffer.length)))).toBe(true);
      }
    }
  });

  it('has an idle frame now and then while the caller has nothing', async () => {
    const idle = Promise.withResolvers<undefined>();
    const { target } = await setup(
      async (ask) => {
        const decoder = createFrameDecoder();
        for await (const piece of ask.body) {
          for (const frame of decoder.push(piece as Buffer))
            if (frame.type === 'idle') idle.resolve(undefined);
        }
        return jsonReply({ data_bytes: 512, zero_bytes: 0 });
      },
      { idleTimeoutMs: 2_000 },
    );
    await idle.promise;
    await target.writeData(0, patternBytes(0, 512, 1));
    await target.finish();
  });
});

describe('backpressure', () => {
  it('holds the caller back while the agent does not read', async () => {
    const gate = Promise.withResolvers<undefined>();
    const { target, agent } = await setup(async (ask) => {
      await gate.promise;
      return honest()(ask);
    });
    const bytes = patternBytes(0, lengthBytes, 1);
    let resolved = false;
    const writing = target.writeData(0, bytes).then(() => (resolved = true));
    await expect.poll(() => agent.asks.length, { timeout: 15_000 }).toBe(1);
    expect(resolved).toBe(false);
    gate.resolve(undefined);
    await writing;
    await target.finish();
  });

  it('that lasts longer than the idle time-out ends as agent-unavailable', async () => {
    const { target } = await setup(() => new Promise<AgentReply>(() => {}), { idleTimeoutMs: 100 });
    await expect(target.writeData(0, patternBytes(0, lengthBytes, 1))).rejects.toMatchObject({
      code: 'agent-unavailable',
      message: expect.stringContaining('nothing moved'),
    });
    await target.abort(new Error('over'));
  });
});

describe('failure', () => {
  it('that the agent answers in the middle is the error of the call', async () => {
    const { target } = await setup(() =>
      jsonReply({ error: { code: 'store-full', message: 'no space left in pool vg0' } }, 507),
    );
    const bytes = patternBytes(0, 8 * mebibyte, 1);
    await expect(
      (async () => {
        for (let round = 0; round < 8; round += 1) await target.writeData(round * bytes.length, bytes);
        await target.finish();
      })(),
    ).rejects.toMatchObject({ code: 'store-full', message: expect.stringContaining('vg0') });
    await expect(target.writeData(0, bytes)).rejects.toMatchObject({ code: 'store-full' });
    await target.abort(new Error('over'));
  });

  it('of the connection is agent-unavailable', async () => {
    for (const ending of ['close', 'reset'] as const) {
      const { target } = await setup((ask) => {
        ask.body.once('data', () => {
          if (ending === 'reset') ask.body.socket.resetAndDestroy();
          else ask.body.socket.destroy();
        });
        return new Promise<AgentReply>(() => {});
      });
      const bytes = patternBytes(0, 8 * mebibyte, 1);
      await expect(
        (async () => {
          for (let round = 0; round < 8; round += 1) await target.writeData(round * bytes.length, bytes);
        })(),
        ending,
      ).rejects.toMatchObject({ code: 'agent-unavailable' });
      await target.abort(new Error('over'));
    }
  });

  it('of the connection in the middle of one call is the error of that call', async () => {
    const { target } = await setup((ask) => {
      ask.body.once('data', () => ask.body.socket.resetAndDestroy());
      return new Promise<AgentReply>(() => {});
    });
    await expect(target.writeData(0, patternBytes(0, lengthBytes, 1))).rejects.toMatchObject({
      code: 'agent-unavailable',
    });
    await target.abort(new Error('over'));
  });

  it('to agree on the totals is corrupt', async () => {
    const { target } = await setup(async (ask) => {
      await takeAll(ask);
      return jsonReply({ data_bytes: 512, zero_bytes: 1 });
    });
    await target.writeData(0, patternBytes(0, 512, 1));
    await expect(target.finish()).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('to answer in the agreed form is agent-failed', async () => {
    const replies: AgentReply[] = [jsonReply({ done: true }), { body: 'ok' }, { status: 204 }];
    for (const reply of replies) {
      const { target } = await setup(async (ask) => {
        await takeAll(ask);
        return reply;
      });
      await expect(target.finish()).rejects.toMatchObject({ code: 'agent-failed' });
    }
  });

  it('to wait for the end of the stream is agent-failed', async () => {
    const { target } = await setup(() => jsonReply({ data_bytes: 0, zero_bytes: 0 }));
    await expect(
      (async () => {
        for (;;) await target.writeData(0, patternBytes(0, mebibyte, 1));
      })(),
    ).rejects.toMatchObject({ code: 'agent-failed' });
    await target.abort(new Error('over'));
  });

  it('to reach the agent is tried again and then agent-unavailable', async () => {
    const agent = await startFakeAgent(() => jsonReply({}));
    await agent.close();
    const client = createAgentClient({
      url: agent.url,
      access: {},
      log: createLogger({ level: 'silent' }),
      retry: { attempts: 3, firstDelayMs: 1, maxDelayMs: 2 },
    });
    await expect(
      client.target({ backend: 'lvm-1', volume, lengthBytes, signal: never }),
    ).rejects.toMatchObject({ code: 'agent-unavailable' });
    await client.close();
  });

  it('to stay inside the volume is a bug of the caller', async () => {
    const { target } = await setup(honest());
    await expect(target.writeData(lengthBytes - 512, patternBytes(0, 1024, 1))).rejects.toMatchObject({
      code: 'bug',
    });
    await expect(target.writeZero(lengthBytes, 1)).rejects.toMatchObject({ code: 'bug' });
    await target.abort(new Error('over'));
  });
});

describe('giving up', () => {
  it('by the signal fails what waits with its reason and closes the connection', async () => {
    const controller = new AbortController();
    const { target, agent } = await setup(() => new Promise<AgentReply>(() => {}), {
      signal: controller.signal,
    });
    const writing = target.writeData(0, patternBytes(0, lengthBytes, 1));
    controller.abort(new BackupError('cancelled', 'the backup is being deleted'));
    await expect(writing).rejects.toMatchObject({
      code: 'cancelled',
      message: 'the backup is being deleted',
    });
    await target.abort(controller.signal.reason);
    await expect.poll(() => agent.openSockets(), { timeout: 15_000 }).toBe(0);
  });

  it('by abort closes the connection, and may be repeated', async () => {
    const { target, agent } = await setup(() => new Promise<AgentReply>(() => {}));
    await target.abort(new Error('enough'));
    await target.abort(new Error('enough'));
    await expect.poll(() => agent.openSockets(), { timeout: 15_000 }).toBe(0);
  });

  it('is not needed after the end: finish closes the connection', async () => {
    const { target, agent } = await setup(honest());
    await target.writeZero(0, lengthBytes);
    await target.finish();
    await expect.poll(() => agent.openSockets(), { timeout: 15_000 }).toBe(0);
  });
});
