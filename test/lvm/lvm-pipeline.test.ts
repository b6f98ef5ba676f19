/** Backups of a thin volume through the agent's protocol and the pipeline, restored to another one and compared. */
import { randomUUID } from 'node:crypto';
import { open } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createAgent, type Agent } from '../../src/agent/agent.ts';
import { createLogger } from '../../src/log.ts';
import { backupSnapshotName, volumeName } from '../../src/model/names.ts';
import { createSealer, type Sealer } from '../../src/pipeline/sealer.ts';
import { createAgentClient, type AgentClient } from '../../src/volume/agent-client.ts';
import { createMemoryStore } from '../support/memory-store.ts';
import { createPipelineRun, type PipelineRun } from '../support/pipeline-run.ts';
import { createRandom, patternBytes, scatteredBlocks } from '../support/random-volume.ts';
import { chunkBytes, createThinPool, type ThinPool } from '../support/thin-volumes.ts';

const MiB = 1024 * 1024;
const blockSize = 32_768;
const sizeBytes = 256 * MiB;
const { signal } = new AbortController();
const log = createLogger({ level: 'silent' });

let pool: ThinPool;
let agent: Agent;
let client: AgentClient;
let sealer: Sealer;

beforeAll(async () => {
  pool = await createThinPool(2048 * MiB);
  sealer = await createSealer({ threads: 1 });
  agent = await createAgent({ backends: [await pool.open()], access: {}, host: '127.0.0.1', port: 0, log });
  client = createAgentClient({ url: agent.url, access: {}, log });
});
afterAll(async () => {
  await client.close();
  await agent.close();
  await sealer.close();
  await pool[Symbol.asyncDispose]();
});

/** As a guest would write, past the agent. */
async function write(volume: string, offset: number, bytes: Buffer): Promise<void> {
  const device = await open(`/dev/${pool.group}/${volume}`, 'r+');
  await device.write(bytes, 0, bytes.length, offset);
  await device.sync();
  await device.close();
}

async function readDevice(volume: string, lengthBytes: number): Promise<Buffer> {
  const device = await open(`/dev/${pool.group}/${volume}`);
  const bytes = Buffer.alloc(lengthBytes);
  for (let at = 0; at < lengthBytes;) at += (await device.read(bytes, at, lengthBytes - at, at)).bytesRead;
  await device.close();
  return bytes;
}

async function backup(
  run: PipelineRun,
  volume: string,
  options: {
    readonly mode: 'full' | 'compare' | 'delta';
    readonly previous?: { readonly name: string; readonly identity: string };
  },
) {
  const made = await client.createSnapshot('lvm', volume, backupSnapshotName(randomUUID(), 1), signal);
  const { name, identity, size_bytes: lengthBytes } = made;
  const source = client.source({
    backend: 'lvm',
    volume,
    snapshot: name,
    identity,
    lengthBytes,
    blockSize,
    mergeGapBytes: 0,
  });
  const { progress } = await run.backup({ ...options, source, objectBytes: 4 * MiB, codec: 'none' });
  return { snapshot: { name, identity }, progress };
}

async function restoreAndCompare(run: PipelineRun, volume: string, lengthBytes: number): Promise<void> {
  const target = volumeName(randomUUID());
  await pool.create(target, lengthBytes);
  await write(target, 100 * MiB, patternBytes(100 * MiB, 2 * MiB, 9));
  await run.restore(await client.target({ backend: 'lvm', volume: target, lengthBytes, signal }));
  const [one, other] = [await readDevice(volume, lengthBytes), await readDevice(target, lengthBytes)];
  expect(one.equals(other)).toBe(true);
  await pool.lvm('lvremove', '--yes', `${pool.group}/${target}`);
}

test('full, increments by mappings and by comparison, and their restores, of a volume that is in use and grows', async () => {
  const random = createRandom();
  const volume = volumeName(randomUUID());
  await pool.create(volume, sizeBytes);
  for (const at of [0, 64, 200]) await write(volume, at * MiB, patternBytes(at * MiB, 16 * MiB, 1));
  // A guest that has it open all the time.
  const guest = await open(`/dev/${pool.group}/${volume}`, 'r+');
  const run = createPipelineRun(createMemoryStore(), sealer, 128 * MiB);
  const first = await backup(run, volume, { mode: 'full' });
  expect(first.progress.readBytes).toBe(48 * MiB);

  const blocks = scatteredBlocks(random, { sizeBytes, blockBytes: blockSize, count: 80 });
  for (const { offset, length } of blocks) await write(volume, offset, patternBytes(offset, length, 2));
  const second = await backup(run, volume, { mode: 'delta', previous: first.snapshot });
  expect(second.progress.readBytes).toBeLessThanOrEqual(80 * chunkBytes);
  await restoreAndCompare(run, volume, sizeBytes);

  await pool.lvm(
    'blkdiscard',
    '--offset',
    `${64 * MiB}`,
    '--length',
    `${8 * MiB}`,
    `/dev/${pool.group}/${volume}`,
  );
  await pool.resize(volume, sizeBytes + 32 * MiB);
  await write(volume, sizeBytes + MiB, patternBytes(sizeBytes + MiB, MiB, 3));
  const third = await backup(run, volume, { mode: 'delta', previous: second.snapshot });
  expect(third.progress.readBytes).toBe(MiB);
  await restoreAndCompare(run, volume, sizeBytes + 32 * MiB);

  await write(volume, 5 * MiB, patternBytes(5 * MiB, blockSize, 4));
  await backup(run, volume, { mode: 'compare' });
  await restoreAndCompare(run, volume, sizeBytes + 32 * MiB);
  await guest.close();
});
