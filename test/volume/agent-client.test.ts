/** Our client against the real agent over a directory of volumes. */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createAgent, type Agent } from '../../src/agent/agent.ts';
import { createFileBackend } from '../../src/agent/file-backend.ts';
import { createLogger } from '../../src/log.ts';
import type { TypedExtent } from '../../src/model/extent.ts';
import type { SnapshotInfo } from '../../src/protocol/calls.ts';
import { createAgentClient, type AgentClient } from '../../src/volume/agent-client.ts';
import { gather } from '../support/change-events.ts';
import { blockDigests } from '../support/fake-agent.ts';
import {
  createRandom,
  expectSameBytes,
  makeVolumeFile,
  patternBytes,
  punchHoles,
  scatteredBlocks,
  writePattern,
  writeZeros,
} from '../support/random-volume.ts';

const backend = 'files';
const volume = 'volume-11111111-2222-4333-8444-555555555555';
const other = 'volume-22222222-2222-4333-8444-555555555555';
const first = 'backup.aaaaaaaa-2222-4333-8444-555555555555.snap.1780000000';
const second = 'backup.bbbbbbbb-2222-4333-8444-555555555555.snap.1790000000';
const blockSize = 32768;
const sizeBytes = 200 * blockSize + 4096;
const token = 'open-sesame';
const never = new AbortController().signal;
const log = createLogger({ level: 'silent' });

let directory: string;
let agent: Agent;
let client: AgentClient;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-client-'));
  agent = await createAgent({
    backends: [await createFileBackend({ name: backend, directory, log })],
    access: { token },
    host: '127.0.0.1',
    port: 0,
    readerThreads: 1,
    log,
  });
  client = createAgentClient({
    url: agent.url,
    access: { token },
    log,
    retry: { attempts: 2, firstDelayMs: 1, maxDelayMs: 2 },
  });
});

afterEach(async () => {
  await client.close();
  await agent.close();
  await rm(directory, { recursive: true });
});

const take = (snapshot: string) => client.createSnapshot(backend, volume, snapshot, never);
const path = (name: string) => join(directory, name);
const source = (snapshot: SnapshotInfo, lengthBytes = snapshot.size_bytes) =>
  client.source({
    backend,
    volume,
    snapshot: snapshot.name,
    identity: snapshot.identity,
    lengthBytes,
    blockSize,
    mergeGapBytes: 0,
  });

