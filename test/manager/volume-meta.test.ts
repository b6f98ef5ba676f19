import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import type { Database } from '../../src/database/database.ts';
import { openSqliteDatabase } from '../../src/database/sqlite/sqlite-database.ts';
import { insertVolume } from '../../src/database/volumes.ts';
import { planRestoredMeta } from '../../src/manager/volume-meta.ts';
import { newVolume } from '../database/rows.ts';

const now = new Date('2026-11-22T10:00:00Z');
const luks = 'aaaaaaaa-0000-4000-8000-00000000000a';
const other = 'aaaaaaaa-0000-4000-8000-00000000000b';
const key = 'bbbbbbbb-0000-4000-8000-00000000000b';

let database: Database;

beforeEach(async () => {
  database = openSqliteDatabase(':memory:');
  await database.sql.insertInto('volume_types').values({ id: luks, name: 'luks', deleted: false }).execute();
});

afterEach(() => database.close());

async function target(changes: { name?: string | null; volumeTypeId?: string } = {}) {
  const volume = newVolume({ name: changes.name ?? null });
  await insertVolume(database.sql, volume, now);
  if (changes.volumeTypeId !== undefined) {
    await database.sql.updateTable('volumes').set({ volume_type_id: changes.volumeTypeId }).execute();
  }
  return volume;
}

/** `volume_meta` of layers, the full backup first. */
function layers(...documents: readonly unknown[]) {
  return documents.map((document, index) => ({
    backupId: `b${index}`,
    volumeMeta: document === null ? null : JSON.stringify(document),
  }));
}

const named = (name: string | null, more: Readonly<Record<string, unknown>> = {}) => ({
  version: 2,
  'volume-base-metadata': { display_name: name, display_description: `about ${name}`, ...more },
});

const encrypted = (typeId: string | null) => ({
  version: 2,
  'volume-base-metadata': { display_name: null, encryption_key_id: key, volume_type_id: typeId },
});

async function plan(to: Awaited<ReturnType<typeof target>>, ...documents: readonly unknown[]) {
  return await planRestoredMeta(database.sql, layers(...documents), to);
}

test('what Cinder wrote gives name, keys and the absence of an encryption key back', async () => {
  const file = new URL('../fixtures/cinder/layout/swift-full_metadata.json', import.meta.url);
  const { volume_meta: volumeMeta } = z
    .object({ volume_meta: z.string() })
    .parse(JSON.parse(readFileSync(file, 'utf8')));
  const to = await target({ name: 'restore_backup_1' });
  expect(await planRestoredMeta(database.sql, [{ backupId: 'b', volumeMeta }], to)).toEqual({
    base: { name: 'src', description: null },
    user: { purpose: 'reference' },
    glance: undefined,
    encryptionKeyId: null,
  });
});

test('the name goes to a volume without one, and to one that was made for the restore', async () => {
  const base = { name: 'old', description: 'about old' };
  for (const name of [null, '', 'restore_backup_7']) {
    expect(await plan(await target({ name }), named('old'))).toMatchObject({ base });
  }
});

test('a volume keeps the name that it has', async () => {
  expect((await plan(await target({ name: 'mine' }), named('old'))).base).toEqual({});
});

test('a backup of a nameless volume gives no name and no description', async () => {
  expect((await plan(await target({ name: 'restore_backup_7' }), named(null))).base).toEqual({});
});

test('of a chain the full backup names the volume, as its name is there when the next comes', async () => {
  const { base } = await plan(await target(), named('first'), named('second'));
  expect(base).toEqual({ name: 'first', description: 'about first' });
  expect((await plan(await target(), named(null), named('second'))).base).toMatchObject({ name: 'second' });
});

test('keys are those of the newest layer that has any', async () => {
  const to = await target();
  const old = { version: 2, 'volume-metadata': { a: '1', b: '2' }, 'volume-glance-metadata': { os: 'x' } };
  expect(await plan(to, old, { version: 2, 'volume-metadata': { c: '3' } })).toMatchObject({
    user: { c: '3' },
    glance: { os: 'x' },
  });
  expect(await plan(to, old, { version: 2 })).toMatchObject({ user: { a: '1', b: '2' } });
});

test('an empty section empties, a missing one leaves', async () => {
  const to = await target();
  expect((await plan(to, { version: 2, 'volume-metadata': {} })).user).toEqual({});
  expect((await plan(to, { version: 2 })).user).toBeUndefined();
});

test('numbers and NULL among the keys become what the column holds', async () => {
  const meta = { version: 2, 'volume-glance-metadata': { min_disk: 0, min_ram: null, hidden: false } };
  expect((await plan(await target(), meta)).glance).toEqual({ min_disk: '0', min_ram: '', hidden: 'false' });
});

test('version 1 says nothing of encryption keys', async () => {
  const meta = { version: 1, 'volume-base-metadata': { display_name: 'n', encryption_key_id: key } };
  expect(await plan(await target(), meta)).toEqual({
    base: { name: 'n' },
    user: undefined,
    glance: undefined,
    encryptionKeyId: undefined,
  });
});

test('a backup without metadata changes nothing', async () => {
  expect(await plan(await target(), null)).toEqual({
    base: {},
    user: undefined,
    glance: undefined,
    encryptionKeyId: undefined,
  });
});

test('an encrypted backup fits a volume of its type', async () => {
  expect(await plan(await target({ volumeTypeId: luks }), encrypted(luks))).toMatchObject({
    base: {},
    encryptionKeyId: key,
  });
});

test('a volume without a type takes that of the encrypted backup', async () => {
  const meta = await plan(await target(), encrypted(luks), encrypted(luks));
  expect(meta).toMatchObject({ base: { volumeTypeId: luks }, encryptionKeyId: key });
});

test('an encrypted backup is not restored to a volume of another type', async () => {
  await expect(plan(await target({ volumeTypeId: other }), encrypted(luks))).rejects.toMatchObject({
    code: 'state-invalid',
    message: `The source volume type '${luks}' is different than the destination volume type '${other}'.`,
  });
});

test('nor where the type of the backup is gone', async () => {
  await expect(plan(await target(), encrypted(other))).rejects.toMatchObject({
    code: 'state-invalid',
    message: `The source volume type '${other}' is not available.`,
  });
});

test('an unknown version is refused by the name of the backup', async () => {
  await expect(plan(await target(), named('a'), { version: 3 })).rejects.toMatchObject({
    code: 'version-unsupported',
    message: expect.stringContaining('backup b1'),
  });
});
