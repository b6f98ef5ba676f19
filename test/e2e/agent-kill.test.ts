/** The agent as a real process, killed in the middle of a stream, a snapshot and a restore, and started again. */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { backupSnapshotName, volumeName } from '../../src/model/names.ts';
import { createAgentClient, type AgentClient } from '../../src/volume/agent-client.ts';
import type { BlockSource } from '../../src/volume/block-source.ts';
import { freePort } from '../support/free-ports.ts';
import { makeVolumeFile, patternBytes } from '../support/random-volume.ts';

const MiB = 1024 * 1024;
const sizeBytes = 96 * MiB;
const blockSize = 32_768;
const cli = fileURLToPath(new URL('../../src/main/cli.ts', import.meta.url));
const volume = volumeName(randomUUID());
const { signal } = new AbortController();

let directory: string;
let port: number;
let agent: ChildProcess;
let client: AgentClient;

async function startAgent(): Promise<void> {
  const flags = ['--directory', directory, '--listen', `127.0.0.1:${port}`, '--log-level', 'error'];
  agent = spawn(process.execPath, [cli, 'agent', ...flags], { stdio: ['ignore', 'ignore', 'inherit'] });
  await client.backends(signal);
}

async function killAgent(): Promise<void> {
  const ended = once(agent, 'close');
  agent.kill('SIGKILL');
  await ended;
}

async function openSnapshot(of: string, lengthBytes: number): Promise<BlockSource> {
  const snapshot = backupSnapshotName(randomUUID(), 1);
  const { identity } = await client.createSnapshot('file', of, snapshot, signal);
  const request = { backend: 'file', volume: of, snapshot, identity, lengthBytes, blockSize };
  return client.source({ ...request, mergeGapBytes: 0 });
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-agent-'));
  await makeVolumeFile(join(directory, volume), { sizeBytes, generation: 7 });
  port = await freePort();
});
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});
beforeEach(async () => {
  client = createAgentClient({
    url: `http://127.0.0.1:${port}`,
    access: {},
    log: createLogger({ level: 'silent' }),
    retry: { attempts: 60, firstDelayMs: 50, maxDelayMs: 500 },
  });
  await startAgent();
});
afterEach(async () => {
  await killAgent();
  await client.close();
});

it('a stream whose agent is killed goes on where it was cut, and every byte is right', async () => {
  const source = await openSnapshot(volume, sizeBytes);
  let [covered, kills] = [0, 0];
  for await (const event of source.delta(null, signal)) {
    if (event.kind !== 'data') continue;
    expect(event.offset).toBe(covered);
    expect(event.bytes.equals(patternBytes(event.offset, event.length, 7))).toBe(true);
    covered += event.length;
    if (covered > (kills + 1) * 30 * MiB) {
      kills += 1;
      await killAgent();
      await startAgent();
    }
  }
  expect(covered).toBe(sizeBytes);
  expect(kills).toBeGreaterThanOrEqual(2);
});

it('a snapshot whose agent is killed is there or not, never by halves, and can be asked for again', async () => {
  for (const delayMs of [0, 20, 60, 120]) {
    const snapshot = backupSnapshotName(randomUUID(), 1);
    const asked = client.createSnapshot('file', volume, snapshot, signal);
    await sleep(delayMs);
    await killAgent();
    await startAgent();
    expect((await asked).size_bytes).toBe(sizeBytes);
    await client.deleteSnapshot('file', volume, snapshot, signal);
    const hidden = await readdir(join(directory, '.snapshots'), { recursive: true });
    expect(hidden.filter((name) => name.includes(snapshot) || name.includes('making'))).toEqual([]);
  }
});

it('a restore whose agent is killed is an error, and the volume can be restored to again', async () => {
  const lengthBytes = 8 * MiB;
  const target = volumeName(randomUUID());
  await client.createVolume('file', target, lengthBytes, signal);
  const restore = async (interrupt: () => Promise<void>) => {
    const open = await client.target({ backend: 'file', volume: target, lengthBytes, signal });
    await open.writeData(0, patternBytes(0, 4 * MiB, 9));
    await interrupt();
    await open.writeData(4 * MiB, patternBytes(4 * MiB, 4 * MiB, 9));
    await open.finish();
  };
  const failed = restore(async () => {
    await killAgent();
    await startAgent();
  });
  await expect(failed).rejects.toMatchObject({ code: 'agent-unavailable' });
  await restore(() => Promise.resolve());
  const source = await openSnapshot(target, lengthBytes);
  for await (const event of source.delta(null, signal)) {
    if (event.kind === 'data') {
      expect(event.bytes.equals(patternBytes(event.offset, event.length, 9))).toBe(true);
    }
  }
});
