import { afterEach, describe, expect, it } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createAgentClient, type AgentClient } from '../../src/volume/agent-client.ts';
import type { BlockSource } from '../../src/volume/block-source.ts';
import { gather, truthOf, type Gathered } from '../support/change-events.ts';
import {
  encodeFrames,
  encodeScripted,
  honestFrames,
  jsonReply,
  rangesOf,
  scriptedDelta,
  scriptedVolume,
  startFakeAgent,
  streamReply,
  type AgentAsk,
  type AgentReply,
  type FakeAgent,
  type ScriptedFrame,
  type ScriptedVolume,
} from '../support/fake-agent.ts';
import { createRandom } from '../support/random-volume.ts';

const backend = 'lvm-1';
const volumeName = 'volume-11111111-2222-4333-8444-555555555555';
const snapshot = 'backup.aaaaaaaa-2222-4333-8444-555555555555.snap.1790000000';
const previous = { name: 'backup.bbbbbbbb-2222-4333-8444-555555555555.snap.1780000000', identity: 'i-1' };
const never = new AbortController().signal;

const opened: { agent: FakeAgent; client: AgentClient }[] = [];
afterEach(async () => {
  for (const { agent, client } of opened.splice(0)) {
    await client.close();
    await agent.close();
  }
});

type Setup = { agent: FakeAgent; client: AgentClient; source: BlockSource; warnings: () => string[] };

async function setup(
  volume: ScriptedVolume,
  reply: (ask: AgentAsk, index: number) => AgentReply | Promise<AgentReply>,
  options: { attempts?: number; idleTimeoutMs?: number } = {},
): Promise<Setup> {
  const agent = await startFakeAgent(reply);
  const lines: string[] = [];
  const client = createAgentClient({
    url: agent.url,
    access: {},
    log: createLogger({ level: 'warn', destination: { write: (line: string) => void lines.push(line) } }),
    retry: { attempts: options.attempts ?? 3, firstDelayMs: 1, maxDelayMs: 2 },
    idleTimeoutMs: options.idleTimeoutMs ?? 5_000,
  });
  opened.push({ agent, client });
  const source = client.source({
    backend,
    volume: volumeName,
    snapshot,
    lengthBytes: volume.lengthBytes,
    blockSize: volume.blockSize,
    mergeGapBytes: 0,
  });
  return { agent, client, source, warnings: () => lines };
}

const kindOf = (ask: AgentAsk) =>
  ask.path.slice(ask.path.lastIndexOf('/') + 1) as 'delta' | 'digests' | 'blocks';

/** Sends the honest stream after `bend` had its way with the frames. */
const bent =
  (volume: ScriptedVolume, bend: (frames: ScriptedFrame[], index: number) => ScriptedFrame[]) =>
  (ask: AgentAsk, index: number) =>
    streamReply(encodeFrames(bend(honestFrames(volume, kindOf(ask), ask.document), index)));

const said = ({ extents, data, digests }: Gathered) => ({ extents, data, digests });

const replaceAt = (frames: ScriptedFrame[], at: number, change: Partial<ScriptedFrame>): ScriptedFrame[] =>
  frames.map((frame, index) => (index === at ? { ...frame, ...change } : frame));
const documentOf = (frame: ScriptedFrame | undefined) => frame?.document as Record<string, number>;
const firstData = (frames: readonly ScriptedFrame[]) => frames.findIndex((frame) => frame.type === 'data');

