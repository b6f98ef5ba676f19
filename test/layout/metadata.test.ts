import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { decodeMetadata, encodeMetadata, surveyMetadata } from '../../src/layout/metadata.ts';
import type { MetadataDocument } from '../../src/layout/metadata-document.ts';
import { objectKey } from '../../src/layout/names.ts';
import { createRandom } from '../support/random-volume.ts';

const fixtures = new URL('../fixtures/cinder/layout/', import.meta.url);
const prefix = 'volume_v_20261122092341_backup_b';

async function* inPieces(text: Buffer, step: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < text.length; at += step) yield text.subarray(at, at + step);
}

const decode = (text: string | Buffer, step = 100_000, from = prefix): Promise<MetadataDocument> =>
  decodeMetadata(inPieces(Buffer.from(text), step), `${from}_metadata`, from);
const encode = (document: MetadataDocument): Buffer => Buffer.concat([...encodeMetadata(document)]);

const survey = (document: unknown, step = 100_000) =>
  surveyMetadata(inPieces(Buffer.from(JSON.stringify(document)), step), `${prefix}_metadata`, prefix);
/** With the objects as a list, for comparing. */
const plain = (document: MetadataDocument) => ({ ...document, objects: [...document.objects] });

const entry = (number: number, offset: number, length: number): unknown => ({
  [objectKey(prefix, number)]: { compression: 'zlib', length, md5: '0a'.repeat(16), offset },
});
const good = () => ({
  version: '1.0.0',
  backup_id: 'b',
  volume_id: 'v',
  backup_name: null as unknown,
  backup_description: null,
  created_at: '2026-11-22 09:23:39+00:00',
  parent_id: null,
  objects: [entry(1, 0, 32768), entry(2, 32768, 32768)] as unknown,
  volume_meta: '{"version": 2}' as unknown,
});

const ours: MetadataDocument = {
  backupId: 'b',
  volumeId: 'v',
  backupName: 'nächtlich 😀',
  backupDescription: 'line\nbreak',
  createdAt: '2026-11-22 09:23:39+00:00',
  parentId: 'p',
  objects: [
    { key: objectKey(prefix, 1), offset: 0, length: 65536, md5: 'ab'.repeat(16), codec: 'zstd' },
    { key: objectKey(prefix, 2), offset: 131072, length: 512, md5: 'cd'.repeat(16), codec: 'none' },
  ],
  volumeMeta: '{"version": 2, "volume-base-metadata": {"display_name": "\\u00e9"}}',
  extraMetadata: { key: ['value', 1, null, { deeper: true }] },
  delta: {
    mode: 'delta',
    reason: 'the parent’s snapshot is there',
    lengthBytes: 131584,
    blockSize: 512,
    base: {
      backend: 'node-1@lvm',
      volumeName: 'volume-v',
      volumeIdentity: 'id 1',
      snapshotName: 'backup.b.snap.1',
      snapshotIdentity: 'id 2',
    },
    readBytes: 66048,
    storedBytes: 1234,
  },
};

describe('documents of Cinder', () => {
  const names = readdirSync(fixtures).filter((name) => name.endsWith('_metadata.json'));
  for (const name of names) {
    for (const step of [1, 1000, 100_000]) {
      test(`${name} is decoded and encoded to the same bytes (pieces of ${step})`, async () => {
        const text = readFileSync(new URL(name, fixtures));
        const first = Object.keys(JSON.parse(text.toString()).objects[0])[0] ?? '';
        const document = await decode(text, step, first.slice(0, -'-00001'.length));
        expect(document.objects.length).toBeGreaterThan(0);
        expect(encode(document).toString()).toBe(text.toString());
      });
    }
  }

  test('a reason that is too long for its reader is cut, and the record is read back', async () => {
    if (ours.delta === null) throw new Error('the document has a record');
    const delta = { ...ours.delta, reason: 'é'.repeat(5000) };
    const document = await decode(encode({ ...ours, delta }).toString());
    expect(document.delta).toEqual({ ...delta, reason: 'é'.repeat(4096) });
  });

  test('every spelling of a codec is read', async () => {
    const spellings = {
      none: 'none',
      off: 'none',
      no: 'none',
      zlib: 'zlib',
      gzip: 'zlib',
      bz2: 'bz2',
      bzip2: 'bz2',
      ZSTD: 'zstd',
    };
    for (const [spelling, codec] of Object.entries(spellings)) {
      const document = await decode(JSON.stringify(good()).replaceAll('"zlib"', `"${spelling}"`));
      expect(document.objects.at(0)?.codec).toBe(codec);
    }
  });

  test('an empty list of objects is written as Python writes it', async () => {
    const text = encode({ ...ours, objects: [], delta: null, extraMetadata: null }).toString();
    expect(text).toContain('"objects": [],\n');
    expect([...(await decode(text)).objects]).toEqual([]);
  });

  test('a document older than increments needs no parent, name or volume metadata', async () => {
    const { version, backup_id, volume_id, objects } = good();
    const document = await decode(JSON.stringify({ version, backup_id, volume_id, objects }));
    expect(document).toMatchObject({ parentId: null, backupName: null, volumeMeta: null, delta: null });
  });
});

