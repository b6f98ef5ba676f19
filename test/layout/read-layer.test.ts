import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { encodeMetadata } from '../../src/layout/metadata.ts';
import type { MetadataDocument, ObjectList } from '../../src/layout/metadata-document.ts';
import { metadataKey, objectKey, sha256FileKey } from '../../src/layout/names.ts';
import { checkLayer, openSha256File, readLayer, writeMetadata } from '../../src/layout/read-layer.ts';
import { encodeSha256File } from '../../src/layout/sha256-file.ts';
import { createMemoryStore } from '../support/memory-store.ts';
import { collect, inRecycledPieces, patternBytes } from '../support/pattern.ts';

const place = { container: 'c', prefix: 'volume_v_20261122092341_backup_b' };
const { signal } = new AbortController();
const blockSize = 512;
const metadata: MetadataDocument = {
  backupId: 'b',
  volumeId: 'v',
  backupName: 'name',
  backupDescription: null,
  createdAt: '2026-11-22 09:23:39+00:00',
  parentId: null,
  objects: [
    { key: objectKey(place.prefix, 1), offset: 0, length: 1024, md5: 'ab'.repeat(16), codec: 'none' },
    { key: objectKey(place.prefix, 2), offset: 1024, length: 512, md5: 'cd'.repeat(16), codec: 'zlib' },
  ],
  volumeMeta: null,
  extraMetadata: null,
  delta: {
    mode: 'full',
    reason: 'first',
    lengthBytes: 1536,
    blockSize,
    base: null,
    readBytes: 1536,
    storedBytes: 9,
  },
};
const digests = patternBytes(3 * 32, 7);

async function storeWithBackup(document = metadata) {
  const store = createMemoryStore();
  await store.ensureContainer('c', signal);
  for (const { key, length } of document.objects)
    await store.put('c', key, patternBytes(length, 1), { signal });
  const list = encodeSha256File(document, blockSize, inRecycledPieces(digests, 64));
  await store.putStream('c', sha256FileKey(place.prefix), list, { signal });
  await writeMetadata(store, place, document, signal);
  return store;
}

const entryOf = (n: number) => ({
  key: objectKey(place.prefix, n),
  offset: (n - 1) * 512,
  length: 512,
  md5: 'ab'.repeat(16),
  codec: 'none' as const,
});
const manyObjects = (count: number) => Array.from({ length: count }, (_, n) => entryOf(n + 1));

function lazyObjects(count: number): ObjectList {
  return {
    length: count,
    at: (index) => entryOf(index + 1),
    *[Symbol.iterator]() {
      for (let n = 1; n <= count; n += 1) yield entryOf(n);
    },
  };
}

async function* asPieces(pieces: Iterable<Buffer>): AsyncGenerator<Buffer> {
  yield* pieces;
}

describe('a layer', () => {
  test('is read back as it was written', async () => {
    const store = await storeWithBackup();
    const layer = await readLayer(store, place, signal);
    expect({ ...layer.metadata, objects: [...layer.metadata.objects] }).toEqual(metadata);
    expect(layer.place).toEqual(place);
  });

  test('without metadata is object-missing, and says what that means', async () => {
    const store = await storeWithBackup();
    await store.remove('c', metadataKey(place.prefix), signal);
    await expect(readLayer(store, place, signal)).rejects.toMatchObject({
      code: 'object-missing',
      message: expect.stringContaining('did not finish'),
    });
  });

  test('is not written with the objects of another', async () => {
    const store = await storeWithBackup();
    const other = { container: 'c', prefix: 'other' };
    await expect(writeMetadata(store, other, metadata, signal)).rejects.toMatchObject({ code: 'bug' });
  });
});

describe('its hash list', () => {
  test('gives the block size and the digests', async () => {
    const store = await storeWithBackup();
    const file = await openSha256File(store, { place, metadata }, signal);
    expect(file.blockSize).toBe(blockSize);
    expect((await collect(file.digests)).equals(digests)).toBe(true);
  });

  test('is read twice if its block size stands at the end', async () => {
    const store = await storeWithBackup();
    const layer = { place, metadata: { ...metadata, delta: null } };
    const key = sha256FileKey(place.prefix);
    store.corrupt('c', key, (bytes) => {
      const { chunk_size: size, ...rest } = JSON.parse(bytes.toString());
      return Buffer.from(
        JSON.stringify({
          ...rest,
          padding: 'x'.repeat(60_000),
          more: 'x'.repeat(60_000),
          again: 'x'.repeat(60_000),
          last: 'x'.repeat(60_000),
          end: 'x'.repeat(60_000),
          chunk_size: size,
        }),
      );
    });
    const file = await openSha256File(store, layer, signal);
    expect(file.blockSize).toBe(blockSize);
    expect((await collect(file.digests)).equals(digests)).toBe(true);
  });

  test('must have the blocks that the metadata tells', async () => {
    const delta = metadata.delta && { ...metadata.delta, lengthBytes: 4 * blockSize };
    const store = await storeWithBackup();
    const file = await openSha256File(store, { place, metadata: { ...metadata, delta } }, signal);
    await expect(collect(file.digests)).rejects.toMatchObject({ code: 'corrupt' });
  });

  test('must be that of this backup', async () => {
    const store = await storeWithBackup();
    const layer = { place, metadata: { ...metadata, backupId: 'other' } };
    await expect(openSha256File(store, layer, signal)).rejects.toMatchObject({ code: 'corrupt' });
  });
});