describe('a whole stream', () => {
  it('gives the changes between two snapshots with their digests', async () => {
    const volume = scriptedDelta();
    const { source, agent } = await setup(
      volume,
      bent(volume, (frames) => frames),
    );
    const gathered = await gather(source.delta(previous, never));
    expect(said(gathered)).toEqual(truthOf(volume));
    expect(agent.asks.map((ask) => ask.document)).toEqual([
      {
        length: volume.lengthBytes,
        block_size: volume.blockSize,
        start_offset: 0,
        previous_snapshot: previous.name,
        previous_identity: previous.identity,
        current_snapshot: snapshot,
        merge_gap: 0,
      },
    ]);
  });

  it('has one plan, and totals that count what was handed on', async () => {
    const volume = scriptedVolume();
    const { source } = await setup(
      volume,
      bent(volume, (frames) => frames),
    );
    const gathered = await gather(source.delta(null, never));
    expect(gathered.plans).toHaveLength(1);
    const data = volume.extents
      .filter((extent) => extent.kind === 'data')
      .reduce((sum, e) => sum + e.length, 0);
    expect(gathered.totals).toEqual([
      {
        data_bytes: data,
        zero_bytes: volume.lengthBytes - data,
        digests: Math.ceil(data / volume.blockSize),
        read_bytes: data,
      },
    ]);
  });

  it('gives digests of the whole volume without its bytes', async () => {
    const volume = scriptedVolume();
    const { source } = await setup(
      volume,
      bent(volume, (frames) => frames),
    );
    const gathered = await gather(source.digests(never));
    expect(said(gathered)).toEqual({ ...truthOf(volume), data: Buffer.alloc(0) });
  });

  it('passes over idle frames wherever they stand', async () => {
    const volume = scriptedDelta();
    const idle: ScriptedFrame = { type: 'idle', offset: 0, length: 0 };
    const { source } = await setup(
      volume,
      bent(volume, (frames) => frames.flatMap((frame) => [idle, frame])),
    );
    expect(said(await gather(source.delta(previous, never)))).toEqual(truthOf(volume));
  });

  it('gives nothing but plan and totals when nothing changed', async () => {
    const volume = { ...scriptedVolume(), extents: [] };
    const { source } = await setup(
      volume,
      bent(volume, (frames) => frames),
    );
    const gathered = await gather(source.delta(previous, never));
    expect(gathered.extents).toEqual([]);
    expect(gathered.totals).toHaveLength(1);
  });
});

describe('named blocks', () => {
  it('asks for more ranges than one call takes in several calls, one after the other', async () => {
    const blockSize = 512;
    const lengthBytes = 20_001 * blockSize;
    const volume: ScriptedVolume = {
      lengthBytes,
      blockSize,
      generation: 5,
      frameBytes: 64 * 1024,
      extents: [{ kind: 'data', offset: 0, length: lengthBytes }],
    };
    const ranges = Array.from({ length: 10_000 }, (_, index) => ({
      offset: index * 2 * blockSize,
      length: blockSize,
    }));
    const { source, agent } = await setup(
      volume,
      bent(volume, (frames) => frames),
    );
    const gathered = await gather(source.blocks(ranges, never));
    expect(agent.asks.map((ask) => (ask.document['ranges'] as unknown[]).length)).toEqual([4096, 4096, 1808]);
    const named = ranges.map((range) => ({ kind: 'data' as const, ...range }));
    expect(said(gathered)).toEqual(truthOf(volume, named));
    expect(gathered.totals).toEqual([
      {
        data_bytes: 10_000 * blockSize,
        zero_bytes: 0,
        digests: 10_000,
        read_bytes: 10_000 * blockSize,
      },
    ]);
  });

  it('joins ranges that touch', async () => {
    const volume = scriptedVolume();
    const { source, agent } = await setup(
      volume,
      bent(volume, (frames) => frames),
    );
    await gather(source.blocks(rangesOf(volume.extents), never));
    expect(agent.asks[0]?.document['ranges']).toEqual([[0, volume.lengthBytes]]);
  });

  it('asks nothing for no ranges', async () => {
    const { source, agent } = await setup(scriptedVolume(), () => jsonReply({}));
    const gathered = await gather(source.blocks([], never));
    expect(gathered.totals).toEqual([{ data_bytes: 0, zero_bytes: 0, digests: 0, read_bytes: 0 }]);
    expect(agent.asks).toHaveLength(0);
  });

  it('asks again only for what is left after a cut', async () => {
    const volume = scriptedVolume();
    const ranges = [1, 4, 14, 22, 36].map((block) => ({ offset: block * 4096, length: 2 * 4096 }));
    const { source, agent } = await setup(volume, (ask, index) => {
      const frames = honestFrames(volume, 'blocks', ask.document);
      return index === 0
        ? streamReply(encodeFrames(frames.slice(0, 3)), { ending: 'close' })
        : streamReply(encodeFrames(frames));
    });
    const gathered = await gather(source.blocks(ranges, never));
    expect(gathered.extents.reduce((sum, extent) => sum + extent.length, 0)).toBe(10 * 4096);
    expect(agent.asks[1]?.document['ranges']).toEqual(
      ranges.slice(2).map((range) => [range.offset, range.length]),
    );
  });
});

