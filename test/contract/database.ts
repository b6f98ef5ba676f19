/** What every database must do, whatever its dialect: the statements of src/database as tests. Each dialect's own file calls it once. */
import { describe } from 'vitest';
import type { Database } from '../../src/database/database.ts';
import { backupStatements } from './database-backups.ts';
import { cinderRows } from './database-cinder-rows.ts';
import { quotaStatements } from './database-quotas.ts';
import { serviceStatements } from './database-services.ts';
import { volumeStatements } from './database-volumes.ts';

/** A database with Cinder's tables and no row; whoever gives it closes it. Called before each test. */
export type OpenEmpty = () => Promise<Database>;

export function databaseContract(name: string, open: OpenEmpty): void {
  describe(`database contract: ${name}`, () => {
    describe('backups', () => backupStatements(open));
    describe('volumes', () => volumeStatements(open));
    describe('quotas', () => quotaStatements(open));
    describe('services', () => serviceStatements(open));
    describe('rows of Cinder', () => cinderRows(open));
  });
}

/** Deletes every row of the tables that statements write, children first. */
export async function emptyTables({ sql }: Database): Promise<void> {
  const tables = [
    'reservations',
    'quota_usages',
    'workers',
    'messages',
    'backup_metadata',
    'backups',
    'volume_glance_metadata',
    'volume_metadata',
    'volume_admin_metadata',
    'volume_attachment',
    'volume_type_extra_specs',
    'volume_types',
    'snapshots',
    'volumes',
    'services',
  ] as const;
  for (const table of tables) await sql.deleteFrom(table).execute();
}