async function bytesOf(
  name: string,
  extents: readonly { offset: number; length: number }[],
): Promise<Buffer> {
  const file = await open(path(name));
  try {
    const pieces: Buffer[] = [];
    for (const { offset, length } of extents) {
      const { buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
      pieces.push(buffer);
    }
    return Buffer.concat(pieces);
  } finally {
    await file.close();
  }
}

const dataOf = (extents: readonly TypedExtent[]) => extents.filter((extent) => extent.kind === 'data');

describe('calls', () => {
  it('list what is served', async () => {
    expect(await client.backends(never)).toMatchObject([{ name: backend, type: 'file', restore: true }]);
    expect(await client.listVolumes(backend, never)).toEqual({ volumes: [], gone: [] });
  });

  it('make, grow and show a volume', async () => {
    const made = await client.createVolume(backend, volume, blockSize, never);
    expect(made).toMatchObject({ name: volume, size_bytes: blockSize });
    await client.resizeVolume(backend, volume, 2 * blockSize, never);
    expect(await client.volume(backend, volume, never)).toMatchObject({
      name: volume,
      size_bytes: 2 * blockSize,
      identity: made.identity,
      snapshots: [],
    });
    expect((await client.listVolumes(backend, never)).volumes).toHaveLength(1);
  });

  it('make a snapshot once, and remove it more than once', async () => {
    await makeVolumeFile(path(volume), { sizeBytes });
    const made = await client.createSnapshot(backend, volume, first, never);
    expect(await client.createSnapshot(backend, volume, first, never)).toEqual(made);
    expect((await client.volume(backend, volume, never)).snapshots).toEqual([made]);
    await client.deleteSnapshot(backend, volume, first, never);
    await client.deleteSnapshot(backend, volume, first, never);
    expect((await client.volume(backend, volume, never)).snapshots).toEqual([]);
  });

  it('find and remove the snapshots of a volume that is gone', async () => {
    await makeVolumeFile(path(volume), { sizeBytes });
    const made = await client.createSnapshot(backend, volume, first, never);
    expect(await client.snapshots(backend, volume, never)).toEqual([made]);
    expect((await client.listVolumes(backend, never)).gone).toEqual([]);
    await rm(path(volume));
    expect(await client.listVolumes(backend, never)).toEqual({ volumes: [], gone: [volume] });
    expect(await client.snapshots(backend, volume, never)).toEqual([made]);
    await client.deleteSnapshot(backend, volume, first, never);
    expect(await client.snapshots(backend, volume, never)).toEqual([]);
    expect((await client.listVolumes(backend, never)).gone).toEqual([]);
  });

  it('tell an absent volume from an agent that cannot be reached', async () => {
    await expect(client.volume(backend, other, never)).rejects.toMatchObject({ code: 'not-found' });
    await expect(client.volume('elsewhere', other, never)).rejects.toMatchObject({ code: 'not-found' });
    await agent.close();
    await expect(client.volume(backend, other, never)).rejects.toMatchObject({ code: 'agent-unavailable' });
  });

  it('refuse names that could leave their path before they are sent', async () => {
    for (const name of ['volume-1', '../etc/passwd', `${volume}/..`, `${volume}?x`]) {
      await expect(client.volume(backend, name, never)).rejects.toMatchObject({ code: 'message-invalid' });
    }
    await expect(client.listVolumes('a/../b', never)).rejects.toMatchObject({ code: 'message-invalid' });
    await expect(client.createSnapshot(backend, volume, 'snapshot-1', never)).rejects.toMatchObject({
      code: 'message-invalid',
    });
  });

  it('are denied with the wrong token, and without one', async () => {
    for (const wrong of ['wrong', undefined]) {
      const stranger = createAgentClient({ url: agent.url, access: { token: wrong }, log });
      await expect(stranger.backends(never)).rejects.toMatchObject({ code: 'access-denied' });
      await stranger.close();
    }
  });

  it('end as cancelled when the caller aborts', async () => {
    await expect(client.backends(AbortSignal.abort())).rejects.toMatchObject({ code: 'cancelled' });
  });
});

describe('streams', () => {
  it('give everything of a sparse volume, holes as zeros', async () => {
    const extents = [
      { offset: 0, length: 20 * blockSize },
      { offset: 50 * blockSize, length: 3 * blockSize },
      { offset: 199 * blockSize, length: blockSize + 4096 },
    ];
    await makeVolumeFile(path(volume), { sizeBytes, extents });
    const now = await take(first);
    const gathered = await gather(source(now).delta(null, never));
    const bytes = await bytesOf(volume, dataOf(gathered.extents));
    expect(gathered.data.equals(bytes)).toBe(true);
    expect(gathered.digests.equals(blockDigests(bytes, blockSize))).toBe(true);
    expect(gathered.totals[0]?.zero_bytes).toBeGreaterThan(0);
  });

  it('give only what changed since the previous snapshot', async () => {
    const random = createRandom();
    await makeVolumeFile(path(volume), { sizeBytes });
    const { identity } = await take(first);
    const changed = scatteredBlocks(random, { sizeBytes, blockBytes: blockSize, count: 12 });
    await writePattern(path(volume), changed, 2);
    const now = await take(second);
    const gathered = await gather(source(now).delta({ name: first, identity }, never));
    const pieces = changed.map(({ offset, length }) => patternBytes(offset, length, 2));
    expect(gathered.data.equals(Buffer.concat(pieces))).toBe(true);
    const digests = Buffer.concat(pieces.map((piece) => blockDigests(piece, blockSize)));
    expect(gathered.digests.equals(digests)).toBe(true);
  });

  it('give zeroed blocks whole, whether written or punched', async () => {
    await makeVolumeFile(path(volume), { sizeBytes });
    const { identity } = await take(first);
    await writeZeros(path(volume), [{ offset: 8 * blockSize, length: 2 * blockSize }]);
    await punchHoles(path(volume), [{ offset: 20 * blockSize, length: 4 * blockSize }]);
    const now = await take(second);
    const gathered = await gather(source(now).delta({ name: first, identity }, never));
    expect(gathered.extents.map(({ offset, length }) => ({ offset, length }))).toEqual([
      { offset: 8 * blockSize, length: 2 * blockSize },
      { offset: 20 * blockSize, length: 4 * blockSize },
    ]);
    expect(gathered.data.every((byte) => byte === 0)).toBe(true);
  });

  it('give nothing between two snapshots of an unchanged volume', async () => {
    await makeVolumeFile(path(volume), { sizeBytes });
    const { identity } = await take(first);
    const now = await take(second);
    const gathered = await gather(source(now).delta({ name: first, identity }, never));
    expect(gathered.extents).toEqual([]);
    expect(gathered.totals).toHaveLength(1);
  });

  it('give the digests of every block, the short last one too', async () => {
    await makeVolumeFile(path(volume), { sizeBytes });
    const now = await take(first);
    const gathered = await gather(source(now).digests(never));
    expect(gathered.digests.equals(blockDigests(patternBytes(0, sizeBytes, 1), blockSize))).toBe(true);
    expect(gathered.digests).toHaveLength(201 * 32);
  });

  it('give the blocks that are named', async () => {
    const random = createRandom();
    await makeVolumeFile(path(volume), { sizeBytes });
    const now = await take(first);
    const named = scatteredBlocks(random, { sizeBytes, blockBytes: blockSize, count: 30 });
    const gathered = await gather(source(now).blocks(named, never));
    expect(gathered.data.equals(await bytesOf(volume, named))).toBe(true);
  });

  it('are refused when the previous snapshot is another one of that name', async () => {
    await makeVolumeFile(path(volume), { sizeBytes });
    await take(first);
    const now = await take(second);
    const delta = source(now).delta({ name: first, identity: 'of another life' }, never);
    await expect(gather(delta)).rejects.toMatchObject({ code: 'delta-unavailable' });
  });

  it('are refused, each of them, when the snapshot itself was made anew', async () => {
    await makeVolumeFile(path(volume), { sizeBytes });
    const old = source(await take(second));
    await client.deleteSnapshot(backend, volume, second, never);
    const { identity } = await take(first);
    await take(second);
    const whole = [{ offset: 0, length: sizeBytes }];
    for (const stream of [
      old.delta(null, never),
      old.delta({ name: first, identity }, never),
      old.digests(never),
      old.blocks(whole, never),
    ]) {
      await expect(gather(stream)).rejects.toMatchObject({ code: 'state-invalid' });
    }
  });

  it('are refused when the snapshot is absent, or has another length', async () => {
    await makeVolumeFile(path(volume), { sizeBytes });
    const gone = await take(first);
    await client.deleteSnapshot(backend, volume, first, never);
    await expect(gather(source(gone).digests(never))).rejects.toMatchObject({ code: 'not-found' });
    await expect(gather(source(await take(first), blockSize).digests(never))).rejects.toMatchObject({
      code: 'message-invalid',
    });
  });
});

describe('a restore', () => {
  it('leaves exactly the bytes that were written, zeros over old bytes included', async () => {
    const random = createRandom();
    await makeVolumeFile(path('truth'), { sizeBytes });
    await makeVolumeFile(path(volume), { sizeBytes, generation: 9 });
    const zeros = scatteredBlocks(random, { sizeBytes, blockBytes: 5 * blockSize, count: 7 });
    await writeZeros(path('truth'), zeros);
    const target = await client.target({ backend, volume, lengthBytes: sizeBytes, signal: never });
    const truth = await bytesOf('truth', [{ offset: 0, length: sizeBytes }]);
    let at = 0;
    for (const zero of zeros) {
      if (zero.offset > at) await target.writeData(at, truth.subarray(at, zero.offset));
      await target.writeZero(zero.offset, zero.length);
      at = zero.offset + zero.length;
    }
    if (at < sizeBytes) await target.writeData(at, truth.subarray(at));
    await target.finish();
    await expectSameBytes(path(volume), path('truth'));
  });

  it('takes calls side by side and out of order', async () => {
    await makeVolumeFile(path('truth'), { sizeBytes });
    await client.createVolume(backend, volume, sizeBytes, never);
    const truth = await bytesOf('truth', [{ offset: 0, length: sizeBytes }]);
    const target = await client.target({ backend, volume, lengthBytes: sizeBytes, signal: never });
    const pieces = [3, 1, 0, 2].map((part) => part * 50 * blockSize);
    await Promise.all(
      pieces.map((from) =>
        target.writeData(
          from,
          truth.subarray(from, from === 150 * blockSize ? sizeBytes : from + 50 * blockSize),
        ),
      ),
    );
    await target.finish();
    await expectSameBytes(path(volume), path('truth'));
  });

  it('into an absent volume fails with what the agent says', async () => {
    const target = await client.target({ backend, volume: other, lengthBytes: blockSize, signal: never });
    await expect(target.finish()).rejects.toMatchObject({ code: 'not-found' });
  });

  it('that was given up frees the volume for the next one', async () => {
    await makeVolumeFile(path(volume), { sizeBytes });
    const target = await client.target({ backend, volume, lengthBytes: sizeBytes, signal: never });
    await target.writeData(0, patternBytes(0, blockSize, 4));
    await target.abort(new Error('changed my mind'));
    await expect
      .poll(
        async () => {
          const next = await client.target({ backend, volume, lengthBytes: sizeBytes, signal: never });
          await next.writeData(0, patternBytes(0, blockSize, 5));
          return next.finish().then(
            () => 'written',
            () => 'busy',
          );
        },
        { timeout: 15_000 },
      )
      .toBe('written');
  });
});
