import { afterAll, beforeAll, expect, test } from 'vitest';
import { createSealer, type Sealer } from '../../src/pipeline/sealer.ts';
import {
  encodeFrames,
  honestFrames,
  recounted,
  scriptedDelta,
  scriptedVolume,
  streamReply,
  type ScriptedFrame,
} from '../support/fake-agent.ts';
import { createMemoryStore } from '../support/memory-store.ts';
import { createPipelineRun, testContainer } from '../support/pipeline-run.ts';
import { kindOf, openScriptedSource, previous } from '../support/scripted-source.ts';

let sealer: Sealer;
beforeAll(async () => {
  sealer = await createSealer({ threads: 1 });
});
afterAll(() => sealer.close());

test.each([
  ['leaves out a range', (frames: readonly ScriptedFrame[]) => recounted(frames.toSpliced(2, 1))],
  ['ends early', (frames: readonly ScriptedFrame[]) => recounted(frames.toSpliced(3, frames.length - 4))],
])('an increment whose agent %s, with totals to match, is no backup', async (_what, bend) => {
  const [whole, changes] = [scriptedVolume(), scriptedDelta()];
  const { source } = await openScriptedSource(whole, (ask) => {
    const isDelta = ask.document['previous_snapshot'] !== null;
    const frames = honestFrames(isDelta ? changes : whole, kindOf(ask), ask.document);
    return streamReply(encodeFrames(isDelta ? bend(frames) : frames));
  });
  const store = createMemoryStore();
  const run = createPipelineRun(store, sealer, 16 * 1024 * 1024);
  await run.backup({ source });
  await expect(run.backup({ source, mode: 'delta', previous })).rejects.toMatchObject({ code: 'corrupt' });
  const closing = Array.from(store.containers.get(testContainer)?.keys() ?? []).filter((key) =>
    /_(?:metadata|sha256file)$/.test(key),
  );
  expect(closing).toHaveLength(2);
  expect((await run.verify()).badRanges).toEqual([]);
});
