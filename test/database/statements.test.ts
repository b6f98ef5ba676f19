import { afterEach } from 'vitest';
import type { Database } from '../../src/database/database.ts';
import { openSqliteDatabase } from '../../src/database/sqlite/sqlite-database.ts';
import { databaseContract } from '../contract/database.ts';

const opened: Database[] = [];
afterEach(async () => {
  for (const database of opened.splice(0)) await database.close();
});

databaseContract('SQLite', () => {
  const database = openSqliteDatabase(':memory:');
  opened.push(database);
  return Promise.resolve(database);
});
