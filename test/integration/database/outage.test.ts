/** Real servers that die, fall silent, deadlock, or whose answers are lost: what was asked of them is done, once. */
import { randomUUID } from 'node:crypto';
import { sql as raw } from 'kysely';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { DatabaseConfig } from '../../../src/config/database-config.ts';
import { parseDatabaseUrl } from '../../../src/config/database-url.ts';
import {
  countDependent,
  getBackup,
  insertBackup,
  moveBackup,
  softDeleteBackup,
} from '../../../src/database/backups.ts';
import type { Database } from '../../../src/database/database.ts';
import { openMysqlWire } from '../../../src/database/mysql/mysql-wire.ts';
import { openPostgresWire } from '../../../src/database/postgres/postgres-wire.ts';
import { giveBackQuota } from '../../../src/database/quotas.ts';
import { setVolumeMetadata } from '../../../src/database/volume-metadata.ts';
import { insertVolume, moveVolume } from '../../../src/database/volumes.ts';
import { emptyTables } from '../../contract/database.ts';
import { newBackup, newVolume } from '../../database/rows.ts';
import { startCuttingProxy, type CuttingProxy } from '../../support/cutting-proxy.ts';
import {
  makeCinderDatabase,
  openTestDatabase,
  startDatabaseServer,
  type DatabaseServer,
} from '../../support/database-server.ts';

const now = new Date('2026-11-22T09:00:00Z');
const later = new Date('2026-11-22T09:00:07Z');

/** A child is done, and counts with its parent. */
async function finish(database: Database, childId: string, parentId: string): Promise<void> {
  await database.transaction(async (sql) => {
    const step = { from: ['creating'], to: 'available' } as const;
    await moveBackup(sql, childId, step, { objectCount: 3 }, later);
    await countDependent(sql, parentId, 1, later);
  });
}