describe('a cut stream', () => {
  const volume = scriptedVolume({
    lengthBytes: 9 * 512 + 100,
    blockSize: 512,
    frameBytes: 1024,
    extents: [
      { kind: 'data', offset: 0, length: 2560 },
      { kind: 'zero', offset: 2560, length: 1024 },
      { kind: 'data', offset: 3584, length: 1124 },
    ],
  });
  const wholeLength = encodeFrames(honestFrames(volume, 'delta')).length;

  for (const ending of ['end', 'close', 'reset'] as const) {
    it(`is continued once per byte after a cut anywhere, ended by ${ending}`, async () => {
      const random = createRandom();
      const cuts = [0, 1, 7, 8, 9, 39, 40, wholeLength - 1, wholeLength];
      for (let more = 0; more < 60; more += 1) cuts.push(random.between(0, wholeLength));
      let cutAt = 0;
      let asked = 0;
      const { source } = await setup(volume, (ask) => {
        const body = encodeFrames(honestFrames(volume, kindOf(ask), ask.document));
        asked += 1;
        return asked === 1 ? streamReply(body, { cutAt, ending }) : streamReply(body);
      });
      for (cutAt of cuts) {
        asked = 0;
        const gathered = await gather(source.delta(null, never));
        expect(said(gathered), `cut at ${cutAt}`).toEqual(truthOf(volume));
        expect(gathered.plans).toHaveLength(1);
        expect(gathered.totals[0]?.data_bytes).toBe(2560 + 1124);
      }
    });
  }

  it('survives more cuts than attempts as long as each brings it forward', async () => {
    const { source, agent } = await setup(
      volume,
      (ask) => {
        const frames = honestFrames(volume, kindOf(ask), ask.document);
        return frames.length > 3
          ? streamReply(encodeFrames(frames.slice(0, 2)), { ending: 'close' })
          : streamReply(encodeFrames(frames));
      },
      { attempts: 2 },
    );
    expect(said(await gather(source.delta(null, never)))).toEqual(truthOf(volume));
    expect(agent.asks.map((ask) => ask.document['start_offset'])).toEqual([0, 1024, 2048, 2560, 3584, 4608]);
  });

  it('goes on after a silence', async () => {
    const { source, warnings } = await setup(
      volume,
      (ask, index) => {
        const body = encodeFrames(honestFrames(volume, kindOf(ask), ask.document));
        return index === 0 ? streamReply(body, { cutAt: 2000, ending: 'stall' }) : streamReply(body);
      },
      { idleTimeoutMs: 100 },
    );
    expect(said(await gather(source.delta(null, never)))).toEqual(truthOf(volume));
    expect(warnings()).toHaveLength(1);
  });

  it('goes on after an error of the agent that may pass', async () => {
    const { source } = await setup(volume, (ask, index) => {
      const frames = honestFrames(volume, kindOf(ask), ask.document);
      const stopped = { code: 'cancelled', message: 'the agent is being stopped' };
      return index === 0
        ? streamReply(
            encodeFrames([...frames.slice(0, 3), { type: 'error', offset: 0, length: 0, document: stopped }]),
          )
        : streamReply(encodeFrames(frames));
    });
    expect(said(await gather(source.delta(null, never)))).toEqual(truthOf(volume));
  });

  it('logs each continuation as a warning with the offset', async () => {
    const { source, warnings } = await setup(volume, (ask, index) => {
      const frames = honestFrames(volume, kindOf(ask), ask.document);
      return streamReply(encodeFrames(index === 0 ? frames.slice(0, 2) : frames));
    });
    await gather(source.delta(null, never));
    const [warning] = warnings().map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(warning).toMatchObject({ level: 'warn', startOffset: 1024, attempt: 1 });
  });

  it('is given up as agent-unavailable after the attempts without progress', async () => {
    const { source, agent } = await setup(volume, (ask, index) => {
      const frames = honestFrames(volume, kindOf(ask), ask.document);
      return streamReply(encodeFrames(index === 0 ? frames.slice(0, 2) : frames.slice(0, 1)), {
        ending: 'close',
      });
    });
    await expect(gather(source.delta(null, never))).rejects.toMatchObject({
      code: 'agent-unavailable',
      message: expect.stringContaining('gave up at offset 1024 after 3 attempts'),
    });
    expect(agent.asks).toHaveLength(3);
  });

  it('needs no further request when only the totals are missing', async () => {
    const { source, agent } = await setup(volume, (ask) =>
      streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document).slice(0, -1)), {
        ending: 'close',
      }),
    );
    expect(said(await gather(source.delta(null, never)))).toEqual(truthOf(volume));
    expect(agent.asks).toHaveLength(1);
  });

  it('stays cancelled when the caller aborts between two attempts', async () => {
    const controller = new AbortController();
    const { source } = await setup(volume, () => {
      controller.abort(new Error('enough'));
      return { status: 503 };
    });
    await expect(gather(source.delta(null, controller.signal))).rejects.toMatchObject({ code: 'cancelled' });
  });
});

