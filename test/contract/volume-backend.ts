/** What every volume backend must do (src/agent/volume-backend.ts). Called by the test of each implementation. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { BackendInfo } from '../../src/protocol/calls.ts';
import { createReaderPool } from '../../src/agent/reader-pool.ts';
import type { FindRequest, VolumeBackend } from '../../src/agent/volume-backend.ts';
import { readAll } from '../support/read-snapshot.ts';
import { backupSnapshotName, volumeName } from '../../src/model/names.ts';
import { endOf, toBlockExtents, type TypedExtent } from '../../src/model/extent.ts';
import { createRandom, patternBytes } from '../support/random-volume.ts';

export type BackendUnderTest = {
  readonly backend: VolumeBackend;
  /** Who makes and grows volumes, where the backend does not. */
  readonly owner?: {
    create(volume: string, sizeBytes: number): Promise<unknown>;
    resize(volume: string, sizeBytes: number): Promise<unknown>;
  };
  dispose(): Promise<void>;
};

const mebibyte = 1024 * 1024;
const blockSize = 32_768;
const sizeBytes = 8 * mebibyte;
const noAbort = new AbortController().signal;

export function describeVolumeBackend(
  title: string,
  create: () => Promise<BackendUnderTest>,
  expected: {
    readonly delta: BackendInfo['delta'];
    /** What blocks that were zeroed are named as: data where the storage cannot tell, and reading them does. */
    readonly zeroed?: TypedExtent['kind'];
    /** What was not touched is not named if it lies in another piece of so many bytes: one block unless given. */
    readonly grainBytes?: number;
    /** Changes are named in whole pieces of so many bytes: one block unless given. */
    readonly unitBytes?: number;
    /** False where volumes are made and grown by another, not by the backend. */
    readonly makesVolumes?: boolean;
  },
): void {
  describe(`volume backend: ${title}`, () => {
    let under: BackendUnderTest;
    let backend: VolumeBackend;
    let volume: string;
    let snapshots = 0;
    const readers = createReaderPool({ threads: 2 });

    beforeAll(async () => {
      under = await create();
      backend = under.backend;
    });
    afterAll(async () => {
      await readers.close();
      await under.dispose();
    });
    beforeEach(async () => {
      volume = volumeName(randomUUID());
      await make(sizeBytes);
    });

    const make = (bytes: number) => under.owner?.create(volume, bytes) ?? backend.createVolume(volume, bytes);
    const resize = (bytes: number) =>
      under.owner?.resize(volume, bytes) ?? backend.resizeVolume(volume, bytes);
    const write = async (changes: readonly (readonly [number, Buffer | { zeros: number }])[]) => {
      const target = await backend.openTarget(volume);
      try {
        for (const [offset, what] of changes) {
          if (Buffer.isBuffer(what)) await target.write(offset, what);
          else await target.zero(offset, what.zeros);
        }
        await target.flush();
      } finally {
        await target.close();
      }
    };
    const snapshot = async () => {
      snapshots += 1;
      return await backend.createSnapshot(volume, backupSnapshotName(randomUUID(), snapshots), noAbort);
    };
    const readSnapshot = async (of: string) => {
      const source = await backend.openSnapshot(volume, of);
      try {
        const bytes = await readAll(readers, source);
        await source.requireWhole();
        return bytes;
      } finally {
        await source.close();
      }
    };
    const find = async (request: Partial<FindRequest> & { current: string }) => {
      const found = await backend.findRanges({
        volume,
        previous: null,
        previousIdentity: null,
        lengthBytes: sizeBytes,
        blockSize,
        startOffset: 0,
        signal: noAbort,
        ...request,
      });
      try {
        const extents: TypedExtent[] = [];
        for await (const extent of found.extents) extents.push(extent);
        return { method: found.method, extents, readBytes: found.readBytes() };
      } finally {
        await found.close();
      }
    };

    test('says how it finds changes', () => {
      expect(backend.info).toMatchObject({ delta: expected.delta, restore: true });
    });

    test('lists and shows a volume that it made, as zeros', async () => {
      const listed = (await backend.listVolumes(noAbort)).find((one) => one.name === volume);
      expect(listed).toMatchObject({ name: volume, size_bytes: sizeBytes });
      expect(listed?.allocated_bytes).toBe(backend.info.type === 'file' ? 0 : null);
      expect(await backend.getVolume(volume)).toEqual({ ...listed, snapshots: [] });
      expect((await readSnapshot((await snapshot()).name)).equals(Buffer.alloc(sizeBytes))).toBe(true);
    });

    if (expected.makesVolumes ?? true) {
      test('refuses to make a volume twice', async () => {
        await expect(backend.createVolume(volume, mebibyte)).rejects.toMatchObject({
          code: 'already-exists',
        });
        expect(await backend.getVolume(volume)).toMatchObject({ size_bytes: sizeBytes });
      });

      test('grows a volume and refuses to shrink it', async () => {
        await write([pattern(0, blockSize, 1)]);
        const before = await backend.getVolume(volume);
        const grown = await backend.resizeVolume(volume, sizeBytes + 512);
        expect(grown).toMatchObject({ size_bytes: sizeBytes + 512, identity: before.identity });
        await expect(backend.resizeVolume(volume, sizeBytes)).rejects.toMatchObject({
          code: 'message-invalid',
        });
      });
    } else {
      test('refuses to make and to grow volumes where others do that', async () => {
        expect(backend.info.create_volume).toBe(false);
        const code = 'state-invalid';
        const another = volumeName(randomUUID());
        await expect(backend.createVolume(another, mebibyte)).rejects.toMatchObject({ code });
        await expect(backend.resizeVolume(volume, 2 * sizeBytes)).rejects.toMatchObject({ code });
        expect(await backend.getVolume(volume)).toMatchObject({ size_bytes: sizeBytes });
      });
    }

    test('answers not-found for a volume that is not there', async () => {
      const absent = volumeName(randomUUID());
      const name = backupSnapshotName(randomUUID(), 1);
      await expect(backend.getVolume(absent)).rejects.toMatchObject({ code: 'not-found' });
      if (backend.info.create_volume) {
        await expect(backend.resizeVolume(absent, sizeBytes)).rejects.toMatchObject({ code: 'not-found' });
      }
      await expect(backend.openTarget(absent)).rejects.toMatchObject({ code: 'not-found' });
      await expect(backend.createSnapshot(absent, name, noAbort)).rejects.toMatchObject({
        code: 'not-found',
      });
      await expect(backend.openSnapshot(volume, name)).rejects.toMatchObject({ code: 'not-found' });
      await expect(find({ current: name })).rejects.toMatchObject({ code: 'not-found' });
    });

    test('keeps the identity of a volume while it is written to', async () => {
      const before = await backend.getVolume(volume);
      await write([pattern(0, mebibyte, 1), [mebibyte, { zeros: mebibyte }]]);
      expect((await backend.getVolume(volume)).identity).toBe(before.identity);
    });

    test('keeps the bytes of a snapshot while the volume changes', async () => {
      await write([pattern(3 * blockSize, mebibyte, 1)]);
      const first = await snapshot();
      await write([pattern(3 * blockSize, blockSize, 2), [5 * blockSize, { zeros: blockSize }]]);
      const second = await snapshot();
      const wanted = Buffer.alloc(sizeBytes);
      patternBytes(3 * blockSize, mebibyte, 1).copy(wanted, 3 * blockSize);
      expect((await readSnapshot(first.name)).equals(wanted)).toBe(true);
      patternBytes(3 * blockSize, blockSize, 2).copy(wanted, 3 * blockSize);
      wanted.fill(0, 5 * blockSize, 6 * blockSize);
      expect((await readSnapshot(second.name)).equals(wanted)).toBe(true);
    });

    test('lists snapshots with their size and identity', async () => {
      const first = await snapshot();
      await resize(2 * sizeBytes);
      const second = await snapshot();
      const { snapshots: listed } = await backend.getVolume(volume);
      expect(listed.toSorted((a, b) => a.size_bytes - b.size_bytes)).toEqual([first, second]);
      expect(second.size_bytes).toBe(2 * sizeBytes);
      expect(second.identity).not.toBe(first.identity);
    });

    test('gives back a snapshot that exists rather than make it again', async () => {
      await write([pattern(0, blockSize, 1)]);
      const first = await snapshot();
      await write([pattern(0, blockSize, 2)]);
      expect(await backend.createSnapshot(volume, first.name, noAbort)).toEqual(first);
      expect(
        (await readSnapshot(first.name)).subarray(0, blockSize).equals(patternBytes(0, blockSize, 1)),
      ).toBe(true);
    });

    test('makes one snapshot when it is asked twice at once', async () => {
      const name = backupSnapshotName(randomUUID(), 7);
      const [one, two] = await Promise.all([
        backend.createSnapshot(volume, name, noAbort),
        backend.createSnapshot(volume, name, noAbort),
      ]);
      expect(one).toEqual(two);
    });

    test('removes a snapshot, succeeds when it is gone, and gives the next of that name another identity', async () => {
      const first = await snapshot();
      await backend.deleteSnapshot(volume, first.name);
      await backend.deleteSnapshot(volume, first.name);
      expect((await backend.getVolume(volume)).snapshots).toEqual([]);
      const again = await backend.createSnapshot(volume, first.name, noAbort);
      expect(again.identity).not.toBe(first.identity);
    });

    test('removing snapshots of a volume that is not there succeeds', async () => {
      await backend.deleteSnapshot(volumeName(randomUUID()), backupSnapshotName(randomUUID(), 1));
    });

    test('tiles a whole snapshot with data and zeros', async () => {
      await write([pattern(mebibyte, mebibyte, 1), pattern(5 * mebibyte + 65_536, 131_072, 1)]);
      const { extents } = await find({ current: (await snapshot()).name });
      expectTiling(extents, 0, sizeBytes);
      const data = extents.filter(({ kind }) => kind === 'data');
      expect(covers(data, { offset: mebibyte, length: mebibyte })).toBe(true);
      expect(covers(data, { offset: 5 * mebibyte + 65_536, length: 131_072 })).toBe(true);
      expect(sum(data)).toBeLessThan(3 * mebibyte);
    });

    test('names exactly the blocks that changed', async () => {
      await write([pattern(0, 4 * mebibyte, 1)]);
      const first = await snapshot();
      const places = [0, 7 * blockSize, 8 * blockSize, 3 * mebibyte + blockSize, 6 * mebibyte];
      await write(places.map((offset) => pattern(offset, blockSize, 2)));
      const second = await snapshot();
      const { extents, method } = await find({ previous: first.name, current: second.name });
      expect(method).toBe(expected.delta);
      const unit = expected.unitBytes ?? blockSize;
      const written = places.map((offset) => ({ kind: 'data', offset, length: blockSize }) as const);
      expect([...toBlockExtents(extents, blockSize, sizeBytes)]).toEqual([
        ...toBlockExtents(written, unit, sizeBytes),
      ]);
      if (unit > blockSize) return;
      expect([...toBlockExtents(extents, blockSize, sizeBytes)]).toEqual([
        { kind: 'data', offset: 0, length: blockSize },
        { kind: 'data', offset: 7 * blockSize, length: 2 * blockSize },
        { kind: 'data', offset: 3 * mebibyte + blockSize, length: blockSize },
        { kind: 'data', offset: 6 * mebibyte, length: blockSize },
      ]);
    });

    test('names nothing when nothing changed', async () => {
      await write([pattern(0, 2 * mebibyte, 1)]);
      const first = await snapshot();
      const second = await snapshot();
      expect((await find({ previous: first.name, current: second.name })).extents).toEqual([]);
    });

    test('names blocks that became zeros', async () => {
      await write([pattern(0, 2 * mebibyte, 1)]);
      const first = await snapshot();
      await write([[mebibyte, { zeros: 4 * blockSize }]]);
      const second = await snapshot();
      const { extents } = await find({ previous: first.name, current: second.name });
      expect([...toBlockExtents(extents, blockSize, sizeBytes)]).toEqual([
        { kind: expected.zeroed ?? 'zero', offset: mebibyte, length: 4 * blockSize },
      ]);
    });

    test('counts everything behind the last whole block as changed after the volume grew', async () => {
      const odd = sizeBytes + 512;
      await resize(odd);
      await write([pattern(sizeBytes - blockSize, blockSize + 512, 1)]);
      const first = await snapshot();
      await resize(odd + mebibyte);
      await write([pattern(sizeBytes + blockSize, blockSize, 2)]);
      const second = await snapshot();
      const lengthBytes = odd + mebibyte;
      const { extents } = await find({ previous: first.name, current: second.name, lengthBytes });
      expectTiling(extents, sizeBytes, lengthBytes);
      const data = extents.filter(({ kind }) => kind === 'data');
      expect(covers(data, { offset: sizeBytes, length: 512 })).toBe(true);
      expect(covers(data, { offset: sizeBytes + blockSize, length: blockSize })).toBe(true);
    });

    test('refuses a delta from a larger snapshot', async () => {
      const small = await snapshot();
      await resize(2 * sizeBytes);
      const large = await snapshot();
      await expect(find({ previous: large.name, current: small.name })).rejects.toMatchObject({
        code: 'delta-unavailable',
      });
    });

    test('refuses a delta from a snapshot that is gone or is another one of that name', async () => {
      const first = await snapshot();
      const second = await snapshot();
      const request = { previous: first.name, current: second.name, previousIdentity: first.identity };
      expect((await find(request)).extents).toEqual([]);
      await backend.deleteSnapshot(volume, first.name);
      await expect(find(request)).rejects.toMatchObject({ code: 'delta-unavailable' });
      await backend.createSnapshot(volume, first.name, noAbort);
      await expect(find(request)).rejects.toMatchObject({ code: 'delta-unavailable' });
    });

    test('refuses another length than that of the snapshot', async () => {
      const { name: current } = await snapshot();
      for (const lengthBytes of [sizeBytes - 512, sizeBytes + 512]) {
        await expect(find({ current, lengthBytes })).rejects.toMatchObject({ code: 'message-invalid' });
      }
    });

    test('looks from the start offset on', async () => {
      await write([pattern(0, 4 * mebibyte, 1)]);
      const first = await snapshot();
      await write([pattern(0, blockSize, 2), pattern(3 * mebibyte, blockSize, 2)]);
      const second = await snapshot();
      const startOffset = mebibyte;
      const changed = await find({ previous: first.name, current: second.name, startOffset });
      expect(changed.extents.every(({ offset }) => offset >= startOffset)).toBe(true);
      expect(covers(changed.extents, { offset: 3 * mebibyte, length: blockSize })).toBe(true);
      expectTiling((await find({ current: second.name, startOffset })).extents, startOffset, sizeBytes);
    });

    test('stops finding when it is told to', async () => {
      await write([pattern(0, 4 * mebibyte, 1)]);
      const first = await snapshot();
      await write([pattern(0, 4 * mebibyte, 2)]);
      const second = await snapshot();
      const signal = AbortSignal.abort(new Error('enough'));
      await expect(find({ previous: first.name, current: second.name, signal })).rejects.toMatchObject({
        code: 'cancelled',
      });
    });

    test('makes no snapshot when it is told to stop before', async () => {
      await write([pattern(0, mebibyte, 1)]);
      const name = backupSnapshotName(randomUUID(), 1);
      const making = backend.createSnapshot(volume, name, AbortSignal.abort(new Error('enough')));
      await expect(making).rejects.toMatchObject({ code: 'cancelled' });
      expect((await backend.getVolume(volume)).snapshots).toEqual([]);
    });

    test('opens one restore target of a volume at a time', async () => {
      const target = await backend.openTarget(volume);
      await expect(backend.openTarget(volume)).rejects.toMatchObject({ code: 'state-invalid' });
      if (backend.info.create_volume) {
        await expect(backend.resizeVolume(volume, 2 * sizeBytes)).rejects.toMatchObject({
          code: 'state-invalid',
        });
      }
      await target.close();
      await target.close();
      await (await backend.openTarget(volume)).close();
    });

    test('refuses to write outside the volume', async () => {
      const target = await backend.openTarget(volume);
      const bytes = patternBytes(sizeBytes - 512, 1024, 1);
      await expect(target.write(sizeBytes - 512, bytes)).rejects.toMatchObject({ code: 'message-invalid' });
      await expect(target.zero(sizeBytes, 512)).rejects.toMatchObject({ code: 'message-invalid' });
      await target.close();
      expect(await backend.getVolume(volume)).toMatchObject({ size_bytes: sizeBytes });
    });

    test('takes writes side by side, at odd places', async () => {
      const target = await backend.openTarget(volume);
      await target.write(0, patternBytes(0, mebibyte, 1));
      await Promise.all([
        target.write(512, patternBytes(512, 1024, 2)),
        target.zero(2048, 10_000),
        target.write(mebibyte, patternBytes(mebibyte, 777, 3)),
      ]);
      await target.flush();
      await target.close();
      const wanted = Buffer.alloc(sizeBytes);
      patternBytes(0, mebibyte, 1).copy(wanted);
      patternBytes(512, 1024, 2).copy(wanted, 512);
      wanted.fill(0, 2048, 12_048);
      patternBytes(mebibyte, 777, 3).copy(wanted, mebibyte);
      expect((await readSnapshot((await snapshot()).name)).equals(wanted)).toBe(true);
    });

    test('leaves nothing unnamed that differs, whatever was written, zeroed and grown', async () => {
      const random = createRandom();
      let size = sizeBytes;
      let before: { name: string; bytes: Buffer } | undefined;
      for (let round = 1; round <= 6; round += 1) {
        const touched = new Set<number>();
        const changes = Array.from({ length: random.between(0, 12) }, () => {
          const offset = random.between(0, size / 512 - 1) * 512;
          const length = Math.min(size - offset, random.pick([512, 4096, blockSize, 200_192]));
          for (let at = offset; at < offset + length; at += 512) touched.add(Math.floor(at / blockSize));
          return random.chance(0.3) ? ([offset, { zeros: length }] as const) : pattern(offset, length, round);
        });
        await write(changes);
        const { name: current } = await snapshot();
        const bytes = await readSnapshot(current);
        if (before !== undefined) {
          const { extents } = await find({ previous: before.name, current, lengthBytes: size });
          const widened = [...toBlockExtents(extents, blockSize, size)];
          expectTrue(widened, before.bytes, bytes, touched, expected.grainBytes ?? blockSize);
        }
        before = { name: current, bytes };
        if (random.chance(0.4)) {
          size += random.between(1, 200) * 512;
          await resize(size);
        }
      }
    });
  });
}

