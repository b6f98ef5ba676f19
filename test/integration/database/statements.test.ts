/** The statements on Debian's MariaDB and PostgreSQL, with the tables of Debian's Cinder. */
import { afterAll, beforeAll, describe } from 'vitest';
import type { Database } from '../../../src/database/database.ts';
import { databaseContract, emptyTables } from '../../contract/database.ts';
import {
  makeCinderDatabase,
  openTestDatabase,
  startDatabaseServer,
  type DatabaseServer,
} from '../../support/database-server.ts';

for (const kind of ['mariadb', 'postgresql'] as const) {
  describe(`on ${kind}`, () => {
    let server: DatabaseServer;
    let database: Database;
    beforeAll(async () => {
      server = await startDatabaseServer(kind);
      await makeCinderDatabase(server, 'cinder');
      database = await openTestDatabase(server.url('cinder'));
    });
    afterAll(async () => {
      await database.close();
      await server.stop();
    });

    databaseContract(kind, async () => {
      await emptyTables(database);
      return database;
    });
  });
}
