import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { decodeVolumeMetadata, encodeVolumeMetadata } from '../../src/layout/volume-metadata.ts';

const recorded = z
  .object({ volume_meta: z.string() })
  .parse(
    JSON.parse(
      readFileSync(new URL('../fixtures/cinder/layout/swift-full_metadata.json', import.meta.url), 'utf8'),
    ),
  ).volume_meta;
const document = z
  .object({
    'volume-base-metadata': z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
  })
  .parse(JSON.parse(recorded));
const base = document['volume-base-metadata'];

test('rows as a database gives them become the string that Cinder wrote', () => {
  const columns = Object.entries(base).toReversed();
  const asDatabase = Object.fromEntries(
    columns.map(([key, value]) => {
      if (typeof value === 'boolean') return [key, value ? 1 : 0];
      if (key === 'created_at' && typeof value === 'string') return [key, new Date(`${value.slice(0, 19)}Z`)];
      if (key.endsWith('_at') && typeof value === 'string')
        return [key, value.slice(0, 19).replace('T', ' ')];
      return [key, value];
    }),
  );
  expect(
    encodeVolumeMetadata({ volume: asDatabase, metadata: { purpose: 'reference' }, glanceMetadata: {} }),
  ).toBe(recorded);
});

test('empty sections are left out, and Glance properties have their own', () => {
  const text = encodeVolumeMetadata({
    volume: base,
    metadata: {},
    glanceMetadata: { image_name: 'jammy ✓' },
  });
  expect(text).not.toContain('"volume-metadata"');
  expect(text.endsWith('"volume-glance-metadata": {"image_name": "jammy \\u2713"}}')).toBe(true);
});

test('fractions of a second keep six digits', () => {
  const volume = {
    ...base,
    created_at: '2026-11-22 09:12:14.123',
    updated_at: new Date('2026-11-22T09:12:14.005Z'),
  };
  const text = encodeVolumeMetadata({ volume, metadata: {}, glanceMetadata: {} });
  expect(text).toContain('"created_at": "2026-11-22T09:12:14.123000"');
  expect(text).toContain('"updated_at": "2026-11-22T09:12:14.005000"');
});

test('a restore takes name, description, encryption key, type and properties', () => {
  expect(decodeVolumeMetadata(recorded, 'b')).toEqual({
    base: {
      displayName: base['display_name'],
      displayDescription: base['display_description'],
      encryptionKeyId: null,
      volumeTypeId: base['volume_type_id'],
    },
    metadata: { purpose: 'reference' },
  });
});

test('version 1 restores no encryption key', () => {
  const text = '{"version": 1, "volume-base-metadata": {"display_name": "n", "encryption_key_id": "k"}}';
  expect(decodeVolumeMetadata(text, 'b')).toEqual({ base: { displayName: 'n' } });
});

test('a backup without volume metadata restores none', () => {
  expect(decodeVolumeMetadata(null, 'b')).toBeNull();
});

test('an unknown version is version-unsupported', () => {
  expect(() => decodeVolumeMetadata('{"version": 3}', 'b')).toThrow(
    expect.objectContaining({ code: 'version-unsupported' }),
  );
});

test('what is no such document is corrupt and names the backup', () => {
  const bad = ['{', '[]', '5', '{}', '{"version": "2"}', '{"version": 2, "volume-metadata": []}'];
  bad.push('{"version": 2, "volume-base-metadata": {"display_name": {}}}');
  for (const text of bad) {
    expect(() => decodeVolumeMetadata(text, 'backup-7'), text).toThrow(
      expect.objectContaining({ code: 'corrupt', message: expect.stringContaining('backup-7') }),
    );
  }
});
