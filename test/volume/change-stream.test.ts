import { describe, expect, it } from 'vitest';
import { gather, truthOf } from '../support/change-events.ts';
import {
  encodeFrames,
  encodeScripted,
  honestFrames,
  jsonReply,
  rangesOf,
  scriptedDelta,
  scriptedVolume,
  streamReply,
  type ScriptedFrame,
  type ScriptedVolume,
} from '../support/fake-agent.ts';
import { createRandom } from '../support/random-volume.ts';
import {
  bent,
  honest,
  kindOf,
  never,
  openScriptedSource,
  previous,
  said,
  snapshot,
  snapshotIdentity,
} from '../support/scripted-source.ts';

describe('a whole stream', () => {
  it('gives the changes between two snapshots with their digests', async () => {
    const volume = scriptedDelta();
    const { source, agent } = await openScriptedSource(volume, honest(volume));
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
        current_identity: snapshotIdentity,
        merge_gap: 0,
      },
    ]);
  });

  it('is asked of one snapshot and no other of that name', async () => {
    const volume = scriptedVolume();
    const { source, agent } = await openScriptedSource(volume, honest(volume));
    await gather(source.delta(null, never));
    await gather(source.digests(never));
    await gather(source.blocks(rangesOf(volume.extents), never));
    expect(agent.asks.map((ask) => ask.document['current_identity'])).toEqual([
      snapshotIdentity,
      snapshotIdentity,
      snapshotIdentity,
    ]);
  });

  it('has one plan, and totals that count what was handed on', async () => {
    const volume = scriptedVolume();
    const { source } = await openScriptedSource(volume, honest(volume));
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
    const { source } = await openScriptedSource(volume, honest(volume));
    const gathered = await gather(source.digests(never));
    expect(said(gathered)).toEqual({ ...truthOf(volume), data: Buffer.alloc(0) });
  });

  it('passes over idle frames wherever they stand', async () => {
    const volume = scriptedDelta();
    const idle: ScriptedFrame = { type: 'idle', offset: 0, length: 0 };
    const { source } = await openScriptedSource(
      volume,
      bent(volume, (frames) => frames.flatMap((frame) => [idle, frame])),
    );
    expect(said(await gather(source.delta(previous, never)))).toEqual(truthOf(volume));
  });

  it('gives nothing but plan and totals when nothing changed', async () => {
    const volume = { ...scriptedVolume(), extents: [] };
    const { source } = await openScriptedSource(volume, honest(volume));
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
    const { source, agent } = await openScriptedSource(volume, honest(volume));
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
    const { source, agent } = await openScriptedSource(volume, honest(volume));
    await gather(source.blocks(rangesOf(volume.extents), never));
    expect(agent.asks[0]?.document['ranges']).toEqual([[0, volume.lengthBytes]]);
  });

  it('asks nothing for no ranges', async () => {
    const { source, agent } = await openScriptedSource(scriptedVolume(), () => jsonReply({}));
    const gathered = await gather(source.blocks([], never));
    expect(gathered.totals).toEqual([{ data_bytes: 0, zero_bytes: 0, digests: 0, read_bytes: 0 }]);
    expect(agent.asks).toHaveLength(0);
  });

  it('asks again only for what is left after a cut', async () => {
    const volume = scriptedVolume();
    const ranges = [1, 4, 14, 22, 36].map((block) => ({ offset: block * 4096, length: 2 * 4096 }));
    const { source, agent } = await openScriptedSource(volume, (ask, index) => {
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
      const { source } = await openScriptedSource(volume, (ask) => {
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
    const { source, agent } = await openScriptedSource(
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
    const { source, warnings } = await openScriptedSource(
      volume,
      (ask, index) => {
        const body = encodeFrames(honestFrames(volume, kindOf(ask), ask.document));
        return index === 0 ? streamReply(body, { cutAt: 2000, ending: 'stall' }) : streamReply(body);
      },
      { idleTimeoutMs: 500, attempts: 6 },
    );
    expect(said(await gather(source.delta(null, never)))).toEqual(truthOf(volume));
    expect(warnings()).toHaveLength(1);
  });

  it('goes on after an error of the agent that may pass', async () => {
    const { source } = await openScriptedSource(volume, (ask, index) => {
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

  it('goes on where the agent had announced that it closes the connection', async () => {
    const { source, agent } = await openScriptedSource(volume, (ask, index) => {
      const reply = streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document)));
      const headers = { ...reply.headers, connection: 'close' };
      return index === 0 ? { ...reply, headers, cutAt: 2000, ending: 'close' } : { ...reply, headers };
    });
    expect(said(await gather(source.delta(null, never)))).toEqual(truthOf(volume));
    expect(agent.asks).toHaveLength(2);
  });

  it('logs each continuation as a warning with the offset', async () => {
    const { source, warnings } = await openScriptedSource(volume, (ask, index) => {
      const frames = honestFrames(volume, kindOf(ask), ask.document);
      return streamReply(encodeFrames(index === 0 ? frames.slice(0, 2) : frames));
    });
    await gather(source.delta(null, never));
    const [warning] = warnings().map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(warning).toMatchObject({ level: 'warn', startOffset: 1024, attempt: 1 });
  });

  it('is given up as agent-unavailable after the attempts without progress', async () => {
    const { source, agent } = await openScriptedSource(volume, (ask, index) => {
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

  const withoutTotals = (ask: Parameters<typeof kindOf>[0]) =>
    streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document).slice(0, -1)), {
      ending: 'close',
    });

  it('that lacks only the totals is asked for its last block again, and each byte is handed on once', async () => {
    const { source, agent } = await openScriptedSource(volume, (ask, index) =>
      index === 0
        ? withoutTotals(ask)
        : streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document))),
    );
    const gathered = await gather(source.delta(null, never));
    expect(said(gathered)).toEqual(truthOf(volume));
    expect(agent.asks.map(({ document }) => document['start_offset'])).toEqual([0, 4608]);
  });

  it('that never gets its totals is given up: nobody has said that the snapshot survived the reading', async () => {
    const { source, agent } = await openScriptedSource(volume, withoutTotals);
    await expect(gather(source.delta(null, never))).rejects.toMatchObject({
      code: 'agent-unavailable',
      message: expect.stringContaining('after 3 attempts'),
    });
    expect(agent.asks.length).toBeGreaterThanOrEqual(3);
  });

  it('stays cancelled when the caller aborts between two attempts', async () => {
    const controller = new AbortController();
    const { source } = await openScriptedSource(volume, () => {
      controller.abort(new Error('enough'));
      return { status: 503 };
    });
    await expect(gather(source.delta(null, controller.signal))).rejects.toMatchObject({ code: 'cancelled' });
  });
});

describe('backpressure', () => {
  it('holds the agent back while the caller is busy with an event', async () => {
    const mebibyte = 1024 * 1024;
    const volume: ScriptedVolume = {
      lengthBytes: 96 * mebibyte,
      blockSize: mebibyte,
      generation: 1,
      frameBytes: mebibyte,
      extents: [{ kind: 'data', offset: 0, length: 96 * mebibyte }],
    };
    let written = 0;
    const frames = honestFrames(volume, 'delta');
    const { source } = await openScriptedSource(volume, () =>
      streamReply(
        (async function* () {
          yield encodeFrames([]);
          for (const frame of frames) {
            yield encodeScripted(frame);
            written += 1;
          }
        })(),
      ),
    );
    let seen = 0;
    for await (const event of source.delta(null, never)) {
      if (event.kind !== 'data') continue;
      seen += 1;
      if (seen !== 3) continue;
      let before = -1;
      await expect
        .poll(
          () => {
            const still = written === before;
            before = written;
            return still;
          },
          { interval: 300, timeout: 15_000 },
        )
        .toBe(true);
      expect(written).toBeLessThan(48);
    }
    expect(seen).toBe(96);
  });
});

describe('leaving', () => {
  it('a stream early closes its connection', async () => {
    const volume = scriptedVolume();
    const { source, agent } = await openScriptedSource(
      volume,
      (ask) =>
        streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document)), {
          cutAt: 30_000,
          ending: 'stall',
        }),
      { idleTimeoutMs: 600_000 },
    );
    for await (const event of source.delta(null, never)) if (event.kind === 'data') break;
    await expect.poll(() => agent.openSockets(), { timeout: 15_000 }).toBe(0);
  });

  it('by abort ends a stream that stands still as cancelled', async () => {
    const volume = scriptedVolume();
    const controller = new AbortController();
    const { source, agent } = await openScriptedSource(
      volume,
      (ask) =>
        streamReply(encodeFrames(honestFrames(volume, kindOf(ask), ask.document)), {
          cutAt: 30_000,
          ending: 'stall',
        }),
      { idleTimeoutMs: 600_000 },
    );
    await expect(async () => {
      for await (const event of source.delta(null, controller.signal)) {
        if (event.kind === 'data') setImmediate(() => controller.abort());
      }
    }).rejects.toMatchObject({ code: 'cancelled' });
    await expect.poll(() => agent.openSockets(), { timeout: 15_000 }).toBe(0);
  });

  it('by close leaves no socket open after a whole stream', async () => {
    const volume = scriptedVolume();
    const { source, agent, client } = await openScriptedSource(volume, honest(volume));
    await gather(source.delta(null, never));
    expect(agent.openSockets()).toBe(1);
    await client.close();
    await expect.poll(() => agent.openSockets(), { timeout: 15_000 }).toBe(0);
  });
});