describe('documents of ours', () => {
  for (const step of [1, 17, 100_000]) {
    test(`come back whole (pieces of ${step})`, async () => {
      expect(plain(await decode(encode(ours), step))).toEqual(ours);
    });
  }

  test('keep their keys in the order of Python', () => {
    const keys = Object.keys(JSON.parse(encode(ours).toString()));
    expect(keys).toEqual(keys.toSorted());
    expect(keys).toContain('cinder_delta');
    expect(keys).toContain('extra_metadata');
  });

  test('are written in pieces, however many objects there are', async () => {
    const objects = Array.from({ length: 20_000 }, (_, n) => ({
      key: objectKey(prefix, n + 1),
      offset: n * 512,
      length: 512,
      md5: 'ef'.repeat(16),
      codec: 'none' as const,
    }));
    const pieces = [...encodeMetadata({ ...ours, objects })];
    expect(Math.max(...pieces.map((piece) => piece.length))).toBeLessThan(128 * 1024);
    expect([...(await decode(Buffer.concat(pieces))).objects]).toEqual(objects);
  });

  const foreign: readonly [string, unknown][] = [
    ['of a later version', { version: 2, mode: 'delta' }],
    ['of another shape', { version: 1, mode: 'sideways' }],
    ['that is a number', 5],
    ['that is a list', [1, [2]]],
    ['that is null', null],
  ];
  for (const [what, value] of foreign) {
    test(`a cinder_delta ${what} counts as absent`, async () => {
      expect((await decode(JSON.stringify({ ...good(), cinder_delta: value }))).delta).toBeNull();
    });
  }
});

test('unknown keys, at the top and in an object, are passed over', async () => {
  const text = JSON.stringify({ ...good(), future: { objects: [{ x: {} }], deep: [[[1]]] }, __proto: 1 });
  const more = text.replaceAll('"md5"', '"novel": {"md5": 5, "list": [1, {"offset": "no"}]}, "md5"');
  const document = await decode(more.replace('{', '{"__proto__": {"version": "9"}, '));
  expect(document.objects).toHaveLength(2);
  expect(plain(document)).toEqual(plain(await decode(JSON.stringify(good()))));
});

test('objects come sorted by offset, whatever their order in the list', async () => {
  const document = await decode(
    JSON.stringify({ ...good(), objects: [entry(2, 32768, 512), entry(1, 0, 512)] }),
  );
  expect(Array.from(document.objects, ({ offset }) => offset)).toEqual([0, 32768]);
});

