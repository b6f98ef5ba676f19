import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { z } from 'zod';
import {
  backupContainer,
  backupPrefix,
  closedPrefix,
  metadataKey,
  objectKey,
  objectNumber,
  prefixTime,
  sha256FileKey,
} from '../../src/layout/names.ts';

const backup = {
  volumeId: 'e903c8e6-3bdc-4826-bf42-c441ee31e287',
  backupId: 'd3650713-875d-4b65-aaf6-dd0e7f47849c',
  at: new Date('2026-11-22T09:23:41.999Z'),
  availabilityZone: 'nova',
};
const listing = z
  .object({ rows: z.array(z.object({ service_metadata: z.string(), container: z.string() })) })
  .parse(
    JSON.parse(
      readFileSync(new URL('../fixtures/cinder/layout/posix-listing.json', import.meta.url), 'utf8'),
    ),
  );

test('prefix and container of a posix backup are those that Cinder gave', () => {
  expect(backupPrefix('posix', backup)).toBe(listing.rows[0]?.service_metadata);
  expect(backupContainer('posix', backup.backupId, null)).toBe(listing.rows[0]?.container);
});

test('prefix of a Swift or S3 backup holds the time and the zone as path parts', () => {
  const wanted =
    'volume_e903c8e6-3bdc-4826-bf42-c441ee31e287/20261122092341/az_nova_backup_d3650713-875d-4b65-aaf6-dd0e7f47849c';
  expect(backupPrefix('swift', backup)).toBe(wanted);
  expect(backupPrefix('s3', backup)).toBe(wanted);
});

test('the container of the row wins, and the default is volumebackups', () => {
  expect(backupContainer('swift', backup.backupId, null)).toBe('volumebackups');
  expect(backupContainer('posix', backup.backupId, 'elsewhere')).toBe('elsewhere');
});

test('objects are numbered from 1 with at least five digits, and closing objects have their suffix', () => {
  expect(objectKey('p', 1)).toBe('p-00001');
  expect(objectKey('p', 123456)).toBe('p-123456');
  expect(sha256FileKey('p')).toBe('p_sha256file');
  expect(metadataKey('p')).toBe('p_metadata');
});

test('a key tells which backup it closes', () => {
  expect([sha256FileKey('p_1'), metadataKey('p_1')].map(closedPrefix)).toEqual(['p_1', 'p_1']);
  for (const key of ['p-00001', 'p_metadata-00001', '_metadata', 'metadata'])
    expect(closedPrefix(key)).toBe('');
});

test('only the exact name of an object has a number', () => {
  expect(objectNumber('p', 'p-00017')).toBe(17);
  expect(objectNumber('p', 'p-123456')).toBe(123456);
  for (const key of ['p-00000', 'p-0017', 'p-012345', 'p_metadata', 'q-00017', 'p-00017x', 'p/-00017', 'p']) {
    expect(objectNumber('p', key), key).toBeUndefined();
  }
});

test('a time is written in UTC without separators', () => {
  expect(prefixTime(new Date('2026-01-02T03:04:05+02:00'))).toBe('20260102010405');
});

test('hostile ids and zones are refused', () => {
  expect(() => backupPrefix('posix', { ...backup, volumeId: '../../etc' })).toThrow(/volume id/);
  expect(() => backupPrefix('swift', { ...backup, backupId: 'x' })).toThrow(/backup id/);
  expect(() => backupPrefix('swift', { ...backup, availabilityZone: 'a/../b' })).toThrow(
    /storage_availability_zone/,
  );
  expect(() => backupContainer('posix', '..', null)).toThrow(/backup id/);
});