describe('its objects', () => {
  test('are found whole, and are told by their number and their end', async () => {
    const store = await storeWithBackup();
    const check = await checkLayer(store, place, signal);
    expect(check).toMatchObject({ missingCount: 0, extraCount: 0, missing: [], extra: [] });
    expect(check).toMatchObject({ objectCount: 2, endBytes: 1536 });
    const { objects: _, ...head } = metadata;
    expect(check.layer).toEqual({ place, metadata: head });
  });

  test('that are missing or too many are named', async () => {
    const store = await storeWithBackup();
    await store.remove('c', objectKey(place.prefix, 2), signal);
    await store.remove('c', sha256FileKey(place.prefix), signal);
    await store.put('c', objectKey(place.prefix, 3), patternBytes(5, 1), { signal });
    await store.put('c', `${place.prefix}-000002`, patternBytes(5, 1), { signal });
    await store.put('c', `${place.prefix}.checkpoint`, patternBytes(5, 1), { signal });
    await store.put('c', 'unrelated', patternBytes(5, 1), { signal });
    const check = await checkLayer(store, place, signal);
    expect(check).toMatchObject({ missingCount: 2, extraCount: 3 });
    expect(check.missing).toEqual([sha256FileKey(place.prefix), objectKey(place.prefix, 2)]);
    expect(check.extra).toEqual([
      objectKey(place.prefix, 3),
      `${place.prefix}-000002`,
      `${place.prefix}.checkpoint`,
    ]);
  });

  test('are counted but not all named when many are missing', async () => {
    const store = await storeWithBackup({ ...metadata, objects: manyObjects(500) });
    for (let n = 3; n <= 500; n += 1) await store.remove('c', objectKey(place.prefix, n), signal);
    const check = await checkLayer(store, place, signal);
    expect(check.missingCount).toBe(498);
    expect(check.missing).toHaveLength(10);
    expect(check.missing[0]).toBe(objectKey(place.prefix, 3));
  });

  test('are checked without being held: 300 000 of them cost a few megabytes at most', async () => {
    const count = 300_000;
    const store = {
      ...createMemoryStore(),
      async get() {
        return { sizeBytes: 1, body: asPieces(encodeMetadata({ ...metadata, objects: lazyObjects(count) })) };
      },
      async *list() {
        for (let n = 1; n <= count; n += 1) yield [{ key: objectKey(place.prefix, n), sizeBytes: 1 }];
        yield [
          { key: sha256FileKey(place.prefix), sizeBytes: 1 },
          { key: metadataKey(place.prefix), sizeBytes: 1 },
        ];
      },
    };
    setFlagsFromString('--expose-gc');
    const collectGarbage: unknown = runInNewContext('gc');
    if (typeof collectGarbage !== 'function') throw new Error('no gc');
    const used = () => {
      collectGarbage();
      const { heapUsed, arrayBuffers } = process.memoryUsage();
      return heapUsed + arrayBuffers;
    };
    let most = 0;
    const before = used();
    const list = store.list.bind(store);
    store.list = async function* () {
      most = used();
      yield* list();
    };
    const check = await checkLayer(store, place, signal);
    expect(check).toMatchObject({ objectCount: count, missingCount: 0, extraCount: 0 });
    expect(check.endBytes).toBe(count * 512);
    // Held entries would cost 40 MiB and more; what is left is the collector's own noise.
    expect(most - before).toBeLessThan(8 * 1024 * 1024);
  });

  test('are counted as they are kept', async () => {
    const store = await storeWithBackup();
    let taken = 0;
    await readLayer(store, place, signal, () => (taken += 1));
    expect(taken).toBe(2);
    const full = new Error('no room');
    const refuse = () => {
      throw full;
    };
    await expect(readLayer(store, place, signal, refuse)).rejects.toBe(full);
  });
});
