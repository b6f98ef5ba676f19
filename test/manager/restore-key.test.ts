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
  /** Wraps the database that the restore works with. */
  readonly through?: (database: Database) => Database;
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
  const environment = {
    ...rig.environment,
    options: { ...rig.environment.options, rowTimeoutMs: 50 },
    database: rows.through?.(database) ?? database,
    cloud: { ...noCloud, keys: rows.keys ?? keys },
  };
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

/** Transactions get no answer, `times` times: they are made all the same, or not. */
function withoutAnswer(of: Database, times: number, isMade: boolean): Database {
  let left = times;
  const transaction: Database['transaction'] = async (work) => {
    if (left === 0 || isMade) await of.transaction(work);
    if (left === 0) return;
    left -= 1;
    throw new BackupError('database-unavailable', 'no answer');
  };
  const scope = { ...of.sql.scope, transaction };
  const sql = new Proxy(of.sql, {
    get: (target, name) => {
      if (name === 'scope') return scope;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  return { ...of, sql, transaction };
}

test('a database that is away when the key is to be written is waited for', async () => {
  const { volume } = await restore({
    backupKey: 'copy',
    volumeKey: own,
    restored: original,
    through: (each) => withoutAnswer(each, 1, false),
  });
  expect(volume).toBe('copy of copy');
  expect(removed).toEqual([own]);
});

test.each([
  ['stays, when the row names it all the same', true, []],
  ['goes, when the row names the old one', false, ['copy of copy']],
])('the copy of a key whose writing is never answered %s', async (_what, isMade, gone) => {
  const through = (each: Database) => withoutAnswer(each, Infinity, isMade);
  const asked = restore({ backupKey: 'copy', volumeKey: own, restored: original, through });
  await expect(asked).rejects.toMatchObject({ code: 'database-unavailable' });
  expect(removed).toEqual(gone);
});
