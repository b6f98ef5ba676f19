import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { readContext, type BusContext } from '../../src/bus/bus-context.ts';
import { decodeEnvelope, isJsonObject } from '../../src/bus/envelope.ts';
import { renderFailure } from '../../src/bus/failure.ts';
import type { OutgoingRequest } from '../../src/bus/rpc-client.ts';
import { parseReply, parseRequest } from '../../src/bus/rpc-message.ts';
import { decodeMap, encodeEntity, type EntityMap } from '../../src/bus/versioned-object.ts';
import { listBackupMetadata } from '../../src/database/backup-metadata.ts';
import type { Database } from '../../src/database/database.ts';
import { openSqliteDatabase } from '../../src/database/sqlite/sqlite-database.ts';
import { createLogger } from '../../src/log.ts';
import { createHostEndpoints, type HostMethod } from '../../src/manager/host-endpoints.ts';
import { createNamedLoggers, type NamedLoggers } from '../../src/manager/named-loggers.ts';
import { isBackupError } from '../../src/model/errors.ts';
import { wireFixture } from '../support/wire-fixtures.ts';

const swift = 'cinder.backup.drivers.swift.SwiftBackupDriver';
const columns = z.record(z.string(), z.union([z.string(), z.number(), z.null()]));
const recordedRows = z
  .object({
    import: z.object({ before: z.array(columns), after: z.array(columns) }),
    'import-failure': z.object({ after: z.array(columns) }),
  })
  .parse(JSON.parse(readFileSync(new URL('../fixtures/cinder/rows/import.json', import.meta.url), 'utf8')));

let database: Database;
let sent: OutgoingRequest[];
let published: number;
let loggers: NamedLoggers;

beforeEach(() => {
  database = openSqliteDatabase(':memory:');
  sent = [];
  published = 0;
  loggers = createNamedLoggers(createLogger({ level: 'info', destination: { write: () => {} } }));
});

afterEach(() => database.close());

function endpoints(
  changes: { driverName?: string; cast?: (request: OutgoingRequest) => Promise<void> } = {},
) {
  return createHostEndpoints({
    database,
    driverName: changes.driverName ?? swift,
    host: 'refhost',
    availabilityZone: 'nova',
    cast:
      changes.cast ??
      (async (handed) => {
        await Promise.resolve();
        sent.push(handed);
      }),
    clock: { now: () => new Date('2026-11-22T09:13:22Z') },
    log: createLogger({ level: 'silent' }),
    life: { publish: () => void (published += 1) },
    loggers,
  });
}

async function messageOf(name: string) {
  const content = Buffer.from(wireFixture(name).payload_raw);
  return await decodeEnvelope({ content, properties: {} });
}

async function request(name: string): Promise<{ args: EntityMap; context: BusContext }> {
  const { args, context } = parseRequest(await messageOf(name));
  return { args: decodeMap(args), context: readContext(context) };
}

async function replay(name: string, method: HostMethod, on = endpoints()) {
  const { args, context } = await request(name);
  return encodeEntity(await on[method](args, context));
}

async function failureOf(work: Promise<unknown>) {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeDefined();
  const { class: name, message, kwargs } = JSON.parse(renderFailure(error)) as Record<string, unknown>;
  return { name, message, kwargs };
}

/** The row as cinder-api makes it; what it leaves NULL is not in it. */
const madeByApi = z.object({
  id: z.string(),
  volume_id: z.string(),
  user_id: z.string(),
  project_id: z.string(),
  status: z.string(),
  created_at: z.string().transform((text) => new Date(`${text.replace(' ', 'T')}Z`)),
});

async function insertRow(made: z.infer<typeof columns>) {
  await database.sql
    .insertInto('backups')
    .values({ ...madeByApi.parse(made), deleted: false })
    .execute();
}

async function row() {
  const found = await database.sql.selectFrom('backups').selectAll().executeTakeFirstOrThrow();
  return Object.fromEntries(Object.entries(found).map(([key, value]) => [key, wholeSeconds(value)]));
}

/** A time as MySQL keeps it in Cinder's columns. */
function wholeSeconds(value: unknown): unknown {
  return typeof value === 'string' && /^\d{4}-.*\.\d{3}$/.test(value) ? value.slice(0, 19) : value;
}

/** Arguments whose JSON text was changed. */
function rewritten(args: EntityMap, change: (text: string) => string): EntityMap {
  const value: unknown = JSON.parse(change(JSON.stringify(encodeEntity(args))));
  if (!isJsonObject(value)) throw new Error('no object');
  return decodeMap(value);
}

/** The request to import with another record. */
async function importOf(change: (record: Record<string, unknown>) => unknown) {
  const { args, context } = await request('import_record');
  const record = z
    .record(z.string(), z.unknown())
    .parse(JSON.parse(Buffer.from(z.string().parse(args['backup_url']), 'base64').toString()));
  const changed = change(record);
  const text = typeof changed === 'string' ? changed : JSON.stringify(changed);
  const url = Buffer.from(text).toString('base64');
  return { args: { ...args, backup_url: url }, context };
}