describe('what is wrong is corrupt, and the sentence names the object', () => {
  const objects = (...list: unknown[]) => ({ ...good(), objects: list });
  const field = (key: string, value: unknown) =>
    objects({
      [objectKey(prefix, 1)]: {
        compression: 'none',
        length: 5,
        md5: '0a'.repeat(16),
        offset: 0,
        [key]: value,
      },
    });
  const unordered = 'overlap in an order that is not that of the names';
  const bad: readonly [string, unknown][] = [
    ['a list', [good()]],
    ['a string', 'x'],
    ['no version', { ...good(), version: undefined }],
    ['no backup id', { ...good(), backup_id: undefined }],
    ['a null backup id', { ...good(), backup_id: null }],
    ['a backup id that is an object', { ...good(), backup_id: {} }],
    ['no volume id', { ...good(), volume_id: undefined }],
    ['a name that is a number', { ...good(), backup_name: 5 }],
    ['a name of 5000 characters', { ...good(), backup_name: 'x'.repeat(5000) }],
    ['no objects', { ...good(), objects: undefined }],
    ['objects that are a map', { ...good(), objects: { [objectKey(prefix, 1)]: {} } }],
    ['objects that are null', { ...good(), objects: null }],
    ['an object that is a string', objects('x')],
    ['an object that is a list', objects([])],
    ['an empty object', objects({})],
    ['an object with two names', objects(Object.assign({}, entry(1, 0, 5), entry(2, 5, 5)))],
    ['an object whose description is a list', objects({ [objectKey(prefix, 1)]: [] })],
    ['an object whose description is a number', objects({ [objectKey(prefix, 1)]: 5 })],
    ['a name outside of the prefix', objects({ 'other-00001': { compression: 'none' } })],
    ['a name that climbs out', objects({ [`${prefix}/../../x-00001`]: {} })],
    ['the name of a closing object', objects({ [`${prefix}_metadata`]: {} })],
    ['a name that stands twice', objects(entry(1, 0, 5), entry(1, 5, 5))],
    ['an offset that is negative', field('offset', -1)],
    ['an offset that is a fraction', field('offset', 0.5)],
    ['an offset that is a string', field('offset', '0')],
    ['an offset that is an object', field('offset', {})],
    ['an offset beyond 2^53', field('offset', 2 ** 60)],
    ['an end beyond 2^53', field('offset', Number.MAX_SAFE_INTEGER)],
    ['a missing offset', field('offset', undefined)],
    ['a length of zero', field('length', 0)],
    ['a missing length', field('length', undefined)],
    ['an md5 of 31 digits', field('md5', 'a'.repeat(31))],
    ['an md5 that is no hex', field('md5', 'g'.repeat(32))],
    ['a missing md5', field('md5', undefined)],
    ['an unknown codec', field('compression', 'lzma')],
    ['a codec that is null', field('compression', null)],
    ['a codec called constructor', field('compression', 'constructor')],
    ['a missing codec', field('compression', undefined)],
    [unordered, objects(entry(2, 0, 512), entry(1, 0, 512))],
    ['volume metadata that is an object', { ...good(), volume_meta: {} }],
  ];
  for (const [what, document] of bad) {
    test(what, async () => {
      for (const step of [1, 100_000]) {
        const said = { code: 'corrupt', message: expect.stringContaining(`${prefix}_metadata`) };
        await expect(decode(JSON.stringify(document), step)).rejects.toMatchObject(said);
        if (what !== unordered) await expect(survey(document, step)).rejects.toMatchObject(said);
        const written = behindAnother(document);
        if (written !== undefined) await expect(decode(written, step)).rejects.toMatchObject(said);
      }
    });
  }

  /** As Python writes it, and behind an object that is right: where whole entries are taken at once. */
  function behindAnother(document: unknown): string | undefined {
    if (typeof document !== 'object' || document === null || !('objects' in document)) return undefined;
    const { objects: list } = document;
    if (!Array.isArray(list)) return undefined;
    return JSON.stringify({ ...document, objects: [entry(9000, 2 ** 40, 512), ...list] }, null, 2);
  }

  test('a key that stands twice, at the top or in an object', async () => {
    const text = JSON.stringify(good());
    await expect(decode(text.replace('"parent_id"', '"parent_id": "x", "parent_id"'))).rejects.toThrow(
      /twice/,
    );
    await expect(decode(text.replace('"md5"', '"md5": "x", "md5"'))).rejects.toMatchObject({
      code: 'corrupt',
    });
    await expect(decode(text.replace('"offset"', '"offset": 5, "offset"'))).rejects.toThrow(/twice/);
  });

  test('every cut', async () => {
    const text = Buffer.from(JSON.stringify(good()));
    for (let length = 0; length < text.length; length += 1) {
      await expect(decode(text.subarray(0, length))).rejects.toMatchObject({ code: 'corrupt' });
    }
  });
});

test('another version is version-unsupported', async () => {
  await expect(decode(JSON.stringify({ ...good(), version: '1.0.1' }))).rejects.toMatchObject({
    code: 'version-unsupported',
  });
});

