/** Backups of an RBD volume through the agent's protocol and the pipeline, restored to other RBD volumes and compared. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { createAgent, type Agent } from '../../../src/agent/agent.ts';
import { createLogger } from '../../../src/log.ts';
import { totalLength } from '../../../src/model/extent.ts';
import { backupSnapshotName, volumeName } from '../../../src/model/names.ts';
import { createSealer, type Sealer } from '../../../src/pipeline/sealer.ts';
import { createAgentClient, type AgentClient } from '../../../src/volume/agent-client.ts';
import { startCeph, type CephCluster } from '../../support/ceph-cluster.ts';
import { createMemoryStore } from '../../support/memory-store.ts';
import { createPipelineRun, type PipelineRun } from '../../support/pipeline-run.ts';
import { createRandom, expectSameBytes, scatteredBlocks } from '../../support/random-volume.ts';
import { startRbdGuest, type RbdGuest } from '../../support/rbd-guest.ts';
import { createImage, openRbdBackend, resizeImage } from '../../support/rbd-volumes.ts';

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;
const blockSize = 32_768;
const { signal } = new AbortController();
const log = createLogger({ level: 'silent' });

let cluster: CephCluster;
let guest: RbdGuest;
let agent: Agent;
let client: AgentClient;
let sealer: Sealer;

beforeAll(async () => {
  cluster = await startCeph();
  guest = startRbdGuest(cluster);
  sealer = await createSealer({ threads: 2 });
  const backends = [await openRbdBackend(cluster)];
  agent = await createAgent({ backends, access: {}, host: '127.0.0.1', port: 0, log });
  client = createAgentClient({ url: agent.url, access: {}, log });
});
afterAll(async () => {
  await client.close();
  await agent.close();
  await sealer.close();
  await guest[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

function newRun(): PipelineRun {
  return createPipelineRun(createMemoryStore(), sealer, 256 * MiB);
}

async function takeSnapshot(volume: string) {
  return await client.createSnapshot('ceph', volume, backupSnapshotName(randomUUID(), 1), signal);
}

async function backup(
  run: PipelineRun,
  volume: string,
  options: {
    readonly mode: 'full' | 'compare' | 'delta';
    readonly previous?: { readonly name: string; readonly identity: string };
  },
) {
  const { name, identity, size_bytes: lengthBytes } = await takeSnapshot(volume);
  const source = client.source({
    backend: 'ceph',
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

async function restore(run: PipelineRun, volume: string, lengthBytes: number): Promise<void> {
  await run.restore(await client.target({ backend: 'ceph', volume, lengthBytes, signal }));
}

/** Throws, naming the first difference, unless another program exports the same bytes of both images or snapshots. */
async function expectSame(one: string, other: string): Promise<void> {
  const directory = await mkdtemp(join(cluster.directory, 'export-'));
  const paths = [join(directory, 'one'), join(directory, 'other')] as const;
  await cluster.rbd('export', '--no-progress', `volumes/${one}`, paths[0]);
  await cluster.rbd('export', '--no-progress', `volumes/${other}`, paths[1]);
  await expectSameBytes(...paths);
  await rm(directory, { recursive: true });
}

async function readFromOsd(): Promise<number> {
  const dump = await cluster.ceph('--admin-daemon', join(cluster.directory, 'osd.0.asok'), 'perf', 'dump');
  return z.object({ osd: z.object({ op_r_out_bytes: z.number() }) }).parse(JSON.parse(dump)).osd
    .op_r_out_bytes;
}

async function changedBytes(volume: string, from: string, to: string): Promise<number> {
  const told = await cluster.rbd('diff', `volumes/${volume}@${to}`, '--from-snap', from, '--format', 'json');
  return totalLength(z.array(z.object({ offset: z.number(), length: z.number() })).parse(JSON.parse(told)));
}