const before = recordedRows.import.before[0] ?? {};

test('an export gives the record that Python gives, byte for byte', async () => {
  const reply = parseReply(await messageOf('export_record.reply'));
  expect(await replay('export_record', 'export_record')).toEqual(reply.result);
});

test('a message without metadata is exported with that of the rows', async () => {
  const { args, context } = await request('export_record');
  const id = String(before['id']);
  await insertRow({ ...before, id });
  await database.sql
    .insertInto('backup_metadata')
    .values({ backup_id: id, key: 'owner', value: 'é', deleted: false })
    .execute();
  const bare = rewritten(args, (text) => text.replace('"metadata":{},', ''));
  const result = await endpoints().export_record(bare, context);
  const { backup_url: url } = z.object({ backup_url: z.string() }).parse(result);
  const text = Buffer.from(url, 'base64').toString();
  expect(text).toContain('"metadata": {"owner": "\\u00e9"}');
});

test('the export of a backup of another driver fails as in Python', async () => {
  const reply = parseReply(await messageOf('export_record.failure.reply'));
  const { class: name, message, kwargs } = JSON.parse(reply.failure ?? '') as Record<string, unknown>;
  expect(await failureOf(replay('export_record.failure', 'export_record'))).toEqual({
    name,
    message,
    kwargs,
  });
});

test('a backup that is not available is not exported', async () => {
  const { args, context } = await request('delete_backup');
  expect(await failureOf(endpoints().export_record(args, context))).toMatchObject({
    name: 'InvalidBackup',
    message: 'Invalid backup: Export backup aborted, expected backup status available but got deleting.',
  });
});

test('an import leaves the row that Python leaves', async () => {
  await insertRow(before);
  expect(await replay('import_record', 'import_record')).toBeNull();
  expect(await row()).toEqual(recordedRows.import.after[0]);
});

test('an import brings the metadata of the record in place of the old', async () => {
  const id = String(before['id']);
  await insertRow(before);
  await database.sql
    .insertInto('backup_metadata')
    .values({ backup_id: id, key: 'old', value: '1', deleted: false })
    .execute();
  const { args, context } = await importOf((record) => ({ ...record, metadata: { owner: 'a' } }));
  await endpoints().import_record(args, context);
  expect((await listBackupMetadata(database.sql, [id])).get(id)).toEqual({ owner: 'a' });
});

test('a record of an older release, with fewer fields, is imported', async () => {
  await insertRow(before);
  const { args, context } = await importOf(
    ({ data_timestamp: _at, restore_volume_id: _to, metadata: _user, encryption_key_id: _key, ...record }) =>
      record,
  );
  await endpoints().import_record(args, context);
  expect(await row()).toMatchObject({ status: 'available', data_timestamp: null, size: 1 });
});

test('a record brings no temporary volume or snapshot, and what the row named is forgotten', async () => {
  await insertRow(before);
  const named = { temp_volume_id: 'a', temp_snapshot_id: 'b' };
  await database.sql.updateTable('backups').set(named).execute();
  const { args, context } = await importOf((record) => ({
    ...record,
    temp_volume_id: '4de2eec0-7cc8-4501-966a-439c352d67b2',
    temp_snapshot_id: '7db933dc-9605-4def-a3ec-3376b5fd67f8',
  }));
  await endpoints().import_record(args, context);
  expect(await row()).toMatchObject({ status: 'available', temp_volume_id: null, temp_snapshot_id: null });
});

test('a record from the time when services were modules is imported', async () => {
  await insertRow(before);
  const { args, context } = await request('import_record');
  await endpoints().import_record({ ...args, backup_service: 'cinder.backup.drivers.swift' }, context);
  expect(await row()).toMatchObject({ status: 'available', service: swift });
});

test('the last host gives up on a service that it does not have, and the row says so', async () => {
  const failed = recordedRows['import-failure'].after[0] ?? {};
  await insertRow({ ...failed, status: 'creating', fail_reason: null, updated_at: null });
  expect(await failureOf(replay('import_record.foreign-service', 'import_record'))).toEqual({
    name: 'ServiceNotFound',
    message: 'Service cinder.backup.drivers.nope.Nope could not be found.',
    kwargs: { service_id: 'cinder.backup.drivers.nope.Nope', code: 404 },
  });
  // Python leaves the size NULL, and with it the quota too high when the row is deleted.
  expect(await row()).toEqual({ ...failed, size: 1, updated_at: '2026-11-22 09:13:22' });
});

test('a service of another host is handed to the last of the others, and the row stays', async () => {
  await insertRow(before);
  const { args, context } = await request('import_record');
  const on = endpoints({ driverName: 'cinder.backup.drivers.posix.PosixBackupDriver' });
  await on.import_record({ ...args, backup_hosts: ['one', 'two'] }, context);
  expect(sent).toHaveLength(1);
  expect(sent[0]).toMatchObject({
    target: { kind: 'server', topic: 'cinder-backup', server: 'two' },
    method: 'import_record',
    version: '2.0',
    context: { requestId: context.requestId },
  });
  expect(encodeEntity(sent[0]?.args ?? null)).toEqual(encodeEntity({ ...args, backup_hosts: ['one'] }));
  expect(await row()).toMatchObject({ status: 'creating' });
});

