/** Rows recorded from a real Cinder's database (test/fixtures/cinder/rows): put into a database, and compared with one. */
import { readFileSync } from 'node:fs';
import { sql as raw } from 'kysely';
import { z } from 'zod';
import type { Sql } from '../../src/database/database.ts';
import { readTime } from '../../src/database/row-values.ts';

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
  'volumes',
  'volume_metadata',
  'snapshots',
  'backups',
  'backup_metadata',
  'quota_usages',
] as const;

/** Columns that refer to rows which nothing here needs. */
const foreign = new Set(['service_uuid', 'allocated_id']);
const flags = new Set([
  'deleted',
  'bootable',
  'multiattach',
  'shared_targets',
  'use_quota',
  'race_preventer',
]);
const isTime = (name: string) => name.endsWith('_at') || name === 'data_timestamp';

/** A value as statements give it: flags as booleans, times as Dates. */
function toValue(name: string, value: string | number | null): unknown {
  if (value === null) return null;
  if (flags.has(name)) return value === 1;
  return isTime(name) && typeof value === 'string' ? readTime(value) : value;
}

/** Makes the rows what a recording says; of a backup that is there already only `status`, `host` and `restore_volume_id`. */
export async function putRows(sql: Sql, recorded: RecordedTables): Promise<void> {
  for (const table of tables) {
    for (const row of recorded[table] ?? []) {
      const isKnown = (await readRow(sql, table, row['id'])) !== undefined;
      const taken = ['status', 'host', 'restore_volume_id'];
      const columns = Object.entries(row)
        .filter(([name]) => !foreign.has(name))
        .filter(([name]) => !isKnown || table !== 'backups' || taken.includes(name))
        .map(([name, value]) => ({ name: raw.ref(name), value: raw`${toValue(name, value)}` }));
      const names = raw.join(columns.map(({ name }) => name));
      const values = raw.join(columns.map(({ value }) => value));
      const sets = raw.join(columns.map(({ name, value }) => raw`${name} = ${value}`));
      const write = isKnown
        ? raw`update ${raw.table(table)} set ${sets} where id = ${row['id']}`
        : raw`insert into ${raw.table(table)} (${names}) values (${values})`;
      await write.execute(sql);
    }
  }
}

/** A row in the form of the recordings: flags as 0 and 1, times without a fraction. */
export async function readRow(
  sql: Sql,
  table: string,
  id: unknown,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  const { rows } = await raw<
    Record<string, unknown>
  >`select * from ${raw.table(table)} where id = ${id}`.execute(sql);
  const [row] = rows;
  if (row === undefined) return undefined;
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, plain(name, value)]));
}

function plain(name: string, value: unknown): unknown {
  if (typeof value === 'boolean') return Number(value);
  if (value instanceof Date) return value.toISOString().slice(0, 19).replace('T', ' ');
  return isTime(name) && typeof value === 'string' ? value.slice(0, 19) : value;
}
