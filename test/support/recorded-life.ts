/** Requests and rows of a real Cinder, sent to a rig whose store is a directory and compared with its rows. */
import { expect } from 'vitest';
import type { CloudRig } from './cloud-rig.ts';
import { readRow, type RecordedTables } from './recorded-rows.ts';
import { wireFixture } from './wire-fixtures.ts';

export const swiftDriver = 'cinder.backup.drivers.swift.SwiftBackupDriver';
export const ourDriver = 'cinder.backup.drivers.posix.PosixBackupDriver';

/** Puts a recorded request on the bus, `change` made to its text. */
export async function sendRecorded(
  rig: CloudRig,
  name: string,
  change: (payload: string) => string = (payload) => payload,
): Promise<void> {
  const { exchange, routing_keys: keys, payload_raw: recorded } = wireFixture(name);
  const payload = change(recorded).replaceAll(swiftDriver, ourDriver);
  await rig.publish({ exchange, routingKey: keys[0] ?? '', payload });
}

/** Columns that a run cannot have in common with the recording. */
const ownColumns = ['created_at', 'updated_at', 'deleted_at', 'launched_at', 'data_timestamp'];
/** What a rig lacks: the services of Cinder. */
const foreignColumns = ['service_uuid'];
const storeColumns = ['service', 'container', 'service_metadata', 'object_count'];

/** Compares every row of a table with the recorded one, but for the columns that cannot be alike and those `except`. */
export async function expectRecordedRows(
  rig: CloudRig,
  recorded: RecordedTables,
  table: string,
  except: readonly string[] = [],
): Promise<void> {
  const rows = recorded[table] ?? [];
  const skipped = [...ownColumns, ...storeColumns, ...foreignColumns, ...except];
  expect(rows.length).toBeGreaterThan(0);
  for (const row of rows) {
    const ours = await readRow(rig.database.sql, table, row['id']);
    for (const [column, value] of Object.entries(row)) {
      if (skipped.includes(column)) continue;
      const expected = column === 'availability_zone' ? zoneOf(table, row, value) : value;
      expect.soft(ours?.[column], `${table}.${column} of ${row['id']}`).toEqual(expected);
    }
  }
}

/** The recording is of Zed, whose service leaves the zone empty where nobody asked for one. */
function zoneOf(table: string, row: Readonly<Record<string, unknown>>, value: unknown): unknown {
  return table === 'backups' && row['service'] !== null ? (value ?? 'nova') : value;
}