test('a hand-over that fails leaves the row in error', async () => {
  await insertRow(before);
  const { args, context } = await request('import_record');
  const on = endpoints({
    driverName: 'cinder.backup.drivers.posix.PosixBackupDriver',
    cast: () => Promise.reject(new Error('no queue')),
  });
  expect(await failureOf(on.import_record({ ...args, backup_hosts: ['one'] }, context))).toMatchObject({
    name: 'InvalidBackup',
  });
  expect(await row()).toMatchObject({
    status: 'error',
    fail_reason: 'The import could not be handed to the backup service on one: no queue',
  });
});

const bad: readonly [string, (record: Record<string, unknown>) => unknown, string][] = [
  ['no JSON', () => '{', "Invalid input received: Can't parse backup record."],
  ['no object', () => '[1]', "Invalid input received: Can't parse backup record."],
  [
    'fields that are missing',
    ({ container: _container, object_count: _count, ...record }) => record,
    'Driver successfully decoded imported backup data, but there are missing fields (container, object_count).',
  ],
  [
    'another id',
    (record) => ({ ...record, id: '11111111-2222-4333-8444-555555555555' }),
    'Trying to import backup metadata from id 11111111-2222-4333-8444-555555555555 into backup e8c6652d-dedd-4011-8794-f0b099b6bd1f.',
  ],
  [
    'a count that is none',
    (record) => ({ ...record, object_count: -1 }),
    'The record cannot be imported: object_count: Too small: expected number to be >=0',
  ],
  [
    'a time that is none',
    (record) => ({ ...record, created_at: 'yesterday' }),
    'The record cannot be imported: created_at: "yesterday" is not a time',
  ],
];

test.each(bad)('a record with %s leaves the row in error', async (_what, change, reason) => {
  await insertRow(before);
  const { args, context } = await importOf(change);
  expect(await failureOf(endpoints().import_record(args, context))).toMatchObject({
    name: 'InvalidBackup',
    message: `Invalid backup: ${reason}`,
  });
  expect(await row()).toMatchObject({ status: 'error', fail_reason: reason });
});

test('a record that is no base64 leaves the row in error', async () => {
  await insertRow(before);
  const { args, context } = await request('import_record');
  await failureOf(endpoints().import_record({ ...args, backup_url: '%%%' }, context));
  expect(await row()).toMatchObject({
    status: 'error',
    fail_reason: "Invalid input received: Can't decode backup record.",
  });
});

test('an import that was deleted meanwhile is not brought back', async () => {
  await insertRow({ ...before, status: 'deleting' });
  const { args, context } = await request('import_record');
  expect(await failureOf(endpoints().import_record(args, context))).toMatchObject({ name: 'InvalidBackup' });
  expect(await row()).toMatchObject({ status: 'deleting', service: null });
});

test('force delete is supported', async () => {
  const reply = parseReply(await messageOf('check_support_to_force_delete.reply'));
  expect(await replay('check_support_to_force_delete', 'check_support_to_force_delete')).toBe(reply.result);
});

test('a scheduler that asks has the capabilities published', async () => {
  expect(await replay('publish_service_capabilities', 'publish_service_capabilities')).toBeNull();
  expect(published).toBe(1);
});

test('levels are set by prefix and answered as a LogLevelList', async () => {
  for (const name of ['manager', 'chunkeddriver']) loggers.named(`cinder.backup.${name}`);
  const other = loggers.named('oslo_messaging');
  expect(await replay('set_log_levels', 'set_log_levels')).toBeNull();
  expect(other.level).toBe('info');
  const result = await replay('get_log_levels', 'get_log_levels');
  const recorded = parseReply(await messageOf('get_log_levels.reply')).result;
  const listed = z.looseObject({ 'versioned_object.data': z.object({ objects: z.array(z.unknown()) }) });
  const { 'versioned_object.data': pythonData, ...pythonHead } = listed.parse(recorded);
  const { 'versioned_object.data': data, ...head } = listed.parse(result);
  expect(head).toEqual(pythonHead);
  expect(data.objects).toHaveLength(2);
  // Python lists cinder.backup.manager in third place.
  expect(data.objects[0]).toEqual(pythonData.objects[2]);
});

test('a level that Python does not have is refused as Python refuses it', async () => {
  const { args, context } = await request('set_log_levels');
  const loud = rewritten(args, (text) => text.replace('"DEBUG"', '"LOUD"'));
  expect(await failureOf(endpoints().set_log_levels(loud, context))).toMatchObject({
    name: 'InvalidInput',
    message: 'Invalid input received: LOUD is not a valid log level.',
  });
});

test('a request without its arguments is message-invalid', async () => {
  const { args, context } = await request('import_record');
  const { backup_url: _url, ...rest } = args;
  const error = await endpoints()
    .import_record(rest, context)
    .catch((thrown: unknown) => thrown);
  expect(isBackupError(error, 'message-invalid')).toBe(true);
});
