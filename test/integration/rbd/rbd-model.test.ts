/**
 * Random lives of RBD volumes: a guest writes, discards, zeroes and grows an image that it keeps open, images are clones of
 * smaller ones, are flattened, change their name, go back to an earlier snapshot; each snapshot's delta must name all that
 * `rbd export` shows to differ.
 */
import { randomUUID } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createReaderPool, type ReaderPool } from '../../../src/agent/reader-pool.ts';
import type { VolumeBackend } from '../../../src/agent/volume-backend.ts';
import { endOf, toBlockExtents, totalLength, type TypedExtent } from '../../../src/model/extent.ts';
import { backupSnapshotName, volumeName } from '../../../src/model/names.ts';
import { startCeph, type CephCluster } from '../../support/ceph-cluster.ts';
import { createRandom, type Random } from '../../support/random-volume.ts';
import { featureBits, startRbdGuest, type RbdGuest } from '../../support/rbd-guest.ts';
import { createImage, imageFeatures, openRbdBackend } from '../../support/rbd-volumes.ts';
import { readAll } from '../../support/read-snapshot.ts';

const MiB = 1024 * 1024;
const blockSize = 32_768;
const objectBytes = MiB;
const lives = 6;
const rounds = 6;

let cluster: CephCluster;
let guest: RbdGuest;
let backend: VolumeBackend;
let readers: ReaderPool;

