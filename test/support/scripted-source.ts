/** A block source whose agent is scripted: what the tests of change streams share. */
import { onTestFinished } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createAgentClient, type AgentClient } from '../../src/volume/agent-client.ts';
import type { BlockSource } from '../../src/volume/block-source.ts';
import type { Gathered } from './change-events.ts';
import {
  encodeFrames,
  honestFrames,
  startFakeAgent,
  streamReply,
  type AgentAsk,
  type AgentReply,
  type FakeAgent,
  type ScriptedFrame,
  type ScriptedVolume,
} from './fake-agent.ts';

export const snapshot = 'backup.aaaaaaaa-2222-4333-8444-555555555555.snap.1790000000';
export const snapshotIdentity = 'i-2';
export const previous = {
  name: 'backup.bbbbbbbb-2222-4333-8444-555555555555.snap.1780000000',
  identity: 'i-1',
};
export const never = new AbortController().signal;

type Setup = {
  readonly agent: FakeAgent;
  readonly client: AgentClient;
  readonly source: BlockSource;
  /** Lines logged at warn or above. */
  readonly warnings: () => string[];
};

/** A source over an agent that replies as told; both are closed when the test ends. */
export async function openScriptedSource(
  volume: ScriptedVolume,
  reply: (ask: AgentAsk, index: number) => AgentReply | Promise<AgentReply>,
  options: { attempts?: number; idleTimeoutMs?: number; mostBusyMs?: number } = {},
): Promise<Setup> {
  const agent = await startFakeAgent(reply);
  const lines: string[] = [];
  const client = createAgentClient({
    url: agent.url,
    access: {},
    log: createLogger({ level: 'warn', destination: { write: (line: string) => void lines.push(line) } }),
    retry: { attempts: options.attempts ?? 3, firstDelayMs: 1, maxDelayMs: 2 },
    idleTimeoutMs: options.idleTimeoutMs ?? 5_000,
    ...(options.mostBusyMs === undefined ? {} : { mostBusyMs: options.mostBusyMs }),
  });
  onTestFinished(async () => {
    await client.close();
    await agent.close();
  });
  const source = client.source({
    backend: 'lvm-1',
    volume: 'volume-11111111-2222-4333-8444-555555555555',
    snapshot,
    identity: snapshotIdentity,
    lengthBytes: volume.lengthBytes,
    blockSize: volume.blockSize,
    mergeGapBytes: 0,
  });
  return { agent, client, source, warnings: () => lines };
}

/** Which stream a request is for. */
export const kindOf = (ask: AgentAsk) =>
  ask.path.slice(ask.path.lastIndexOf('/') + 1) as 'delta' | 'digests' | 'blocks';

/** Replies with the honest stream after `bend` had its way with the frames. */
export const bent =
  (volume: ScriptedVolume, bend: (frames: ScriptedFrame[]) => ScriptedFrame[]) => (ask: AgentAsk) =>
    streamReply(encodeFrames(bend(honestFrames(volume, kindOf(ask), ask.document))));

export const honest = (volume: ScriptedVolume) => bent(volume, (frames) => frames);

/** What a stream said of the volume, for comparison with `truthOf`. */
export const said = ({ extents, data, digests }: Gathered) => ({ extents, data, digests });
