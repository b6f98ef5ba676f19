import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { truncate } from 'node:fs/promises';
import http from 'node:http';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, test, vi } from 'vitest';
import { sendFrames, type FrameSource } from '../../src/agent/frame-stream.ts';
import { BackupError } from '../../src/model/errors.ts';
import { createFrameDecoder } from '../../src/protocol/frames.ts';
import {
  call,
  codeOf,
  openFilesBelow,
  snapshotOf,
  startAgent,
  stream,
  volumeOf,
  volumesPath,
  type RunningAgent,
} from '../support/running-agent.ts';
import { writePattern } from '../support/random-volume.ts';

const kibibyte = 1024;
const mebibyte = 1024 * 1024;
const patience = { timeout: 20_000 };

describe('streams that do not end well', () => {
  test('a snapshot that is cut under the stream ends in an error frame, never in totals', async () => {
    let cut: (() => Promise<void>) | undefined;
    const agent = await startAgent({
      wrap: (backend) => ({
        ...backend,
        findRanges: async (asked) => {
          const found = await backend.findRanges(asked);
          await cut?.();
          return found;
        },
      }),
    });
    try {
      const length = 64 * mebibyte;
      const volume = await volumeOf(agent, length);
      const current_snapshot = await snapshotOf(agent, volume);
      const path = join(agent.directory, '.snapshots', volume, current_snapshot);
      cut = () => truncate(path, 40 * mebibyte);
      const body = { previous_snapshot: null, current_snapshot, length, block_size: 32 * kibibyte };
      const kept = await stream(agent, volume, 'delta', body);
      expect(kept.totals).toBeUndefined();
      expect(kept.error).toMatchObject({ code: 'corrupt' });
      expect(kept.frames.at(-1)?.type).toBe('error');
    } finally {
      await agent.close();
    }
  });

  test('idle frames keep a stream alive while finding finds nothing', async () => {
    const gate = Promise.withResolvers<void>();
    const agent = await startAgent({
      idleMs: 5,
      wrap: (backend) => ({
        ...backend,
        findRanges: async () => ({
          method: 'bytes',
          reason: 'test',
          extents: (async function* () {
            yield { kind: 'data', offset: 0, length: mebibyte } as const;
            await gate.promise;
            yield { kind: 'data', offset: mebibyte, length: mebibyte } as const;
          })(),
          readBytes: () => 77,
          close: async () => {},
        }),
      }),
    });
    try {
      const volume = await volumeOf(agent, 2 * mebibyte);
      const current_snapshot = await snapshotOf(agent, volume);
      const body = { previous_snapshot: null, current_snapshot, length: 2 * mebibyte, block_size: 512 };
      const answer = await begin(agent, volume, body);
      const decoder = createFrameDecoder();
      const seen: string[] = [];
      for await (const piece of answer as AsyncIterable<Buffer>) {
        for (const { type, offset, data } of decoder.push(piece)) {
          seen.push(`${type} ${offset}`);
          if (type === 'idle' && seen.filter((line) => line.startsWith('idle')).length === 3) gate.resolve();
          if (type === 'totals')
            expect(JSON.parse(data.toString())).toMatchObject({ read_bytes: 2 * mebibyte + 77 });
        }
      }
      expect(seen.filter((line) => !line.startsWith('idle'))).toEqual([
        'plan 0',
        'data 0',
        `data ${mebibyte}`,
        'totals 0',
      ]);
    } finally {
      gate.resolve();
      await agent.close();
    }
  });

  test('a client that leaves in the middle sets free every file and every job', async () => {
    const agent = await startAgent();
    try {
      const length = 256 * mebibyte;
      const volume = await volumeOf(agent, length, [{ offset: 0, length: 128 * mebibyte }]);
      const previous_snapshot = await snapshotOf(agent, volume);
      await writePattern(join(agent.directory, volume), [{ offset: 0, length: 96 * mebibyte }], 2);
      const current_snapshot = await snapshotOf(agent, volume);
      const body = { current_snapshot, length, block_size: 32 * kibibyte };
      for (const previous of [null, previous_snapshot]) {
        const answer = await begin(agent, volume, { ...body, previous_snapshot: previous });
        await once(answer, 'readable');
        expect(await openFilesBelow(agent.directory)).toBeGreaterThan(0);
        answer.destroy();
        await vi.waitFor(async () => {
          expect(await openFilesBelow(agent.directory)).toBe(0);
          expect(agent.readers.pending).toBe(0);
        }, patience);
      }
    } finally {
      await agent.close();
    }
  });

  test('a client that leaves stops finding that finds nothing, and a snapshot that is being made', async () => {
    const signals: AbortSignal[] = [];
    const untilAborted = async (signal: AbortSignal): Promise<never> => {
      signals.push(signal);
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      throw signal.reason;
    };
    const agent = await startAgent({
      wrap: (backend) => ({
        ...backend,
        createSnapshot: (_volume, _snapshot, signal) => untilAborted(signal),
        findRanges: async ({ signal }) => ({
          method: 'bytes',
          reason: 'test',
          extents: (async function* () {
            yield await untilAborted(signal);
          })(),
          readBytes: () => 0,
          close: async () => {},
        }),
      }),
    });
    try {
      const volume = await volumeOf(agent, mebibyte, []);
      const current_snapshot = await snapshotOf(agent, volume);
      const body = { previous_snapshot: null, current_snapshot, length: mebibyte, block_size: 512 };
      const answer = await begin(agent, volume, body);
      const making = http.request(`${agent.url}${volumesPath(volume)}/snapshots`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
      });
      making.on('error', () => {});
      making.end(JSON.stringify({ name: current_snapshot }));
      await vi.waitFor(() => expect(signals.map(({ aborted }) => aborted)).toEqual([false, false]), patience);
      answer.destroy();
      making.destroy();
      await vi.waitFor(() => expect(signals.map(({ aborted }) => aborted)).toEqual([true, true]), patience);
      await vi.waitFor(async () => expect(await openFilesBelow(agent.directory)).toBe(0), patience);
    } finally {
      await agent.close();
    }
  });

  test('a client that does not read holds finding and reading back', async () => {
    let asked = 0;
    const pieces = 512;
    const agent = await startAgent({
      wrap: (backend) => ({
        ...backend,
        findRanges: async () => ({
          method: 'all',
          reason: 'test',
          extents: (async function* () {
            for (; asked < pieces; asked += 1) {
              yield { kind: 'data', offset: asked * mebibyte, length: mebibyte } as const;
            }
          })(),
          readBytes: () => 0,
          close: async () => {},
        }),
      }),
    });
    try {
      const length = pieces * mebibyte;
      const volume = await volumeOf(agent, length, []);
      await writePattern(join(agent.directory, volume), [{ offset: 0, length: 64 * mebibyte }], 1);
      const current_snapshot = await snapshotOf(agent, volume);
      const body = { previous_snapshot: null, current_snapshot, length, block_size: 32 * kibibyte };
      const answer = await begin(agent, volume, body);
      answer.pause();
      await once(answer, 'readable');
      let before = -1;
      await vi.waitFor(
        () => {
          const still = asked === before && agent.readers.pending === 0;
          before = asked;
          expect(still).toBe(true);
        },
        { ...patience, interval: 300 },
      );
      expect(asked).toBeLessThan(128);
      answer.destroy();
    } finally {
      await agent.close();
    }
  });

  test('streams beyond the limit are told to come again', async () => {
    const agent = await startAgent({ maxStreams: 1 });
    try {
      const length = 128 * mebibyte;
      const volume = await volumeOf(agent, length);
      const current_snapshot = await snapshotOf(agent, volume);
      const body = { previous_snapshot: null, current_snapshot, length, block_size: 32 * kibibyte };
      const answer = await begin(agent, volume, body);
      const second = await call(agent, 'POST', `${volumesPath(volume)}/delta`, body);
      expect([second.status, codeOf(second)]).toEqual([503, 'busy']);
      answer.destroy();
      await vi.waitFor(async () => {
        const third = await begin(agent, volume, body);
        third.destroy();
      }, patience);
    } finally {
      await agent.close();
    }
  });

  test('blocks have room of their own beside the streams: who compares asks for them in the middle of one', async () => {
    const agent = await startAgent({ maxStreams: 1 });
    try {
      const length = 128 * mebibyte;
      const volume = await volumeOf(agent, length);
      const snapshot = await snapshotOf(agent, volume);
      const common = { length, block_size: 32 * kibibyte };
      const delta = { ...common, previous_snapshot: null, current_snapshot: snapshot };
      const blocks = { ...common, snapshot, ranges: [[0, length]] };
      const held = [await begin(agent, volume, delta), await begin(agent, volume, blocks, 'blocks')];
      const second = await call(agent, 'POST', `${volumesPath(volume)}/blocks`, blocks);
      expect([second.status, codeOf(second)]).toEqual([503, 'busy']);
      for (const answer of held) answer.destroy();
    } finally {
      await agent.close();
    }
  });

  test('snapshots being made take no room from streams, and have a bound of their own', async () => {
    const gate = Promise.withResolvers<void>();
    const started: string[] = [];
    const agent = await startAgent({
      maxStreams: 1,
      maxSnapshots: 2,
      wrap: (backend) => ({
        ...backend,
        createSnapshot: async (volume, snapshot, signal) => {
          if (snapshot.startsWith('snapshot-')) {
            started.push(snapshot);
            await gate.promise;
          }
          return await backend.createSnapshot(volume, snapshot, signal);
        },
      }),
    });
    try {
      const length = mebibyte;
      const volume = await volumeOf(agent, length);
      const snapshot = await snapshotOf(agent, volume);
      const make = () =>
        call(agent, 'POST', `${volumesPath(volume)}/snapshots`, { name: `snapshot-${randomUUID()}` });
      const making = [make(), make()];
      await vi.waitFor(() => expect(started).toHaveLength(2), patience);
      const third = await make();
      expect([third.status, codeOf(third)]).toEqual([503, 'busy']);
      const body = { snapshot, length, block_size: 32 * kibibyte };
      expect((await stream(agent, volume, 'digests', body)).totals).toMatchObject({ data_bytes: length });
      gate.resolve();
      expect((await Promise.all(making)).map(({ status }) => status)).toEqual([200, 200]);
      expect((await make()).status).toBe(200);
    } finally {
      gate.resolve();
      await agent.close();
    }
  });

  test('closing the agent cuts streams without totals and leaves no file open', async () => {
    const agent = await startAgent();
    const length = 128 * mebibyte;
    const volume = await volumeOf(agent, length);
    const current_snapshot = await snapshotOf(agent, volume);
    const body = { previous_snapshot: null, current_snapshot, length, block_size: 32 * kibibyte };
    const answer = await begin(agent, volume, body);
    await once(answer, 'readable');
    const reading = readTypes(answer);
    await agent.close();
    expect(await reading).not.toContain('totals');
    expect(await openFilesBelow(agent.directory)).toBe(0);
  });
});

