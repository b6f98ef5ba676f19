import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { BackupError } from '../../src/model/errors.ts';
import { compareChanges } from '../../src/pipeline/compare.ts';
import { createAgentClient } from '../../src/volume/agent-client.ts';
import { gather, truthOf } from '../support/change-events.ts';
import {
  blockDigests,
  encodeFrames,
  honestFrames,
  jsonReply,
  scriptedDelta,
  streamReply,
} from '../support/fake-agent.ts';
import { patternBytes } from '../support/random-volume.ts';
import { snapshotOf, startAgent, volumeOf } from '../support/running-agent.ts';
import { kindOf, never, openScriptedSource, previous, said } from '../support/scripted-source.ts';

const busy = jsonReply({ error: { code: 'busy', message: 'the agent serves 1 streams already' } }, 503);

test('a stream waits for a busy agent longer than its attempts, in its middle too', async () => {
  const volume = scriptedDelta();
  const { source, agent } = await openScriptedSource(
    volume,
    (ask, index) => {
      if (index !== 9 && index < 20) return busy;
      const frames = honestFrames(volume, kindOf(ask), ask.document);
      return index === 9
        ? streamReply(encodeFrames(frames.slice(0, 2)), { ending: 'close' })
        : streamReply(encodeFrames(frames));
    },
    { attempts: 2 },
  );
  expect(said(await gather(source.delta(previous, never)))).toEqual(truthOf(volume));
  expect(agent.asks).toHaveLength(21);
});

test('an agent that stays busy is given up in the end, and a stream that waits for it can be cancelled', async () => {
  const volume = scriptedDelta();
  const { source, agent } = await openScriptedSource(volume, () => busy, { mostBusyMs: 20 });
  await expect(gather(source.delta(previous, never))).rejects.toMatchObject({
    code: 'agent-unavailable',
    message: expect.stringContaining('serves 1 streams already'),
  });
  expect(agent.asks.length).toBeGreaterThan(5);
  const patient = await openScriptedSource(volume, () => busy, { mostBusyMs: 600_000 });
  const controller = new AbortController();
  const waiting = gather(patient.source.delta(previous, controller.signal));
  waiting.catch(() => undefined);
  await expect.poll(() => patient.agent.asks.length).toBeGreaterThan(5);
  controller.abort(new BackupError('cancelled', 'enough'));
  await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
});

test('a restore waits until the agent has room for it, and loses no byte', async () => {
  const lengthBytes = 8 * 1024 * 1024;
  const agent = await startAgent({ maxStreams: 1 });
  onTestFinished(() => agent.close());
  const lines: string[] = [];
  const client = createAgentClient({
    url: agent.url,
    access: {},
    log: createLogger({ level: 'warn', destination: { write: (line) => void lines.push(line) } }),
    retry: { attempts: 2, firstDelayMs: 1, maxDelayMs: 5 },
  });
  onTestFinished(() => client.close());
  const volumes = [randomUUID(), randomUUID()].map((id) => `volume-${id}`);
  for (const volume of volumes) await client.createVolume('files', volume, lengthBytes, never);
  const [first = '', second = ''] = volumes;
  const open = (volume: string, signal = never) =>
    client.target({ backend: 'files', volume, lengthBytes, signal });
  const holding = await open(first);
  await holding.writeData(0, patternBytes(0, 4096, 1));
  const cancelled = new AbortController();
  const given = open(second, cancelled.signal);
  given.catch(() => undefined);
  await expect.poll(() => lines.filter((line) => line.includes('busy')).length).toBeGreaterThan(5);
  cancelled.abort(new BackupError('cancelled', 'enough'));
  await expect(given).rejects.toMatchObject({ code: 'cancelled' });

  const opening = open(second);
  lines.length = 0;
  await expect.poll(() => lines.length).toBeGreaterThan(5);
  await holding.abort(new BackupError('cancelled', 'over'));
  const target = await opening;
  const bytes = patternBytes(0, lengthBytes, 2);
  await target.writeData(0, bytes);
  await target.finish();
  expect((await readFile(join(agent.directory, second))).equals(bytes)).toBe(true);
});

test('a comparison gets its blocks from an agent that serves one stream at a time', async () => {
  const blockSize = 512;
  const lengthBytes = 16 * 1024 * 1024;
  const first = 12 * 1024 * 1024;
  const { promise: blocksAsked, resolve: askBlocks } = Promise.withResolvers<void>();
  let opened = 0;
  const agent = await startAgent({
    maxStreams: 1,
    wrap: (backend) => ({
      ...backend,
      openSnapshot(volume, snapshot) {
        opened += 1;
        if (opened === 2) askBlocks();
        return backend.openSnapshot(volume, snapshot);
      },
      findRanges: async (asked) => ({
        ...(await backend.findRanges(asked)),
        extents: (async function* () {
          yield { kind: 'data', offset: 0, length: first } as const;
          await blocksAsked;
          yield { kind: 'data', offset: first, length: lengthBytes - first } as const;
        })(),
      }),
    }),
  });
  onTestFinished(async () => {
    askBlocks();
    await agent.close();
  });
  const client = createAgentClient({
    url: agent.url,
    access: {},
    log: createLogger({ level: 'silent' }),
    retry: { attempts: 2, firstDelayMs: 1, maxDelayMs: 5 },
    mostBusyMs: 500,
  });
  onTestFinished(() => client.close());
  const volume = await volumeOf(agent, lengthBytes);
  const snapshot = await snapshotOf(agent, volume);
  const [info] = await client.snapshots('files', volume, never);
  const identity = info?.identity ?? '';
  const of = { backend: 'files', volume, snapshot, identity, lengthBytes, blockSize, mergeGapBytes: 0 };
  const list = blockDigests(patternBytes(0, lengthBytes, 1), blockSize);
  // Every other block differs: more ranges than one batch may have, long before the digests end.
  for (let at = 0; at < list.length; at += 64) list[at] = (list[at] ?? 0) ^ 1;
  const changes = compareChanges(client.source(of), parentList(list), 0, () => undefined, never);
  const { data, totals } = await gather(changes, blockSize);
  expect(data.length).toBe(lengthBytes / 2);
  expect(totals).toMatchObject([{ data_bytes: lengthBytes / 2 }]);
});

async function* parentList(digests: Buffer): AsyncGenerator<Buffer> {
  yield digests;
}