function pattern(offset: number, length: number, generation: number) {
  return [offset, patternBytes(offset, length, generation)] as const;
}

/** Every differing block is named, zeros are zeros, and nothing is named that was neither touched nor behind the old end. */
function expectTrue(
  extents: readonly TypedExtent[],
  old: Buffer,
  now: Buffer,
  touched: ReadonlySet<number>,
  grainBytes: number,
): void {
  const named = new Map<number, TypedExtent['kind']>();
  for (const extent of extents) {
    for (let at = extent.offset; at < endOf(extent); at += blockSize) named.set(at / blockSize, extent.kind);
  }
  const blocksOfGrain = grainBytes / blockSize;
  const touchedGrains = new Set([...touched].map((block) => Math.floor(block / blocksOfGrain)));
  const oldWhole = old.length < now.length ? Math.floor(old.length / blockSize) : Infinity;
  for (let at = 0; at < now.length; at += blockSize) {
    const block = at / blockSize;
    const bytes = now.subarray(at, at + blockSize);
    const same = at + bytes.length <= old.length && bytes.equals(old.subarray(at, at + bytes.length));
    const kind = named.get(block);
    if (!same) expect(kind, `block ${block} differs`).toBeDefined();
    if (kind === 'zero')
      expect(bytes.equals(Buffer.alloc(bytes.length)), `block ${block} is zeros`).toBe(true);
    if (kind !== undefined)
      expect(
        touchedGrains.has(Math.floor(block / blocksOfGrain)) || block >= oldWhole,
        `block ${block} was touched`,
      ).toBe(true);
  }
}

function expectTiling(extents: readonly TypedExtent[], from: number, end: number): void {
  let at = from;
  for (const extent of extents) {
    expect(extent.offset).toBe(at);
    expect(extent.length).toBeGreaterThan(0);
    at = endOf(extent);
  }
  expect(at).toBe(end);
}

function covers(extents: readonly TypedExtent[], range: { offset: number; length: number }): boolean {
  let at = range.offset;
  for (const extent of extents) if (extent.offset <= at && endOf(extent) > at) at = endOf(extent);
  return at >= range.offset + range.length;
}

function sum(extents: readonly TypedExtent[]): number {
  return extents.reduce((total, { length }) => total + length, 0);
}
