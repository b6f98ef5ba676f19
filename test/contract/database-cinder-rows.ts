/**
 * Rows that a real Cinder left, before and after its backup service worked on them (test/fixtures/cinder/rows). The statements
 * start from the same rows and must end with the same; ids and times of the run are given to them.
 */
import { readFile } from 'node:fs/promises';
import { sql as raw } from 'kysely';
import { beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { countDependent, moveBackup, softDeleteBackup } from '../../src/database/backups.ts';
import type { Database } from '../../src/database/database.ts';
import { insertFailureMessage } from '../../src/database/messages.ts';
import { giveBackQuota } from '../../src/database/quotas.ts';
import { readFlag, readTime } from '../../src/database/row-values.ts';
import type { Tables } from '../../src/database/tables.ts';
import { setVolumeMetadata } from '../../src/database/volume-metadata.ts';
import { moveVolume } from '../../src/database/volumes.ts';
import type { OpenEmpty } from './database.ts';

const rowSchema = z.record(z.string(), z.union([z.string(), z.number(), z.null()]));
const recordingSchema = z.record(z.string(), z.record(z.string(), z.array(rowSchema)));
type Row = z.infer<typeof rowSchema>;
type Moment = Readonly<Record<string, readonly Row[]>>;

const insertOrder = [
  'volumes',
  'volume_metadata',
  'backups',
  'backup_metadata',
  'quota_usages',
  'reservations',
] as const satisfies readonly (keyof Tables)[];
const flags = new Set(['deleted', 'bootable', 'multiattach', 'shared_targets', 'use_quota']);

export function cinderRows(open: OpenEmpty): void {
  let database: Database;
  beforeEach(async () => {
    database = await open();
  });

  /** Puts the rows of a moment into the tables. What they refer to beyond them is left out. */
  const putRows = async (moment: Moment) => {
    const known = new Set((moment['quota_usages'] ?? []).map(({ id }) => id));
    for (const table of insertOrder) {
      for (const row of moment[table] ?? []) {
        if (table === 'reservations' && !known.has(row['usage_id'] ?? null)) continue;
        const { allocated_id: _, service_uuid: __, ...columns } = row;
        const names = Object.keys(columns).map((name) => raw.ref(name));
        const values = Object.entries(columns).map(([name, value]) => raw`${toValue(table, name, value)}`);
        await raw`insert into ${raw.table(table)} (${raw.join(names)}) values (${raw.join(values)})`.execute(
          database.sql,
        );
      }
    }
  };

  const rowOf = async (table: 'backups' | 'volumes' | 'messages', id: unknown) => {
    const row = await database.sql
      .selectFrom(table)
      .selectAll()
      .where('id', '=', String(id))
      .executeTakeFirstOrThrow();
    return plain(row);
  };

  test('a deletion ends as that of cinder-backup', async () => {
    const { before, after, start } = await readMoments('delete', 'just after the API answered');
    await putRows({ ...start, backups: [...(start['backups'] ?? []), parentRow(before)] });
    const [backup] = start['backups'] ?? [];
    const [parent] = after['parent'] ?? [];
    const now = new Date('2026-11-22T09:13:28Z');
    await database.transaction(async (sql) => {
      await giveBackQuota(sql, { projectId: String(backup?.['project_id']), sizeGiB: 1 }, now);
      await softDeleteBackup(sql, String(backup?.['id']), now);
      await countDependent(sql, String(backup?.['parent_id']), -1, now);
    });
    expect(await rowOf('backups', backup?.['id'])).toEqual(plain(after['backups']?.[0] ?? {}));
    expect(await rowOf('backups', parent?.['id'])).toMatchObject(plain(parent ?? {}));
    const usages = await database.sql.selectFrom('quota_usages').selectAll().orderBy('id').execute();
    expect(usages.map(plain)).toEqual((after['quota_usages'] ?? []).map(plain));
    const made = await database.sql.selectFrom('reservations').selectAll().where('delta', '<', 0).execute();
    const wanted = (after['reservations'] ?? []).filter(({ delta }) => Number(delta) < 0);
    const nameless = (row: object): Record<string, unknown> => ({
      ...plain(row),
      id: null,
      uuid: null,
      allocated_id: null,
    });
    const sorted = (rows: readonly object[]) =>
      rows.map(nameless).toSorted((one, two) => (orderKey(one) < orderKey(two) ? -1 : 1));
    expect(sorted(made)).toEqual(sorted(wanted));
  });

  test('an increment ends as that of cinder-backup', async () => {
    const { after, start } = await readMoments('backup-incremental', 'just after the API answered');
    const [wanted] = after['backups'] ?? [];
    const [parent] = after['parent'] ?? [];
    const before = {
      ...wanted,
      ...parent,
      num_dependent_backups: null,
      parent_id: null,
      status: 'available',
    };
    await putRows({ ...start, backups: [...(start['backups'] ?? []), before] });
    const now = new Date('2026-11-22T09:12:33Z');
    const volumeId = String(wanted?.['volume_id']);
    await database.transaction(async (sql) => {
      await moveBackup(
        sql,
        String(wanted?.['id']),
        { from: ['creating'], to: 'available' },
        {
          host: 'refhost',
          container: String(wanted?.['container']),
          prefix: String(wanted?.['service_metadata']),
          service: String(wanted?.['service']),
          objectCount: Number(wanted?.['object_count']),
        },
        now,
      );
      await countDependent(sql, String(parent?.['id']), 1, now);
      const step = { from: ['backing-up'], to: 'available' } as const;
      await moveVolume(sql, volumeId, step, { previousStatus: 'backing-up' }, now);
    });
    expect(await rowOf('backups', wanted?.['id'])).toEqual(plain(wanted ?? {}));
    expect(await rowOf('backups', parent?.['id'])).toMatchObject(plain(parent ?? {}));
    const [volume] = after['volumes'] ?? [];
    expect({ ...(await rowOf('volumes', volumeId)), service_uuid: null }).toEqual({
      ...plain(volume ?? {}),
      service_uuid: null,
    });
  });

  test('a restore ends as that of cinder-backup', async () => {
    const { after, start } = await readMoments('restore', 'just after the API answered');
    await putRows(start);
    const [backup] = start['backups'] ?? [];
    const backupId = String(backup?.['id']);
    const volumeId = String(backup?.['restore_volume_id']);
    const now = new Date('2026-11-22T09:12:44Z');
    await database.transaction(async (sql) => {
      await setVolumeMetadata(sql, volumeId, { purpose: 'reference', src_backup_id: backupId }, now);
      await moveVolume(sql, volumeId, { from: ['restoring-backup'], to: 'available' }, {}, now);
      await moveBackup(sql, backupId, { from: ['restoring'], to: 'available' }, {}, now);
    });
    expect(await rowOf('backups', backupId)).toEqual(plain(after['backups']?.[0] ?? {}));
    expect({ ...(await rowOf('volumes', volumeId)), service_uuid: null }).toEqual({
      ...plain(after['volumes']?.[0] ?? {}),
      service_uuid: null,
    });
    const metadata = await database.sql.selectFrom('volume_metadata').selectAll().orderBy('key').execute();
    const nameless = (row: object) => ({ ...plain(row), id: null });
    expect(metadata.map(nameless)).toEqual((after['volume_metadata'] ?? []).map(nameless));
  });

  test('a failure leaves the rows that cinder-backup leaves', async () => {
    const recording = await readRecording('failure-create');
    const after = recording['after'] ?? {};
    const [backup] = after['backups'] ?? [];
    const [volume] = after['volumes'] ?? [];
    const [message] = after['messages'] ?? [];
    await putRows({
      volumes: [{ ...volume, status: 'backing-up', previous_status: 'available' }],
      backups: [{ ...backup, status: 'creating', fail_reason: null }],
    });
    const now = new Date('2026-11-22T09:14:45Z');
    const reason = `${String(backup?.['fail_reason'])} and what a column has no room for 𝄞`;
    await database.transaction(async (sql) => {
      const step = { from: ['backing-up'], to: 'available' } as const;
      await moveVolume(sql, String(volume?.['id']), step, { previousStatus: 'error_backing-up' }, now);
      const failed = { from: ['creating'], to: 'error' } as const;
      await moveBackup(sql, String(backup?.['id']), failed, { failReason: reason }, now);
    });
    await insertFailureMessage(
      database.sql,
      {
        verb: 'create',
        detail: 'driver',
        resourceId: String(backup?.['id']),
        projectId: String(message?.['project_id']),
        requestId: String(message?.['request_id']),
      },
      { now, timeToLiveMs: 30 * 86_400_000 },
    );
    expect(await rowOf('backups', backup?.['id'])).toEqual(plain(backup ?? {}));
    expect({ ...(await rowOf('volumes', volume?.['id'])), service_uuid: null }).toEqual({
      ...plain(volume ?? {}),
      service_uuid: null,
    });
    const [made] = await database.sql.selectFrom('messages').selectAll().execute();
    expect({ ...plain(made ?? {}), id: null }).toEqual({ ...plain(message ?? {}), id: null });
  });
}

async function readRecording(name: string): Promise<Readonly<Record<string, Moment>>> {
  const file = new URL(`../fixtures/cinder/rows/${name}.json`, import.meta.url);
  return recordingSchema.parse(JSON.parse(await readFile(file, 'utf8')));
}

async function readMoments(name: string, startsAt: string) {
  const recording = await readRecording(name);
  return {
    before: recording['before'] ?? {},
    start: recording[startsAt] ?? {},
    after: recording['after'] ?? {},
  };
}

/** The recording has three columns of the parent: the others are those of its child. */
function parentRow(moment: Moment): Row {
  return { ...moment['backups']?.[0], ...moment['parent']?.[0], parent_id: null, status: 'available' };
}

/** A value as the statements give it: flags as booleans, times as Dates. */
function toValue(table: keyof Tables, name: string, value: Row[string]): unknown {
  if (value === undefined || value === null) return null;
  if (flags.has(name) || (name === 'race_preventer' && table === 'quota_usages')) return value === 1;
  return isTime(name) && typeof value === 'string' ? readTime(value) : value;
}

const orderKey = ({ resource, created_at }: Record<string, unknown>) =>
  JSON.stringify([created_at, resource]);

const isTime = (key: string) => key.endsWith('_at') || key === 'expire' || key === 'data_timestamp';

/** A row in one form, whatever database it comes from. */
function plain(row: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(row).map(([key, value]: [string, unknown]) => {
      if (value === null) return [key, null];
      if (flags.has(key) || typeof value === 'boolean') {
        return [key, readFlag(typeof value === 'boolean' || typeof value === 'number' ? value : null)];
      }
      if (key === 'race_preventer') return [key, value === 1];
      if (isTime(key) && typeof value === 'string') return [key, readTime(value)?.toISOString().slice(0, 19)];
      return [key, value];
    }),
  );
}
