/** The statements on Debian's MariaDB and PostgreSQL, with the tables of Debian's Cinder. */
import { afterAll, beforeAll, describe } from 'vitest';
import type { Database } from '../../../src/database/database.ts';
import { databaseContract, emptyTables } from '../../contract/database.ts';
import {
  makeCinderDatabase,
  openTestDatabase,
  startDatabaseServer,
  upgradeCinderDatabase,
  type DatabaseServer,
} from '../../support/database-server.ts';

for (const kind of ['mariadb', 'postgresql'] as const) {
  describe(`on ${kind}`, () => {
    let server: DatabaseServer;
    let database: Database;
    let newer: Database;
    beforeAll(async () => {
      server = await startDatabaseServer(kind);
      await makeCinderDatabase(server, 'cinder');
      database = await openTestDatabase(server.url('cinder'));
      await makeCinderDatabase(server, 'newer');
      newer = await openTestDatabase(server.url('newer'));
      await upgradeCinderDatabase(newer, kind);
    });
    afterAll(async () => {
      await database.close();
      await newer.close();
      await server.stop();
    });

    databaseContract(`${kind}, Cinder as installed`, async () => {
      await emptyTables(database);
      return database;
    });

    databaseContract(`${kind}, Cinder 2026.1`, async () => {
      await emptyTables(newer);
      return newer;
    });
  });
}