describe('a socket that never says what became of its bytes', () => {
  test.each([
    ['written', new Writable({ write() {} })],
    [
      'ended',
      new Writable({
        write: (_bytes, _encoding, done) => done(),
        final() {},
      }),
    ],
  ])('after it was %s keeps no stream once its client has left', async (_title, output) => {
    const controller = new AbortController();
    const outcome = Promise.allSettled([sendFrames(emptySource(), output, controller, 60_000)]);
    await setImmediate();
    controller.abort(new BackupError('cancelled', 'the client has gone away'));
    expect(await outcome).toMatchObject([{ reason: { code: 'cancelled' } }]);
  });
});

test('nothing follows the totals, also when the stream is cut while they leave', async () => {
  const decoder = createFrameDecoder();
  const types: string[] = [];
  const leaving = Promise.withResolvers<() => void>();
  const output = new Writable({
    write(bytes: Buffer, _encoding, done) {
      for (const { type } of decoder.push(bytes)) types.push(type);
      if (types.includes('totals')) leaving.resolve(done);
      else done();
    },
  });
  const controller = new AbortController();
  const outcome = Promise.allSettled([sendFrames(emptySource(), output, controller, 60_000)]);
  const go = await leaving.promise;
  controller.abort(new BackupError('cancelled', 'the agent is stopping'));
  await outcome;
  go();
  await finished(output);
  expect(types.at(-1)).toBe('totals');
});

function emptySource(): FrameSource {
  return {
    plan: { method: 'all', reason: 'test', data_bytes: 0, zero_bytes: 0 },
    lengthBytes: 512,
    startOffset: 0,
    pieces: (async function* () {})(),
    findingBytes: () => 0,
  };
}

async function readTypes(answer: http.IncomingMessage): Promise<string[]> {
  const decoder = createFrameDecoder();
  const types: string[] = [];
  try {
    for await (const piece of answer as AsyncIterable<Buffer>) {
      for (const { type } of decoder.push(piece)) types.push(type);
    }
  } catch {
    types.push('cut');
  }
  return types;
}

/** A stream that has begun: its body is not read yet. */
async function begin(
  agent: RunningAgent,
  volume: string,
  body: unknown,
  kind: 'delta' | 'blocks' = 'delta',
): Promise<http.IncomingMessage> {
  const outgoing = http.request(`${agent.url}${volumesPath(volume)}/${kind}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
  });
  outgoing.end(JSON.stringify(body));
  const [answer] = (await once(outgoing, 'response')) as [http.IncomingMessage];
  answer.on('error', () => {});
  expect(answer.statusCode).toBe(200);
  return answer;
}