describe('a lie', () => {
  const volume = scriptedVolume();
  const lies: Record<string, (frames: ScriptedFrame[]) => ScriptedFrame[]> = {
    'a missing range': (frames) => frames.toSpliced(2, 1),
    'a missing first range': (frames) => frames.toSpliced(1, 1),
    'a missing last range': (frames) => frames.toSpliced(-2, 1),
    'a range twice': (frames) => frames.toSpliced(2, 0, ...frames.slice(2, 3)),
    'ranges in the wrong order': (frames) => frames.toSpliced(2, 2, ...frames.slice(2, 4).toReversed()),
    'an overlapping range': (frames) => frames.toSpliced(3, 0, { type: 'zero', offset: 4096, length: 8192 }),
    'a range off the block boundary': (frames) =>
      replaceAt(frames, 4, { type: 'zero', offset: 7 * 4096 + 512, length: 4096 }),
    'a range that ends inside a block': (frames) =>
      frames.toSpliced(4, 1, { type: 'zero', offset: 7 * 4096, length: 5000 }),
    'a range beyond the end': (frames) =>
      frames.toSpliced(-1, 0, { type: 'zero', offset: 41 * 4096, length: 4096 }),
    'no plan': (frames) => frames.slice(1),
    'two plans': (frames) => [...frames.slice(0, 1), ...frames],
    'a plan for another length': (frames) => replaceAt(frames, 0, { length: 4096 }),
    'a plan that is not one': (frames) => replaceAt(frames, 0, { document: { method: 'magic' } }),
    'totals of too many data bytes': (frames) =>
      replaceAt(frames, frames.length - 1, {
        document: {
          ...documentOf(frames.at(-1)),
          data_bytes: 1 + (documentOf(frames.at(-1))['data_bytes'] ?? 0),
        },
      }),
    'totals of too few zero bytes': (frames) =>
      replaceAt(frames, frames.length - 1, { document: { ...documentOf(frames.at(-1)), zero_bytes: 0 } }),
    'totals of no digests': (frames) =>
      replaceAt(frames, frames.length - 1, { document: { ...documentOf(frames.at(-1)), digests: 0 } }),
    'totals in the middle': (frames) => frames.toSpliced(3, 0, ...frames.slice(-1)),
    'a frame after the totals': (frames) => [...frames, { type: 'idle', offset: 0, length: 0 }],
    'a digest too few': (frames) =>
      replaceAt(frames, firstData(frames), {
        digests: frames[firstData(frames)]?.digests?.subarray(32) ?? Buffer.alloc(0),
      }),
    'a digest too many': (frames) =>
      replaceAt(frames, firstData(frames), {
        digests: Buffer.concat([Buffer.alloc(32, 7), frames[firstData(frames)]?.digests ?? Buffer.alloc(0)]),
      }),
    'digests instead of data': (frames) =>
      frames.map((frame) =>
        frame.type === 'data' ? { ...frame, type: 'digests', data: Buffer.alloc(0) } : frame,
      ),
    'an empty range': (frames) => frames.toSpliced(3, 0, { type: 'zero', offset: 6 * 4096, length: 0 }),
  };

  for (const [name, bend] of Object.entries(lies)) {
    it(`of ${name} is corrupt and not tried again`, async () => {
      const { source, agent } = await setup(volume, bent(volume, bend));
      await expect(gather(source.delta(null, never))).rejects.toMatchObject({
        code: 'corrupt',
        retryable: false,
      });
      expect(agent.asks).toHaveLength(1);
    });
  }

  it('is found before the frame that holds it is handed on', async () => {
    const { source } = await setup(
      volume,
      bent(volume, (frames) => frames.toSpliced(2, 1)),
    );
    let last = 0;
    await expect(async () => {
      for await (const event of source.delta(null, never)) {
        if (event.kind === 'data' || event.kind === 'zero') last = event.offset + event.length;
      }
    }).rejects.toMatchObject({ code: 'corrupt' });
    expect(last).toBe(3 * 4096);
  });

  it('of any flipped byte ends in an error', async () => {
    const random = createRandom();
    const body = encodeFrames(honestFrames(volume, 'delta'));
    const places = [
      ...Array.from({ length: 50 }, (_, at) => at),
      ...Array.from({ length: 100 }, () => random.between(0, body.length - 1)),
    ];
    let place = 0;
    const { source } = await setup(volume, () => {
      const changed = Buffer.from(body);
      changed[place] = (changed[place] ?? 0) ^ (1 << random.between(0, 7));
      return streamReply(changed);
    });
    for (place of places) {
      await expect(gather(source.delta(null, never)), `byte ${place}`).rejects.toMatchObject({
        code: expect.stringMatching(/^(corrupt|agent-unavailable)$/),
      });
    }
  });

  it('of swapped bytes inside a frame is found by its checksum', async () => {
    const { source } = await setup(volume, () => {
      const frames = honestFrames(volume, 'delta').map(encodeScripted);
      const target = frames[1] ?? Buffer.alloc(0);
      const [a, b] = [target.readUInt32LE(500), target.readUInt32LE(8000)];
      target.writeUInt32LE(b, 500);
      target.writeUInt32LE(a, 8000);
      return streamReply(Buffer.concat([Buffer.from('CDSTRM\u0001\n', 'latin1'), ...frames]));
    });
    await expect(gather(source.delta(null, never))).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('of bytes after the totals is corrupt', async () => {
    const { source } = await setup(volume, () =>
      streamReply(Buffer.concat([encodeFrames(honestFrames(volume, 'delta')), Buffer.from('x')])),
    );
    await expect(gather(source.delta(null, never))).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('about digests is corrupt where a gap is left', async () => {
    const { source } = await setup(
      volume,
      bent(volume, (frames) => frames.toSpliced(3, 1)),
    );
    await expect(gather(source.digests(never))).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('about digests is corrupt where data comes', async () => {
    const { source } = await setup(volume, () => streamReply(encodeFrames(honestFrames(volume, 'delta'))));
    await expect(gather(source.digests(never))).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('about named blocks is corrupt where another block comes', async () => {
    const { source } = await setup(volume, () =>
      streamReply(encodeFrames(honestFrames(volume, 'blocks', { ranges: [[8192, 4096]] }))),
    );
    await expect(gather(source.blocks([{ offset: 4096, length: 4096 }], never))).rejects.toMatchObject({
      code: 'corrupt',
    });
  });

  it('about named blocks is corrupt where more comes than was asked for', async () => {
    const { source } = await setup(volume, () =>
      streamReply(encodeFrames(honestFrames(volume, 'blocks', { ranges: [[4096, 8192]] }))),
    );
    await expect(gather(source.blocks([{ offset: 4096, length: 4096 }], never))).rejects.toMatchObject({
      code: 'corrupt',
    });
  });

  it('about named blocks is corrupt where one is left out', async () => {
    const { source } = await setup(volume, () =>
      streamReply(encodeFrames(honestFrames(volume, 'blocks', { ranges: [[4096, 4096]] }))),
    );
    const ranges = [4096, 16384].map((offset) => ({ offset, length: 4096 }));
    await expect(gather(source.blocks(ranges, never))).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('of always ending early ends as agent-unavailable', async () => {
    const { source } = await setup(volume, (ask) =>
      streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document).slice(0, 1))),
    );
    await expect(gather(source.delta(previous, never))).rejects.toMatchObject({ code: 'agent-unavailable' });
  });
});

describe('a refusal', () => {
  const volume = scriptedVolume();

  it('in an error frame has the code of the agent', async () => {
    const document = { code: 'store-full', message: 'no room for the copy' };
    const { source, agent } = await setup(
      volume,
      bent(volume, (frames) => [...frames.slice(0, 3), { type: 'error', offset: 0, length: 0, document }]),
    );
    await expect(gather(source.delta(null, never))).rejects.toMatchObject({
      code: 'store-full',
      message: expect.stringContaining('no room for the copy'),
    });
    expect(agent.asks).toHaveLength(1);
  });

  it('with a code that we do not know is agent-failed', async () => {
    const document = { code: 'on-fire', message: 'help' };
    const { source } = await setup(
      volume,
      bent(volume, () => [{ type: 'error', offset: 0, length: 0, document }]),
    );
    await expect(gather(source.delta(null, never))).rejects.toMatchObject({
      code: 'agent-failed',
      details: { agentCode: 'on-fire' },
    });
  });

  it('before the stream has the code of the answer and is not tried again', async () => {
    const { source, agent } = await setup(volume, () =>
      jsonReply(
        { error: { code: 'delta-unavailable', message: 'the previous snapshot is another one' } },
        409,
      ),
    );
    await expect(gather(source.delta(previous, never))).rejects.toMatchObject({ code: 'delta-unavailable' });
    expect(agent.asks).toHaveLength(1);
  });

  it('of a proxy without an agent behind it is tried again', async () => {
    const { source, agent } = await setup(volume, (ask, index) =>
      index === 0
        ? { status: 503, headers: { 'content-type': 'text/html' }, body: '<h1>Service Unavailable</h1>' }
        : streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document))),
    );
    expect(said(await gather(source.delta(null, never)))).toEqual(truthOf(volume));
    expect(agent.asks).toHaveLength(2);
  });

  it('in HTML with status 200 is agent-failed', async () => {
    const { source } = await setup(volume, () => ({
      headers: { 'content-type': 'text/html' },
      body: '<html>Welcome</html>',
    }));
    await expect(gather(source.delta(null, never))).rejects.toMatchObject({
      code: 'agent-failed',
      message: expect.stringContaining('text/html'),
    });
  });
});

describe('leaving', () => {
  it('a stream early closes its connection', async () => {
    const volume = scriptedVolume();
    const { source, agent } = await setup(volume, (ask) =>
      streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document)), {
        cutAt: 30_000,
        ending: 'stall',
      }),
    );
    for await (const event of source.delta(null, never)) if (event.kind === 'data') break;
    await expect.poll(() => agent.openSockets()).toBe(0);
  });

  it('by abort ends a stream that stands still as cancelled', async () => {
    const volume = scriptedVolume();
    const controller = new AbortController();
    const { source, agent } = await setup(volume, (ask) =>
      streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document)), {
        cutAt: 30_000,
        ending: 'stall',
      }),
    );
    await expect(async () => {
      for await (const event of source.delta(null, controller.signal)) {
        if (event.kind === 'data') setImmediate(() => controller.abort());
      }
    }).rejects.toMatchObject({ code: 'cancelled' });
    await expect.poll(() => agent.openSockets()).toBe(0);
  });

  it('by close leaves no socket open after a whole stream', async () => {
    const volume = scriptedVolume();
    const { source, agent, client } = await setup(
      volume,
      bent(volume, (frames) => frames),
    );
    await gather(source.delta(null, never));
    expect(agent.openSockets()).toBe(1);
    await client.close();
    await expect.poll(() => agent.openSockets()).toBe(0);
  });
});
