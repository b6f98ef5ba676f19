import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { getBackup, insertBackup } from '../../src/database/backups.ts';
import type { Database } from '../../src/database/database.ts';
import { openSqliteDatabase } from '../../src/database/sqlite/sqlite-database.ts';
import { getVolume, insertVolume, setVolumeEncryptionKey } from '../../src/database/volumes.ts';
import { noCloud, type KeyCopies } from '../../src/manager/cloud.ts';
import { restoreKey } from '../../src/manager/restore-key.ts';
import { BackupError } from '../../src/model/errors.ts';
import { newBackup, newVolume } from '../database/rows.ts';
import { startMachine, createRig, type Machine, type Rig } from './rig.ts';

const now = new Date('2026-11-22T10:00:00Z');
const { signal } = new AbortController();
const original = 'key of the source volume';
const own = 'key of the target volume';

let machine: Machine;
let rig: Rig;
let database: Database;
let made: string[];
let removed: string[];

beforeAll(async () => {
  machine = await startMachine();
  rig = createRig(machine);
});

beforeEach(() => {
  database = openSqliteDatabase(':memory:');
  made = [];
  removed = [];
});

afterEach(() => database.close());

afterAll(async () => {
  await rig.close();
  await machine.close();
});

const keys: KeyCopies = {
  clone: async (keyId) => {
    await Promise.resolve();
    made.push(keyId);
    return `copy of ${keyId}`;
  },
  remove: async (keyId) => {
    await Promise.resolve();
    removed.push(keyId);
  },
};

async function restore(rows: {
  readonly backupKey: string | null;
  readonly volumeKey: string | null;
  readonly restored: string | null | undefined;
  readonly keys?: KeyCopies;
}) {
  const backup = newBackup({});
  const volume = newVolume({ status: 'available' });
  await insertVolume(database.sql, volume, now);
  await insertBackup(database.sql, backup, now);
  await database.sql
    .updateTable('backups')
    .set({ status: 'restoring', encryption_key_id: rows.backupKey })
    .execute();
  await setVolumeEncryptionKey(database.sql, volume.id, rows.volumeKey, now);
  const environment = { ...rig.environment, database, cloud: { ...noCloud, keys: rows.keys ?? keys } };
  await restoreKey(
    environment,
    await getBackup(database.sql, backup.id),
    await getVolume(database.sql, volume.id),
    { base: {}, user: undefined, glance: undefined, encryptionKeyId: rows.restored },
    signal,
  );
  return {
    volume: (await getVolume(database.sql, volume.id)).encryptionKeyId,
    backup: (await getBackup(database.sql, backup.id)).encryptionKeyId,
  };
}

test("a volume that was made for the restore gets a copy of the backup's key, and its own is removed", async () => {
  expect(await restore({ backupKey: 'copy', volumeKey: own, restored: original })).toEqual({
    volume: 'copy of copy',
    backup: 'copy',
  });
  expect([made, removed]).toEqual([['copy'], [own]]);
});

test('the volume that was backed up keeps its key', async () => {
  expect(await restore({ backupKey: 'copy', volumeKey: original, restored: original })).toEqual({
    volume: original,
    backup: 'copy',
  });
  expect([made, removed]).toEqual([[], []]);
});

test('a backup of a release that kept no copy takes the key of its metadata for its own', async () => {
  expect(await restore({ backupKey: null, volumeKey: null, restored: original })).toEqual({
    volume: `copy of ${original}`,
    backup: original,
  });
});

test('an encrypted volume to which an unencrypted backup is restored has no key any more', async () => {
  expect(await restore({ backupKey: null, volumeKey: own, restored: null })).toEqual({
    volume: null,
    backup: null,
  });
  expect([made, removed]).toEqual([[], [own]]);
});

test('a backup that says nothing of keys changes none', async () => {
  expect(await restore({ backupKey: null, volumeKey: own, restored: undefined })).toEqual({
    volume: own,
    backup: null,
  });
  expect(removed).toEqual([]);
});

test('a key that cannot be copied leaves the key of the volume', async () => {
  const denied: KeyCopies = { ...keys, clone: () => Promise.reject(new BackupError('store-denied', 'no')) };
  await expect(
    restore({ backupKey: 'copy', volumeKey: own, restored: original, keys: denied }),
  ).rejects.toMatchObject({ code: 'store-denied' });
  expect(removed).toEqual([]);
  const volume = await database.sql.selectFrom('volumes').select('encryption_key_id').executeTakeFirst();
  expect(volume?.encryption_key_id).toBe(own);
});