beforeAll(async () => {
  cluster = await startCeph();
  guest = startRbdGuest(cluster);
  backend = await openRbdBackend(cluster);
  readers = createReaderPool({ threads: 2 });
});
afterAll(async () => {
  await readers.close();
  await backend.close();
  await guest[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

/** What another program says that the snapshot holds. */
async function exported(volume: string, snapshot: string): Promise<Buffer> {
  const path = join(cluster.directory, `export-${randomUUID()}`);
  await cluster.rbd('export', '--no-progress', `volumes/${volume}@${snapshot}`, path);
  const bytes = await readFile(path);
  await rm(path);
  return bytes;
}

async function found(volume: string, previous: string | null, current: string, lengthBytes: number) {
  const { signal } = new AbortController();
  const request = { volume, previous, previousIdentity: null, current, lengthBytes, blockSize, signal };
  const ranges = await backend.findRanges({ ...request, startOffset: 0 });
  const extents: TypedExtent[] = [];
  for await (const extent of ranges.extents) extents.push(extent);
  await ranges.close();
  return [...toBlockExtents(extents, blockSize, lengthBytes)];
}

async function read(volume: string, snapshot: string, extents: readonly TypedExtent[]): Promise<Buffer> {
  const source = await backend.openSnapshot(volume, snapshot);
  const bytes = await readAll(readers, source, extents);
  await source.requireWhole();
  await source.close();
  return bytes;
}

async function live(name: string, size: number, random: Random, generation: number): Promise<number> {
  for (let change = random.between(0, 5); change > 0; change -= 1) {
    const offset = random.between(0, Math.floor((size - 1) / 512)) * 512;
    const length = Math.min(size - offset, random.pick([512, 4096, blockSize, 200_192, objectBytes]));
    const object = offset - (offset % objectBytes);
    const tail = Math.min(size, object + objectBytes);
    switch (random.between(0, 8)) {
      case 0:
        await guest.ask({ do: 'discard', name, offset, length });
        break;
      case 1:
        await guest.ask({ do: 'discard', name, offset: object, length: tail - object });
        break;
      case 2:
        await guest.ask({ do: 'discard', name, offset, length: tail - offset });
        break;
      case 3:
        await guest.ask({ do: 'zero', name, offset, length });
        break;
      default:
        await guest.ask({ do: 'write', name, offset, length, generation });
    }
  }
  if (!random.chance(0.25)) return size;
  const grown = size + random.between(1, 3000) * 512;
  await guest.ask({ do: 'resize', name, size: grown });
  return grown;
}

type Kind = 'image' | 'clone' | 'large image';

async function makeVolume(kind: Kind, features: keyof typeof imageFeatures, random: Random) {
  const name = volumeName(randomUUID());
  if (kind === 'large image') {
    // More objects than one step asks about.
    const size = 5000 * 4096;
    await createImage(cluster, name, size, { features: imageFeatures[features], objectSize: '4K' });
    return { name, size };
  }
  const size = 5 * MiB + random.between(0, 40) * 512;
  if (kind === 'image') {
    await createImage(cluster, name, size, { features: imageFeatures[features] });
    return { name, size };
  }
  const parent = `image-${randomUUID()}`;
  await createImage(cluster, parent, size);
  for (let offset = 0; offset < size; offset += MiB / 2) {
    const length = Math.min(MiB / 2, size - offset);
    if (random.chance(0.7)) await guest.ask({ do: 'write', name: parent, offset, length, generation: 1 });
  }
  await guest.ask({ do: 'snapshot', name: parent, snapshot: 'snap', protect: true });
  await guest.ask({ do: 'clone', parent, snapshot: 'snap', name, features: featureBits[features] });
  const grown = random.chance(0.5) ? size : size + 2 * MiB;
  if (grown > size) await guest.ask({ do: 'resize', name, size: grown });
  return { name, size: grown };
}

/** Blocks of `now` that are not those of `before`. */
function* differing(before: Buffer, now: Buffer): Generator<number> {
  for (let at = 0; at < now.length; at += blockSize) {
    const end = Math.min(at + blockSize, now.length);
    if (end > before.length || now.compare(before, at, end, at, end) !== 0) yield at;
  }
}

describe.each(['image', 'clone', 'large image'] as const)('a volume that is a(n) %s', (kind) => {
  test.each(['mapped', 'plain'] as const)(
    'with features %s is told and read as rbd export shows it',
    async (features) => {
      const random = createRandom();
      for (let life = 0; life < (kind === 'large image' ? 2 : lives); life += 1) {
        let { name, size } = await makeVolume(kind, features, random);
        let before: { readonly snapshot: string; readonly bytes: Buffer } | undefined;
        let kept: string[] = [];
        for (let round = 2; round < rounds + 2; round += 1) {
          size = await live(name, size, random, round);
          if (kind === 'clone' && round === 5 && random.chance(0.5)) await guest.ask({ do: 'flatten', name });
          if (kept.length > 0 && random.chance(0.3)) {
            await guest.ask({ do: 'rollback', name, snapshot: random.pick(kept) });
            await guest.ask({ do: 'resize', name, size });
            if (random.chance(0.5)) size = await live(name, size, random, round);
          }
          if (random.chance(0.1)) {
            const to = volumeName(randomUUID());
            await guest.ask({ do: 'rename', name, to });
            name = to;
          }
          const snapshot = backupSnapshotName(randomUUID(), round);
          await backend.createSnapshot(name, snapshot, new AbortController().signal);
          const truth = await exported(name, snapshot);
          const all = await found(name, null, snapshot, size);
          expect(totalLength(all)).toBe(size);
          expect((await read(name, snapshot, all)).equals(truth), 'allocated ranges hold everything').toBe(
            true,
          );
          if (before !== undefined) {
            const changed = await found(name, before.snapshot, snapshot, size);
            const restored = Buffer.alloc(size);
            before.bytes.copy(restored);
            const bytes = await read(name, snapshot, changed);
            for (const extent of changed) bytes.copy(restored, extent.offset, extent.offset, endOf(extent));
            expect([...differing(restored, truth)], 'blocks that the delta left wrong').toEqual([]);
            if (random.chance(0.5)) {
              await backend.deleteSnapshot(name, before.snapshot);
              kept = kept.filter((one) => one !== before?.snapshot);
            }
          }
          kept.push(snapshot);
          before = { snapshot, bytes: truth };
        }
        for (const { name: snapshot } of await backend.listSnapshots(name))
          await backend.deleteSnapshot(name, snapshot);
        await guest.ask({ do: 'remove', name });
      }
    },
  );
});

describe('a volume of 5000 objects that went back to an earlier snapshot', () => {
  const size = 5000 * 4096;
  const { signal } = new AbortController();
  let name: string;
  const taken: string[] = [];

  const take = async () => {
    const snapshot = backupSnapshotName(randomUUID(), taken.length + 1);
    await backend.createSnapshot(name, snapshot, signal);
    taken.push(snapshot);
    return snapshot;
  };

  beforeAll(async () => {
    name = volumeName(randomUUID());
    await createImage(cluster, name, size, { features: imageFeatures.mapped, objectSize: '4K' });
    await guest.ask({ do: 'write', name, offset: 0, length: size / 2, generation: 1 });
    await take();
    // In the map of this one nothing is new since the last one.
    const clean = await take();
    await guest.ask({ do: 'write', name, offset: 100 * blockSize, length: blockSize, generation: 2 });
    await take();
    await guest.ask({ do: 'rollback', name, snapshot: clean });
    await take();
  });

  test('has all changes of that told, which its object map denies', async () => {
    const [, , changedThen = '', wentBack = ''] = taken;
    const changed = await found(name, changedThen, wentBack, size);
    expect(changed.filter(({ kind }) => kind === 'data')).toEqual([
      { kind: 'data', offset: 100 * blockSize, length: blockSize },
    ]);
  });

  test('has no changes told from a newer snapshot to an older one, and the caller is told to compare', async () => {
    const [first = '', second = ''] = taken;
    await expect(found(name, second, first, size)).rejects.toMatchObject({
      code: 'delta-unavailable',
      message: expect.stringMatching(/newer/),
    });
    expect(await found(name, second, second, size)).toEqual([]);
  });
});