for (const kind of ['mariadb', 'postgresql'] as const) {
  describe(`on ${kind}`, () => {
    let server: DatabaseServer;
    let proxy: CuttingProxy;
    let direct: Database;
    const opened: Database[] = [];

    beforeAll(async () => {
      server = await startDatabaseServer(kind);
      await makeCinderDatabase(server, 'cinder');
      proxy = await startCuttingProxy(server.port);
      direct = await openTestDatabase(server.url('cinder'));
    });
    afterAll(async () => {
      await direct.close();
      await proxy.close();
      await server.stop();
    });
    beforeEach(() => emptyTables(direct));
    afterEach(async () => {
      for (const database of opened.splice(0)) await database.close();
    });

    const open = async (changes: Partial<DatabaseConfig> = {}) => {
      const database = await openTestDatabase(server.url('cinder', { port: proxy.port }), changes);
      opened.push(database);
      return database;
    };

    /** A parent, and `count` children that are being made. */
    const family = async (count: number) => {
      const parent = newBackup({});
      const children = Array.from({ length: count }, () => newBackup({ parentId: parent.id }));
      for (const backup of [parent, ...children]) await insertBackup(direct.sql, backup, now);
      return { parentId: parent.id, children: children.map(({ id }) => id) };
    };
    const dependents = async (id: string) => (await getBackup(direct.sql, id)).dependents;

    for (const when of ['before the server', 'after the server'] as const) {
      test(`a commit that is cut off ${when} has it is done once`, async () => {
        const database = await open();
        const { parentId, children } = await family(1);
        proxy.plan({ at: /\bcommit/, when, times: 1 });
        await finish(database, children[0] ?? '', parentId);
        expect(proxy.cuts).toBe(1);
        expect(await dependents(parentId)).toBe(1);
        expect((await getBackup(direct.sql, children[0] ?? '')).status).toBe('available');
      });

      test(`a deletion whose commit is cut off ${when} has it gives its quota back once`, async () => {
        const database = await open();
        const { parentId, children } = await family(1);
        await finish(direct, children[0] ?? '', parentId);
        const id = children[0] ?? '';
        await moveBackup(direct.sql, id, { from: ['available'], to: 'deleting' }, {}, later);
        proxy.plan({ at: /\bcommit/, when, times: 1 });
        await database.transaction(async (sql) => {
          await giveBackQuota(sql, { projectId: 'demo', sizeGiB: 1 }, later);
          await softDeleteBackup(sql, id, later);
          await countDependent(sql, parentId, -1, later);
        });
        expect(proxy.cuts).toBe(1);
        expect(await dependents(parentId)).toBe(0);
        const usages = await direct.sql.selectFrom('quota_usages').select('in_use').execute();
        expect(usages).toEqual([{ in_use: 1 }, { in_use: 1 }]);
        expect(await direct.sql.selectFrom('reservations').select('delta').execute()).toHaveLength(2);
      });

      test(`a step alone whose commit is cut off ${when} has it is no stale update`, async () => {
        const database = await open();
        const volume = newVolume({ volumeTypeId: randomUUID() });
        await insertVolume(direct.sql, volume, now);
        proxy.plan({ at: /\bcommit/, when, times: 1 });
        const step = { from: ['available'], to: 'backing-up' } as const;
        await moveVolume(database.sql, volume.id, step, { previousStatus: 'available' }, later);
        proxy.plan({ at: /\bcommit/, when, times: 1 });
        await setVolumeMetadata(database.sql, volume.id, { a: '1' }, later);
        const rows = await direct.sql.selectFrom('volume_metadata').select(['key', 'value']).execute();
        expect(rows).toEqual([{ key: 'a', value: '1' }]);
      });
    }

    test('a row that somebody else moved on is a stale update also after a lost answer', async () => {
      const database = await open();
      const { children } = await family(1);
      const id = children[0] ?? '';
      proxy.plan({ at: /\bcommit/, when: 'before the server', times: 1 });
      let other: Promise<void> | undefined;
      const work = database.transaction(async (sql) => {
        await moveBackup(sql, id, { from: ['creating'], to: 'available' }, {}, later);
        // It waits for the lock of the row, and gets it when the first try is cut off.
        other ??= moveBackup(direct.sql, id, { from: ['creating'], to: 'error' }, {}, now);
        await raw`select 1`.execute(direct.sql);
      });
      await expect(work).rejects.toMatchObject({ code: 'stale-update', details: { status: 'error' } });
      await other;
    });

    test('a select whose answer is lost is asked again', async () => {
      const database = await open();
      const { parentId } = await family(0);
      for (const when of ['before the server', 'after the server'] as const) {
        proxy.plan({ at: /\bselect/, when, times: 2 });
        expect((await getBackup(database.sql, parentId)).id).toBe(parentId);
        expect(proxy.cuts).toBe(2);
      }
    });

    test('idle connections that the server has closed are not noticed', async () => {
      const database = await open();
      const { parentId } = await family(0);
      await Promise.all(Array.from({ length: 5 }, () => getBackup(database.sql, parentId)));
      proxy.reset();
      await Promise.all(Array.from({ length: 5 }, () => getBackup(database.sql, parentId)));
    });

    test('what is being written when the server is killed is written once when it is back', async () => {
      const database = await open();
      const { parentId, children } = await family(60);
      const writing = Promise.all(
        children.map(async (id, index) => {
          if (index === 5) await server.kill();
          await finish(database, id, parentId);
        }),
      );
      await server.start();
      await writing;
      expect(await dependents(parentId)).toBe(60);
      const left = await direct.sql
        .selectFrom('backups')
        .select('id')
        .where('status', '=', 'creating')
        .where('id', 'in', children)
        .execute();
      expect(left).toEqual([]);
    });

    test('a server that is down for longer than allowed is an unavailable database', async () => {
      const database = await open({ connectAttempts: 1, connectRetryMs: 300 });
      const { parentId, children } = await family(1);
      await server.kill();
      try {
        await expect(getBackup(database.sql, parentId)).rejects.toMatchObject({
          code: 'database-unavailable',
        });
        await expect(finish(database, children[0] ?? '', parentId)).rejects.toMatchObject({
          code: 'database-unavailable',
          retryable: true,
        });
        await expect(database.ping()).rejects.toMatchObject({ code: 'database-unavailable' });
      } finally {
        await server.start();
      }
      await finish(database, children[0] ?? '', parentId);
    });

    test('a ping does not wait for a silent server, and a statement does', async () => {
      const database = await open();
      const { parentId } = await family(0);
      await server.halt();
      const reading = getBackup(database.sql, parentId);
      try {
        await expect(database.ping()).rejects.toMatchObject({ code: 'database-unavailable' });
      } finally {
        await server.resume();
      }
      expect((await reading).id).toBe(parentId);
    });

    test('a connection that falls silent in a statement is given up, and in doubt', async () => {
      const address = parseDatabaseUrl(server.url('cinder', { port: proxy.port }));
      if (address.dialect === 'sqlite') throw new Error('the server is no SQLite');
      const login = { ...address, server: 'here', statementTimeoutMs: 2000 };
      const wire = await (kind === 'mariadb'
        ? openMysqlWire({ ...login, sqlMode: '', wsrepSyncWait: undefined })
        : openPostgresWire(login));
      proxy.plan({ at: /\bdelete/, when: 'silence', times: 1 });
      await expect(wire.run('delete from workers', [])).rejects.toMatchObject({
        code: 'database-unavailable',
        details: { outcome: 'unknown' },
      });
      expect(wire.isUsable).toBe(false);
      await wire.close();
    });

    test('closing ends the statements that wait for a server', async () => {
      const database = await open();
      const { parentId } = await family(0);
      await server.kill();
      try {
        const reading = expect(getBackup(database.sql, parentId)).rejects.toMatchObject({
          code: 'database-unavailable',
        });
        await database.close();
        await reading;
      } finally {
        await server.start();
      }
    });

    test('transactions that lock each other out are both done', async () => {
      const database = await open();
      const [one, two] = [newBackup({}), newBackup({})];
      for (const backup of [one, two]) await insertBackup(direct.sql, backup, now);
      let [waiting, tries] = [2, 0];
      const both = new Map<string, () => void>();
      const meet = async (name: string) => {
        waiting -= 1;
        if (waiting > 0) await new Promise<void>((resolve) => both.set(name, resolve));
        for (const go of both.values()) go();
      };
      const countBoth = async (first: string, second: string) => {
        let isFirstTry = true;
        await database.transaction(async (sql) => {
          tries += 1;
          await countDependent(sql, first, 1, later);
          if (isFirstTry) await meet(first);
          isFirstTry = false;
          await countDependent(sql, second, 1, later);
        });
      };
      await Promise.all([countBoth(one.id, two.id), countBoth(two.id, one.id)]);
      expect(tries).toBeGreaterThan(2);
      expect([await dependents(one.id), await dependents(two.id)]).toEqual([2, 2]);
    });

    test('a caller waits for a connection no longer than pool_timeout', async () => {
      const database = await open({ maxConnections: 1, poolTimeoutMs: 200, connectAttempts: 0 });
      const { parentId } = await family(0);
      await database.transaction(async () => {
        await expect(getBackup(database.sql, parentId)).rejects.toMatchObject({
          code: 'database-unavailable',
          message: expect.stringContaining('max_pool_size'),
        });
      });
      expect((await getBackup(database.sql, parentId)).id).toBe(parentId);
    });
  });
}

test('a Galera node that is not ready is asked again', async () => {
  const server = await startDatabaseServer('mariadb');
  try {
    await makeCinderDatabase(server, 'cinder');
    const database = await openTestDatabase(server.url('cinder'));
    const backup = newBackup({});
    await insertBackup(database.sql, backup, now);
    // A table without transactions counts the refusals, which roll back everything else.
    await raw`create table refusals (left_over int) engine = MyISAM`.execute(database.sql);
    await raw`insert into refusals values (3)`.execute(database.sql);
    await raw`create trigger refuse before update on backups for each row begin
      if (select left_over from refusals) > 0 then
        update refusals set left_over = left_over - 1;
        signal sqlstate '08S01' set mysql_errno = 1047, message_text = 'WSREP has not yet prepared node for application use';
      end if; end`.execute(database.sql);
    await moveBackup(database.sql, backup.id, { from: ['creating'], to: 'available' }, {}, later);
    expect((await getBackup(database.sql, backup.id)).status).toBe('available');
    expect((await raw`select left_over from refusals`.execute(database.sql)).rows).toEqual([
      { left_over: 0 },
    ]);
    await database.close();
  } finally {
    await server.stop();
  }
});
