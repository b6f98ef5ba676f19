/** How a database is reached: who is refused, what is no database of Cinder's, TLS, and the session's settings. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql as raw } from 'kysely';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Database } from '../../../src/database/database.ts';
import { makeCertificates, type CertificateFiles } from '../../support/certificates.ts';
import {
  makeCinderDatabase,
  openTestDatabase,
  startDatabaseServer,
  type DatabaseServer,
} from '../../support/database-server.ts';

/** Waits for ever, unless waiting makes no sense. */
const open = (url: string) => openTestDatabase(url, { connectAttempts: -1 });

for (const kind of ['mariadb', 'postgresql'] as const) {
  describe(`on ${kind}`, () => {
    let server: DatabaseServer;
    let directory: string;
    let own: CertificateFiles;
    let foreign: CertificateFiles;

    beforeAll(async () => {
      directory = await mkdtemp(join(tmpdir(), 'cinder-delta-tls-'));
      own = await certificateOf(directory, 'own', '127.0.0.1');
      foreign = await certificateOf(directory, 'foreign', '127.0.0.1');
      server = await startDatabaseServer(kind, { tls: own });
      await makeCinderDatabase(server, 'cinder');
    });
    afterAll(async () => {
      await server.stop();
      await rm(directory, { recursive: true });
    });

    test('a wrong password is refused at once, and not told', async () => {
      const url = server.url('cinder').replace('p%40ss%2Fword', 'wr0ng');
      const opening = open(url);
      await expect(opening).rejects.toMatchObject({ code: 'config-invalid', retryable: false });
      await expect(opening).rejects.not.toThrow(/wr0ng/);
    });

    test('a database that does not exist is refused at once', async () => {
      await expect(open(server.url('nowhere'))).rejects.toMatchObject({ code: 'config-invalid' });
    });

    test('a database without the tables of Cinder says what to run', async () => {
      const other = kind === 'mariadb' ? 'mysql' : 'postgres';
      await expect(open(server.url(other))).rejects.toMatchObject({
        code: 'version-unsupported',
        message: expect.stringContaining('cinder-manage db sync'),
      });
    });

    test('a database that lacks a column is too old, and names it', async () => {
      const database = await open(server.url('cinder'));
      try {
        await raw`alter table volumes rename column encryption_key_id to other`.execute(database.sql);
        await expect(open(server.url('cinder'))).rejects.toMatchObject({
          code: 'version-unsupported',
          message: expect.stringContaining('volumes.encryption_key_id'),
        });
      } finally {
        await raw`alter table volumes rename column other to encryption_key_id`.execute(database.sql);
        await database.close();
      }
    });

    test('columns that Cinder adds later are of no concern', async () => {
      const database = await open(server.url('cinder'));
      try {
        await raw`alter table backups add column of_the_future varchar(10) not null default 'x'`.execute(
          database.sql,
        );
        await (await open(server.url('cinder'))).close();
      } finally {
        await raw`alter table backups drop column of_the_future`.execute(database.sql);
        await database.close();
      }
    });

    test('TLS with the authority that signed the server is taken', async () => {
      const query =
        kind === 'mariadb' ? `?ssl_ca=${own.caFile}` : `?sslmode=verify-ca&sslrootcert=${own.caFile}`;
      const database = await open(server.url('cinder', { query }));
      const cipher = await cipherOf(database);
      await database.close();
      expect(cipher).toMatch(/^TLS_|-GCM-/);
    });

    test(`without options there is ${kind === 'mariadb' ? 'no TLS' : 'the TLS that the server has'}`, async () => {
      const database = await open(server.url('cinder'));
      const cipher = await cipherOf(database);
      await database.close();
      expect(cipher === '').toBe(kind === 'mariadb');
    });

    test('TLS with another authority is refused at once', async () => {
      const query =
        kind === 'mariadb' ? `?ssl_ca=${foreign.caFile}` : `?sslmode=verify-ca&sslrootcert=${foreign.caFile}`;
      await expect(open(server.url('cinder', { query }))).rejects.toMatchObject({ code: 'config-invalid' });
    });

    test('an authority that cannot be read is named', async () => {
      const query =
        kind === 'mariadb' ? '?ssl_ca=/nowhere/ca.pem' : '?sslmode=verify-ca&sslrootcert=/nowhere/ca.pem';
      await expect(open(server.url('cinder', { query }))).rejects.toMatchObject({
        code: 'config-invalid',
        message: expect.stringContaining('/nowhere/ca.pem'),
      });
    });

    const cipherOf = async ({ sql }: Database) => {
      const query =
        kind === 'mariadb'
          ? raw<{ value: string }>`select variable_value as value from information_schema.session_status
              where variable_name = 'Ssl_cipher'`
          : raw<{ value: string }>`select cipher as value from pg_stat_ssl where pid = pg_backend_pid()`;
      const { rows } = await query.execute(sql);
      return rows[0]?.value;
    };

    test('a certificate of another host is refused where the host is checked, and taken where it is not', async () => {
      const loose =
        kind === 'mariadb'
          ? `?ssl_ca=${own.caFile}&ssl_check_hostname=false`
          : `?sslmode=verify-ca&sslrootcert=${own.caFile}`;
      const strict =
        kind === 'mariadb' ? `?ssl_ca=${own.caFile}` : `?sslmode=verify-full&sslrootcert=${own.caFile}`;
      const byName = (query: string) => server.url('cinder', { query }).replace('127.0.0.1', 'localhost');
      await expect(open(byName(strict))).rejects.toMatchObject({ code: 'config-invalid' });
      await (await open(byName(loose))).close();
      await (await open(server.url('cinder', { query: strict }))).close();
    });

    if (kind === 'mariadb') {
      test('a connection comes from the address that the URL names', async () => {
        const opening = open(server.url('cinder', { query: '?bind_address=127.0.0.2' }));
        await expect(opening).rejects.toThrow(/Host '127\.0\.0\.2' is not allowed/);
      });

      test('wsrep_sync_wait is set where it is wanted, also on a server without Galera', async () => {
        for (const mysqlWsrepSyncWait of [undefined, 0, 3]) {
          const database = await openTestDatabase(server.url('cinder'), { mysqlWsrepSyncWait });
          const { rows } = await raw`select @@session.wsrep_sync_wait as value`.execute(database.sql);
          await database.close();
          expect(rows).toEqual([{ value: mysqlWsrepSyncWait ?? 0 }]);
        }
      });

      test('the session is strict, and backslashes in values are only themselves', async () => {
        for (const mysqlSqlMode of ['TRADITIONAL', 'TRADITIONAL,NO_BACKSLASH_ESCAPES', '']) {
          const database = await openTestDatabase(server.url('cinder'), { mysqlSqlMode });
          const text = "a\\'; drop table backups; -- \\";
          const { rows } = await raw`select ${text} as text, @@session.sql_mode as mode`.execute(
            database.sql,
          );
          await database.close();
          expect(rows).toMatchObject([{ text, mode: expect.stringContaining('STRICT_TRANS_TABLES') }]);
        }
      });
    }
  });
}

async function certificateOf(directory: string, authority: string, host: string): Promise<CertificateFiles> {
  const files = (await makeCertificates(directory, authority, [host])).get(host);
  if (files === undefined) throw new Error('no certificate was made');
  return files;
}