test('an increment of 1 % of 1 GiB reads from the OSD what changed and little more, and its restore is the volume', async () => {
  const random = createRandom();
  const volume = volumeName(randomUUID());
  await createImage(cluster, volume, GiB, { objectSize: '4M' });
  for (let offset = 0; offset < GiB; offset += 64 * MiB)
    await guest.ask({ do: 'write', name: volume, offset, length: 16 * MiB, generation: 1 });
  const run = newRun();
  const first = await backup(run, volume, { mode: 'full' });
  expect(first.progress.readBytes).toBeLessThanOrEqual(256 * MiB);

  const blocks = scatteredBlocks(random, { sizeBytes: GiB, blockBytes: blockSize, count: 328 });
  for (const { offset, length } of blocks)
    await guest.ask({ do: 'write', name: volume, offset, length, generation: 2 });
  const before = await readFromOsd();
  const second = await backup(run, volume, { mode: 'delta', previous: first.snapshot });
  const read = (await readFromOsd()) - before;
  const changed = await changedBytes(volume, first.snapshot.name, second.snapshot.name);
  console.info(
    `changed ${changed} bytes in ${blocks.length} blocks; read by the agent ${second.progress.readBytes}, told by the OSD ${read}`,
  );
  expect(second.progress.readBytes).toBeLessThanOrEqual(changed * 1.2);
  expect(read).toBeLessThanOrEqual(blocks.length * blockSize * 1.2);
  expect(second.progress.readBytes).toBeGreaterThanOrEqual(blocks.length * blockSize);

  const target = volumeName(randomUUID());
  await createImage(cluster, target, GiB, { objectSize: '4M' });
  await restore(run, target, GiB);
  await expectSame(`${volume}@${second.snapshot.name}`, target);
});

test('a chain of a clone that is in use, grows and is flattened is restored over other bytes', async () => {
  const random = createRandom();
  const parent = `image-${randomUUID()}`;
  const volume = volumeName(randomUUID());
  let size = 24 * MiB;
  await createImage(cluster, parent, size);
  await guest.ask({ do: 'write', name: parent, offset: 2 * MiB, length: 9 * MiB, generation: 1 });
  await guest.ask({ do: 'snapshot', name: parent, snapshot: 'snap', protect: true });
  await guest.ask({ do: 'clone', parent, snapshot: 'snap', name: volume, features: 61 });
  const run = newRun();
  const taken = [await backup(run, volume, { mode: 'full' })];
  for (let generation = 2; generation < 7; generation += 1) {
    for (let i = 0; i < 6; i += 1) {
      const offset = random.between(0, size / 512 - 1) * 512;
      const length = Math.min(size - offset, random.pick([4096, 65_536, 700_416]));
      if (random.chance(0.4)) await guest.ask({ do: 'discard', name: volume, offset, length });
      else await guest.ask({ do: 'write', name: volume, offset, length, generation });
    }
    if (generation === 3) {
      size += 5 * MiB + 512;
      await guest.ask({ do: 'resize', name: volume, size });
    }
    if (generation === 5) await guest.ask({ do: 'flatten', name: volume });
    const previous = taken.at(-1)?.snapshot;
    const mode = generation === 4 ? 'compare' : 'delta';
    taken.push(await backup(run, volume, previous === undefined ? { mode: 'full' } : { mode, previous }));
  }
  const target = volumeName(randomUUID());
  await createImage(cluster, target, size);
  await guest.ask({ do: 'write', name: target, offset: 0, length: 20 * MiB, generation: 99 });
  await guest.ask({ do: 'leave', name: target });
  await restore(run, target, size);
  await expectSame(`${volume}@${taken.at(-1)?.snapshot.name}`, target);
});

test('a restore gives back the space of zeros, and takes a volume that has room to spare', async () => {
  const volume = volumeName(randomUUID());
  await createImage(cluster, volume, 16 * MiB);
  await guest.ask({ do: 'write', name: volume, offset: MiB, length: MiB, generation: 1 });
  const run = newRun();
  await backup(run, volume, { mode: 'full' });
  const target = volumeName(randomUUID());
  await createImage(cluster, target, 20 * MiB);
  await guest.ask({ do: 'write', name: target, offset: 0, length: 16 * MiB, generation: 9 });
  await guest.ask({ do: 'leave', name: target });
  await restore(run, target, 20 * MiB);
  const told = await cluster.rbd('du', '--exact', `volumes/${target}`, '--format', 'json');
  expect(JSON.parse(told)).toMatchObject({ images: [{ used_size: MiB }] });
});

test('a volume that is too small for a restore is refused in plain words, and nothing is written', async () => {
  const volume = volumeName(randomUUID());
  await createImage(cluster, volume, 16 * MiB);
  await guest.ask({ do: 'write', name: volume, offset: 8 * MiB, length: 8 * MiB, generation: 1 });
  const run = newRun();
  await backup(run, volume, { mode: 'full' });
  const small = volumeName(randomUUID());
  await createImage(cluster, small, 12 * MiB);
  await expect(restore(run, small, 16 * MiB)).rejects.toMatchObject({
    code: 'message-invalid',
    message: expect.stringMatching(/12582912.*resize/s),
  });
  await resizeImage(cluster, small, 16 * MiB);
  await restore(run, small, 16 * MiB);
  await expectSame(volume, small);
});
