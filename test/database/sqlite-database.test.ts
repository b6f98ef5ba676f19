import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';
import { findBackup, insertBackup } from '../../src/database/backups.ts';
import { openSqliteDatabase } from '../../src/database/sqlite/sqlite-database.ts';
import { lockStateDirectory } from '../../src/database/sqlite/sqlite-lock.ts';
import { loopMountObstacle, mountLoop } from '../support/loop-mount.ts';
import { newBackup } from './rows.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-'));
});
afterEach(() => rm(directory, { recursive: true }));

test('rows are still there when the database is opened again', async () => {
  const path = join(directory, 'a.sqlite');
  const now = new Date('2026-11-22T09:12:16.991Z');
  const backup = newBackup({ name: 'kept' });
  const first = openSqliteDatabase(path);
  await insertBackup(first.sql, backup, now);
  await first.close();

  const second = openSqliteDatabase(path);
  const found = await findBackup(second.sql, backup.id);
  await second.close();
  expect(found?.name).toBe('kept');
  expect(found?.createdAt).toEqual(now);
});

test('the file is in WAL mode and has the columns of cinder', () => {
  const path = join(directory, 'a.sqlite');
  void openSqliteDatabase(path).close();
  const raw = new DatabaseSync(path);
  expect(raw.prepare('PRAGMA journal_mode').get()).toEqual({ journal_mode: 'wal' });
  const columns = raw.prepare('PRAGMA table_info(backups)').all();
  expect(columns.map((column) => column['name'])).toContain('num_dependent_backups');
  raw.close();
});

test('a file of a newer version is refused and left alone', () => {
  const path = join(directory, 'a.sqlite');
  const raw = new DatabaseSync(path);
  raw.exec('PRAGMA user_version = 99');
  expect(() => openSqliteDatabase(path)).toThrow(/schema version 99/);
  expect(raw.prepare('SELECT count(*) AS n FROM sqlite_master').get()).toEqual({ n: 0 });
  raw.close();
});

test('a file that is no database is corrupt, and says which file', async () => {
  const path = join(directory, 'a.sqlite');
  await writeFile(path, 'these are not the bytes of a database '.repeat(100));
  expect(() => openSqliteDatabase(path)).toThrow(expect.objectContaining({ code: 'corrupt' }));
  expect(() => openSqliteDatabase(path)).toThrow(path);
});

test('a directory that does not exist is an unavailable database', () => {
  expect(() => openSqliteDatabase(join(directory, 'none', 'a.sqlite'))).toThrow(
    expect.objectContaining({ code: 'database-unavailable' }),
  );
});

test('a failed transaction leaves nothing', async () => {
  const database = openSqliteDatabase(':memory:');
  const backup = newBackup({});
  const work = database.transaction(async (sql) => {
    await insertBackup(sql, backup, new Date());
    throw new Error('half way');
  });
  await expect(work).rejects.toThrow('half way');
  expect(await findBackup(database.sql, backup.id)).toBeUndefined();
  await database.close();
});

test('a second row of the same id already exists', async () => {
  const database = openSqliteDatabase(':memory:');
  const backup = newBackup({});
  await insertBackup(database.sql, backup, new Date());
  await expect(insertBackup(database.sql, backup, new Date())).rejects.toMatchObject({
    code: 'already-exists',
  });
  await database.close();
});

test('a state directory has one service at a time', () => {
  const path = join(directory, 'lock');
  const first = lockStateDirectory(path, directory);
  expect(() => lockStateDirectory(path, directory)).toThrow(
    expect.objectContaining({ code: 'state-invalid', message: expect.stringContaining(directory) }),
  );
  first.release();
  lockStateDirectory(path, directory).release();
});

const obstacle = await loopMountObstacle('tmpfs');
test.skipIf(obstacle !== null)(
  'a file system without room is a database that is away, undoes what was begun, and comes back with room',
  async () => {
    const mount = await mountLoop('tmpfs', { sizeBytes: 2 * 1024 * 1024 });
    onTestFinished(() => mount.unmount());
    const database = openSqliteDatabase(join(mount.directory, 'a.sqlite'));
    onTestFinished(() => database.close());
    const now = new Date();
    const kept = newBackup({ name: 'kept' });
    await insertBackup(database.sql, kept, now);
    const filling = join(mount.directory, 'filling');
    await writeFile(filling, Buffer.alloc(4 * 1024 * 1024)).catch(() => undefined);

    const lost: string[] = [];
    const fill = async () => {
      for (;;) {
        await database.transaction(async (sql) => {
          for (let n = 0; n < 100; n += 1) {
            const one = newBackup({ name: 'x'.repeat(200) });
            lost.push(one.id);
            await insertBackup(sql, one, now);
          }
        });
        lost.length = 0;
      }
    };
    await expect(fill()).rejects.toMatchObject({
      code: 'database-unavailable',
      retryable: true,
      message: expect.stringContaining('make room'),
    });
    for (const id of lost) expect(await findBackup(database.sql, id)).toBeUndefined();
    expect((await findBackup(database.sql, kept.id))?.name).toBe('kept');
    await rm(filling);
    const later = newBackup({ name: 'later' });
    await database.transaction(async (sql) => {
      await insertBackup(sql, later, now);
    });
    expect((await findBackup(database.sql, later.id))?.name).toBe('later');
  },
);