test('an endless document is refused at a bound, without holding it', async () => {
  const padding = Buffer.alloc(1024 * 1024, ' ');
  async function* endless(): AsyncGenerator<Buffer> {
    yield Buffer.from('{');
    for (;;) yield padding;
  }
  await expect(decodeMetadata(endless(), 'name', prefix)).rejects.toMatchObject({ code: 'limit-exceeded' });
});

test('a huge value under a key of ours is refused at a bound', async () => {
  const text = JSON.stringify({ ...good(), extra_metadata: Array(200_000).fill(1) });
  await expect(decode(text)).rejects.toMatchObject({ code: 'limit-exceeded' });
});

test('objects of a table are those of the list, across its blocks and from both ends', async () => {
  const objects = Array.from({ length: 5000 }, (_, n) => ({
    key: objectKey(prefix, n + 1),
    offset: n * 1024,
    length: 1 + (n % 1024),
    md5: (n + 1).toString(16).padStart(32, '0'),
    codec: (['none', 'zlib', 'bz2', 'zstd'] as const)[n % 4] ?? 'none',
  }));
  const read = (await decode(encode({ ...ours, objects }))).objects;
  expect(read.length).toBe(5000);
  for (const index of [0, 15, 16, 63, 64, 1023, 1024, 1025, 4999, -1, -5000]) {
    expect(read.at(index)).toEqual(objects.at(index));
  }
  expect([read.at(5000), read.at(-5001)]).toEqual([undefined, undefined]);
});

test('entries as Python writes them, and others between them, are what they are in any form and cut', async () => {
  const random = createRandom();
  const odd: readonly ((text: string) => string)[] = [
    (text) => text.replace('"md5": "0a', '"md5": "0A'),
    (text) => text.replace('"zlib"', '"GZIP"'),
    (text) => text.replace('"offset"', '"novel": [{}],\n        "offset"'),
    (text) => text.replace(/ +"length"/, '"length"'),
    (text) => text.replace(': {', ':  {'),
  ];
  for (let round = 0; round < 40; round += 1) {
    const list = Array.from({ length: random.between(1, 60) }, (_, n) => entry(n + 1, n * 1000, 1000));
    const plainText = JSON.stringify({ ...good(), objects: list });
    const entries = list.map((one) => {
      const text = JSON.stringify(one, null, 2).replaceAll('\n', '\n    ');
      return random.between(0, 9) === 0 ? random.pick(odd)(text) : text;
    });
    const written = JSON.stringify({ ...good(), objects: ['here'] }, null, 2).replace(
      '"here"',
      entries.join(',\n    '),
    );
    const step = random.pick([1, random.between(2, 400), 100_000]);
    expect(plain(await decode(written, step)), `pieces of ${step}:\n${written}`).toEqual(
      plain(await decode(plainText)),
    );
  }
});

describe('a survey', () => {
  test('tells the head, the numbers and the end of a document', async () => {
    for (const step of [1, 100_000]) {
      const { head, numbers, objectCount, endBytes } = await survey(
        { ...good(), objects: [entry(1, 0, 512), entry(2, 512, 512), entry(7, 5120, 88)] },
        step,
      );
      expect(head).toMatchObject({ backupId: 'b', volumeId: 'v', volumeMeta: '{"version": 2}' });
      expect([...numbers]).toEqual([1, 2, 7]);
      expect([objectCount, endBytes]).toEqual([3, 5208]);
    }
  });

  test('takes overlap in the order of the names, and any order without overlap', async () => {
    await expect(survey({ ...good(), objects: [entry(1, 0, 999), entry(2, 0, 5)] })).resolves.toBeDefined();
    await expect(survey({ ...good(), objects: [entry(2, 0, 5), entry(1, 5, 5)] })).resolves.toBeDefined();
  });

  test('refuses what it cannot judge without holding it', async () => {
    const lists = [
      [entry(2, 0, 5), entry(1, 0, 5)],
      [entry(1, 0, 5), entry(2, 2, 5), entry(4, 10, 5), entry(3, 15, 5)],
      [entry(2 ** 24 + 1, 0, 5)],
    ];
    for (const objects of lists) {
      await expect(survey({ ...good(), objects })).rejects.toMatchObject({ code: 'limit-exceeded' });
    }
  });
});
