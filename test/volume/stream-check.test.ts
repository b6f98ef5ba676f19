import { describe, expect, it } from 'vitest';
import { createFrameDecoder, preamble, type Frame } from '../../src/protocol/frames.ts';
import { createStreamCheck, type StreamRules } from '../../src/volume/stream-check.ts';
import { gather, truthOf } from '../support/change-events.ts';
import {
  encodeFrames,
  encodeScripted,
  honestFrames,
  jsonReply,
  recounted,
  scriptedDelta,
  scriptedVolume,
  streamReply,
  type ScriptedFrame,
} from '../support/fake-agent.ts';
import { createRandom } from '../support/random-volume.ts';
import { bent, kindOf, never, openScriptedSource, previous, said } from '../support/scripted-source.ts';

const replaceAt = (frames: ScriptedFrame[], at: number, change: Partial<ScriptedFrame>): ScriptedFrame[] =>
  frames.map((frame, index) => (index === at ? { ...frame, ...change } : frame));
const documentOf = (frame: ScriptedFrame | undefined) => frame?.document as Record<string, number>;
const firstData = (frames: readonly ScriptedFrame[]) => frames.findIndex((frame) => frame.type === 'data');

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
      const { source, agent } = await openScriptedSource(volume, bent(volume, bend));
      await expect(gather(source.delta(null, never))).rejects.toMatchObject({
        code: 'corrupt',
        retryable: false,
      });
      expect(agent.asks).toHaveLength(1);
    });
  }

  const increment = scriptedDelta();
  const shortened: Record<string, (frames: ScriptedFrame[]) => ScriptedFrame[]> = {
    'a changed range left out': (frames) => recounted(frames.toSpliced(2, 1)),
    'an early end': (frames) => recounted(frames.toSpliced(3, frames.length - 4)),
    'nothing at all': (frames) => recounted(frames.toSpliced(1, frames.length - 2)),
    'a range more than was planned': (frames) =>
      recounted(frames.toSpliced(1, 0, { type: 'zero', offset: 0, length: 4096 })),
  };
  for (const [name, bend] of Object.entries(shortened)) {
    it(`about changes of ${name} is corrupt, though its totals are right`, async () => {
      const { source, agent } = await openScriptedSource(increment, bent(increment, bend));
      await expect(gather(source.delta(previous, never))).rejects.toMatchObject({
        code: 'corrupt',
        message: expect.stringMatching(/planned \d+ bytes/),
      });
      expect(agent.asks).toHaveLength(1);
    });

    it(`about changes of ${name} is corrupt in the second part of a cut stream`, async () => {
      const { source } = await openScriptedSource(increment, (ask, index) => {
        const frames = honestFrames(increment, kindOf(ask), ask.document);
        return index === 0
          ? streamReply(encodeFrames(frames.slice(0, 2)), { ending: 'close' })
          : streamReply(encodeFrames(bend(frames)));
      });
      await expect(gather(source.delta(previous, never))).rejects.toMatchObject({ code: 'corrupt' });
    });
  }

  it('is none where planned data turns out to be zeros, or where nothing was planned', async () => {
    const planned = (document: Record<string, unknown>) => (frames: ScriptedFrame[]) =>
      replaceAt(frames, 0, { document: { ...documentOf(frames[0]), ...document } });
    const frames = honestFrames(increment, 'delta');
    const { data_bytes: data = 0, zero_bytes: zeros = 0 } = documentOf(frames[0]);
    for (const document of [{ data_bytes: data + zeros, zero_bytes: 0 }, { data_bytes: null }]) {
      const { source } = await openScriptedSource(increment, bent(increment, planned(document)));
      expect(said(await gather(source.delta(previous, never)))).toEqual(truthOf(increment));
    }
  });

  it('is found before the frame that holds it is handed on', async () => {
    const { source } = await openScriptedSource(
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
    const { source } = await openScriptedSource(volume, () => {
      const changed = Buffer.from(body);
      changed[place] = (changed[place] ?? 0) ^ (1 << random.between(0, 7));
      return streamReply(changed);
    });
    for (place of places) {
      await expect(
        gather(source.delta(null, never), volume.blockSize),
        `byte ${place}`,
      ).rejects.toMatchObject({
        code: expect.stringMatching(/^(corrupt|version-unsupported|agent-unavailable)$/),
      });
    }
  });

  it.each([
    { where: 'its digests', by: 'its checksum', at: [40, 52], message: /checksum of the data frame/ },
    { where: 'its data', by: 'the digests', at: [500, 8000], message: /do not match their digests/ },
  ])('of swapped bytes in $where is found by $by', async ({ at: [first = 0, second = 0], message }) => {
    const { source } = await openScriptedSource(volume, () => {
      const frames = honestFrames(volume, 'delta').map(encodeScripted);
      const target = frames[1] ?? Buffer.alloc(0);
      const [a, b] = [target.readUInt32LE(first), target.readUInt32LE(second)];
      target.writeUInt32LE(b, first);
      target.writeUInt32LE(a, second);
      return streamReply(Buffer.concat([preamble, ...frames]));
    });
    const gathered = gather(source.delta(null, never), volume.blockSize);
    await expect(gathered).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringMatching(message),
    });
  });

  it('of bytes after the totals is corrupt', async () => {
    const { source } = await openScriptedSource(volume, () =>
      streamReply(Buffer.concat([encodeFrames(honestFrames(volume, 'delta')), Buffer.from('x')])),
    );
    await expect(gather(source.delta(null, never))).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('about digests is corrupt where a gap is left', async () => {
    const { source } = await openScriptedSource(
      volume,
      bent(volume, (frames) => frames.toSpliced(3, 1)),
    );
    await expect(gather(source.digests(never))).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('about digests is corrupt where data comes', async () => {
    const { source } = await openScriptedSource(volume, () =>
      streamReply(encodeFrames(honestFrames(volume, 'delta'))),
    );
    await expect(gather(source.digests(never))).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('about named blocks is corrupt where another block comes', async () => {
    const { source } = await openScriptedSource(volume, () =>
      streamReply(encodeFrames(honestFrames(volume, 'blocks', { ranges: [[8192, 4096]] }))),
    );
    await expect(gather(source.blocks([{ offset: 4096, length: 4096 }], never))).rejects.toMatchObject({
      code: 'corrupt',
    });
  });

  it('about named blocks is corrupt where more comes than was asked for', async () => {
    const { source } = await openScriptedSource(volume, () =>
      streamReply(encodeFrames(honestFrames(volume, 'blocks', { ranges: [[4096, 8192]] }))),
    );
    await expect(gather(source.blocks([{ offset: 4096, length: 4096 }], never))).rejects.toMatchObject({
      code: 'corrupt',
    });
  });

  it('about named blocks is corrupt where one is left out', async () => {
    const { source } = await openScriptedSource(volume, () =>
      streamReply(encodeFrames(honestFrames(volume, 'blocks', { ranges: [[4096, 4096]] }))),
    );
    const ranges = [4096, 16384].map((offset) => ({ offset, length: 4096 }));
    await expect(gather(source.blocks(ranges, never))).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('of always ending early ends as agent-unavailable', async () => {
    const { source } = await openScriptedSource(volume, (ask) =>
      streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document).slice(0, 1))),
    );
    await expect(gather(source.delta(previous, never))).rejects.toMatchObject({ code: 'agent-unavailable' });
  });
});

describe('a refusal', () => {
  const volume = scriptedVolume();

  it('in an error frame has the code of the agent', async () => {
    const document = { code: 'store-full', message: 'no room for the copy' };
    const { source, agent } = await openScriptedSource(
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
    const { source } = await openScriptedSource(
      volume,
      bent(volume, () => [{ type: 'error', offset: 0, length: 0, document }]),
    );
    await expect(gather(source.delta(null, never))).rejects.toMatchObject({
      code: 'agent-failed',
      details: { agentCode: 'on-fire' },
    });
  });

  it('before the stream has the code of the answer and is not tried again', async () => {
    const { source, agent } = await openScriptedSource(volume, () =>
      jsonReply(
        { error: { code: 'delta-unavailable', message: 'the previous snapshot is another one' } },
        409,
      ),
    );
    await expect(gather(source.delta(previous, never))).rejects.toMatchObject({ code: 'delta-unavailable' });
    expect(agent.asks).toHaveLength(1);
  });

  it('of a proxy without an agent behind it is tried again', async () => {
    const { source, agent } = await openScriptedSource(volume, (ask, index) =>
      index === 0
        ? { status: 503, headers: { 'content-type': 'text/html' }, body: '<h1>Service Unavailable</h1>' }
        : streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document))),
    );
    expect(said(await gather(source.delta(null, never)))).toEqual(truthOf(volume));
    expect(agent.asks).toHaveLength(2);
  });

  it('in HTML with status 200 is agent-failed', async () => {
    const { source } = await openScriptedSource(volume, () => ({
      headers: { 'content-type': 'text/html' },
      body: '<html>Welcome</html>',
    }));
    await expect(gather(source.delta(null, never))).rejects.toMatchObject({
      code: 'agent-failed',
      message: expect.stringContaining('text/html'),
    });
  });
});

const zero = (from: number, length: number) => ({ type: 'zero', offset: from, length }) as const;
const digests = (offset: number, length: number, count: number) =>
  ({ type: 'digests', offset, length, digests: Buffer.alloc(32 * count, 1) }) as const;

describe('the check alone', () => {
  const blockSize = 4096;
  const rules: StreamRules = {
    what: 'delta',
    lengthBytes: 10 * blockSize + 100,
    blockSize,
    startOffset: 0,
    carries: 'changes',
    cover: null,
  };
  const broken: [string, Partial<StreamRules>, ScriptedFrame[]][] = [
    ['a range below the one before', {}, [zero(8192, 4096), zero(4096, 4096)]],
    ['a range that overlaps the one before', {}, [zero(8192, 8192), zero(12288, 4096)]],
    ['a range below the start offset', { startOffset: 8192 }, [zero(4096, 4096)]],
    ['a range that begins behind the end', {}, [zero(11 * blockSize, 4096)]],
    ['a range that reaches over the end', {}, [zero(10 * blockSize, 4096)]],
    ['a range that begins inside a block', {}, [zero(512, 4096 - 512)]],
    ['a range that ends inside a block', {}, [zero(0, 512)]],
    ['one digest for two blocks', { carries: 'digests' }, [digests(0, 8192, 1)]],
    ['two digests for the short last block', { carries: 'digests' }, [digests(10 * blockSize, 100, 2)]],
    ['digests where data is wanted', {}, [digests(0, 4096, 1)]],
    ['a gap in what has to be covered', { cover: [{ offset: 0, length: 8192 }] }, [zero(4096, 4096)]],
    ['more than has to be covered', { cover: [{ offset: 4096, length: 4096 }] }, [zero(4096, 8192)]],
    [
      'something after all is covered',
      { cover: [{ offset: 0, length: 4096 }] },
      [zero(0, 4096), zero(4096, 4096)],
    ],
  ];

  for (const [name, changes, frames] of broken) {
    it(`throws at ${name}`, () => {
      const check = createStreamCheck({ ...rules, ...changes });
      const [plan] = honestFrames({ ...scriptedVolume(), ...rules, extents: [] }, 'delta');
      check.accept(frameOf(plan));
      for (const frame of frames.slice(0, -1)) check.accept(frameOf(frame));
      expect(() => check.accept(frameOf(frames.at(-1)))).toThrow(
        expect.objectContaining({ code: 'corrupt' }),
      );
    });
  }

  it('takes the short last block with one digest', () => {
    const check = createStreamCheck({ ...rules, carries: 'digests', startOffset: 10 * blockSize });
    const [plan] = honestFrames({ ...scriptedVolume(), ...rules, extents: [] }, 'delta');
    check.accept(frameOf(plan));
    check.accept(frameOf(digests(10 * blockSize, 100, 1)));
    expect(check.covered).toBe(true);
  });
});

/** A scripted frame as the decoder gives it. */
function frameOf(scripted: ScriptedFrame | undefined): Frame {
  const [frame] = scripted === undefined ? [] : createFrameDecoder().push(encodeFrames([scripted]));
  if (frame === undefined) throw new Error('no frame');
  return frame;
}
