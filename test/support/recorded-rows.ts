/** Rows recorded from a real Cinder's database (test/fixtures/cinder/rows): put into a database, and compared with one. */
import { readFileSync } from 'node:fs';
import { sql as raw } from 'kysely';
import { z } from 'zod';
import type { Sql } from '../../src/database/database.ts';

const cell = z.union([z.string(), z.number(), z.null()]);
export type RecordedRow = Readonly<Record<string, z.infer<typeof cell>>>;
export type RecordedTables = Readonly<Record<string, readonly RecordedRow[]>>;

const recording = z.record(z.string(), z.record(z.string(), z.array(z.record(z.string(), cell))));

/** The tables at one moment of a recording, such as `after`. */
export function recordedRows(name: string, moment: string): RecordedTables {
  const file = new URL(`../fixtures/cinder/rows/${name}.json`, import.meta.url);
  const tables = recording.parse(JSON.parse(readFileSync(file, 'utf8')))[moment];
  if (tables === undefined) throw new Error(`${name} does not tell of ${moment}`);
  return tables;
}

/** The tables whose rows a backup service reads and writes. */
const tables = [
  'backups',
  'backup_metadata',
  'volumes',
  'volume_metadata',
  'snapshots',
  'quota_usages',
] as const;

/** Makes the rows what a recording says; of a backup that is there already only `status`, `host` and `restore_volume_id`. */
export async function putRows(sql: Sql, recorded: RecordedTables): Promise<void> {
  for (const table of tables) {
    for (const row of recorded[table] ?? []) {
      const known = table === 'backups' && (await readRow(sql, table, row['id'])) !== undefined;
      const columns = known
        ? { status: row['status'], host: row['host'], restore_volume_id: row['restore_volume_id'] }
        : row;
      const names = Object.keys(columns).map((name) => raw.ref(name));
      const values = Object.values(columns);
      const sets = names.map((name, index) => raw`${name} = ${values[index]}`);
      const write = known
        ? raw`update ${raw.table(table)} set ${raw.join(sets)} where id = ${row['id']}`
        : raw`insert into ${raw.table(table)} (${raw.join(names)}) values (${raw.join(values)})
              on conflict (id) do update set ${raw.join(sets)}`;
      await write.execute(sql);
    }
  }
}

/** A row as the database has it, times without their fraction. */
export async function readRow(
  sql: Sql,
  table: string,
  id: unknown,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  const { rows } = await raw<
    Record<string, unknown>
  >`select * from ${raw.table(table)} where id = ${id}`.execute(sql);
  return rows[0];
}
