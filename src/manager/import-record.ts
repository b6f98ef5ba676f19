/**
 * Imports a backup: what BackupManager.import_record does (cinder/backup/manager.py). cinder-api has made the row, in status
 * `creating`, and taken the quota. A host whose driver is another hands the request to the next of `backup_hosts`; the
 * last of them gives up. Whatever goes wrong, the row ends in `error` and says why. As in Cinder, the chunked drivers
 * do not look at the store: what is not there is told by the first restore.
 */
import { z } from 'zod';
import type { BusContext } from '../bus/bus-context.ts';
import { cinderError } from '../bus/cinder-exceptions.ts';
import { backupTopic } from '../bus/message-bus.ts';
import type { OutgoingRequest } from '../bus/rpc-client.ts';
import type { Entity } from '../bus/versioned-object.ts';
import { replaceBackupMetadata } from '../database/backup-metadata.ts';
import type { BackupChanges } from '../database/backup-columns.ts';
import { moveBackup } from '../database/backups.ts';
import type { Database } from '../database/database.ts';
import type { Logger } from '../log.ts';
import type { Clock } from '../model/clock.ts';
import { isOwnService } from '../model/driver-class.ts';
import { failReasonOf } from '../model/backup.ts';
import { BackupError, isBackupError, messageOf } from '../model/errors.ts';
import { persist } from './row-step.ts';

export type ImportDeps = {
  readonly database: Database;
  readonly driverName: string;
  readonly host: string;
  readonly availabilityZone: string;
  readonly cast: (request: OutgoingRequest, signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
};

export type ImportRequest = {
  readonly backupId: string;
  /** The object as it came: the next host gets the same. */
  readonly backup: Entity;
  readonly service: string;
  readonly url: string;
  /** Hosts that may try after this one; the last one comes next. */
  readonly hosts: readonly string[];
  readonly context: BusContext;
};

/** Hosts of a hand-over may be down: their queue is waited for no longer than this. */
const handOverMs = 60_000;
/** The row is the only trace of the request: a database that is away is waited for. */
const rowTimeoutMs = 600_000;

/** Does the import or hands it over. Throws InvalidBackup and ServiceNotFound, after the row says why. */
export async function importRecord(deps: ImportDeps, request: ImportRequest): Promise<void> {
  if (!isOwnService(deps.driverName, request.service)) return await handOver(deps, request);
  const { backupId, url } = request;
  try {
    await fill(deps, requireRecord(decodeRecord(url), backupId));
  } catch (error) {
    await noteFailure(deps, request, error);
    throw cinderError('InvalidBackup', { reason: failReasonOf(error) }, error);
  }
  deps.log.info({ backup: backupId, host: deps.host }, 'backup imported');
}

async function handOver(deps: ImportDeps, request: ImportRequest): Promise<void> {
  const { backupId, backup, service, hosts, url, context } = request;
  const next = hosts.at(-1);
  if (next === undefined) {
    const reason = `Import record failed, cannot find backup service to perform the import. Request service ${service}.`;
    await noteFailure(deps, request, new BackupError('not-found', reason));
    throw cinderError('ServiceNotFound', { service_id: service });
  }
  deps.log.info({ backup: backupId, service, driver: deps.driverName, to: next }, 'import handed over');
  const args = {
    backup,
    backup_service: service,
    backup_url: url,
    backup_hosts: hosts.slice(0, -1),
  };
  const target = { kind: 'server', topic: backupTopic, server: next } as const;
  try {
    const handed = { target, method: 'import_record', version: '2.0', args, context };
    await deps.cast(handed, AbortSignal.timeout(handOverMs));
  } catch (cause) {
    const reason = `The import could not be handed to the backup service on ${next}: ${messageOf(cause)}`;
    await noteFailure(deps, request, new BackupError('bus-unavailable', reason, { cause }));
    throw cinderError('InvalidBackup', { reason }, cause);
  }
}

/** One transaction for what Python does in two: nobody sees the row filled and still `creating`. */
async function fill(deps: ImportDeps, { id, metadata, ...record }: Decoded): Promise<void> {
  const { database, clock } = deps;
  const now = clock.now();
  const step = { from: ['creating'], to: 'available' } as const;
  const changes: BackupChanges = {
    ...changesOf(record),
    host: deps.host,
    service: deps.driverName,
    availabilityZone: deps.availabilityZone,
  };
  await persist(
    () =>
      database.transaction(async (sql) => {
        await moveBackup(sql, id, step, changes, now);
        if (metadata !== undefined) await replaceBackupMetadata(sql, id, metadata ?? {}, now);
      }),
    AbortSignal.timeout(rowTimeoutMs),
  );
}

/** The record in our words; what it does not have stays as it is. */
function changesOf(record: Omit<Decoded, 'id' | 'metadata'>): BackupChanges {
  const { created_at: createdAt, volume_id: volumeId, num_dependent_backups: dependents } = record;
  return {
    name: record.display_name,
    description: record.display_description,
    container: record.container,
    prefix: record.service_metadata,
    sizeGiB: record.size,
    objectCount: record.object_count,
    // Not those of the record: whoever wrote it could have any volume of the cloud removed.
    tempVolumeId: null,
    tempSnapshotId: null,
    ...(createdAt === undefined || createdAt === null ? {} : { createdAt }),
    ...(volumeId === undefined ? {} : { volumeId }),
    ...(dependents === undefined || dependents === null ? {} : { dependents }),
    ...given('parentId', record.parent_id),
    ...given('snapshotId', record.snapshot_id),
    ...given('dataTimestamp', record.data_timestamp),
    ...given('restoreVolumeId', record.restore_volume_id),
    ...given('encryptionKeyId', record.encryption_key_id),
  };
}

function given<Name extends keyof BackupChanges>(
  name: Name,
  value: BackupChanges[Name] | undefined,
): BackupChanges {
  return value === undefined ? {} : { [name]: value };
}

/**
 * Writes the reason into the row. The API has taken the record's size from the quota: it goes into the row too, so that the
 * deletion gives back as much. (Python leaves it out, and the quota too high.)
 */
async function noteFailure(
  { database, clock, log }: ImportDeps,
  { backupId, url }: ImportRequest,
  error: unknown,
): Promise<void> {
  const sizeGiB = sizeOf(url);
  const changes = { failReason: failReasonOf(error), ...(sizeGiB === undefined ? {} : { sizeGiB }) };
  const step = { from: ['creating'], to: 'error' } as const;
  try {
    await persist(
      () => moveBackup(database.sql, backupId, step, changes, clock.now()),
      AbortSignal.timeout(rowTimeoutMs),
    );
  } catch (err) {
    if (!isBackupError(err, 'stale-update', 'not-found'))
      throw new AggregateError([error, err], 'a failed import, and its row', { cause: err });
    log.warn({ backup: backupId, err }, 'a failed import was taken out of our hands');
  }
}

const text = z.string().nullable();
const count = z.number().int().nonnegative();
const time = z
  .string()
  .nullable()
  .transform((value, issues) => {
    if (value === null) return null;
    const date = new Date(/(?:z|[+-]\d\d:?\d\d)$/iu.test(value) ? value : `${value}Z`);
    if (Number.isNaN(date.getTime())) issues.addIssue(`"${value}" is not a time`);
    return date;
  });

const recordSchema = z.object({
  id: z.string(),
  display_name: text,
  display_description: text,
  container: text,
  size: count,
  service_metadata: text,
  object_count: count.nullable(),
  created_at: time.exactOptional(),
  volume_id: z.string().exactOptional(),
  parent_id: text.exactOptional(),
  num_dependent_backups: count.nullable().exactOptional(),
  snapshot_id: text.exactOptional(),
  data_timestamp: time.exactOptional(),
  restore_volume_id: text.exactOptional(),
  encryption_key_id: text.exactOptional(),
  metadata: z.record(z.string(), z.string()).nullable().exactOptional(),
});

type Decoded = z.infer<typeof recordSchema>;

const requiredFields = [
  'display_name',
  'display_description',
  'container',
  'size',
  'service_metadata',
  'object_count',
  'id',
];

type Fields = Readonly<Record<string, unknown>>;

/** The record of a `backup_url` (Backup.decode_record). Throws `message-invalid`. */
function decodeRecord(url: string): Fields {
  if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/u.test(url)) throw unreadable('decode');
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(url, 'base64').toString('utf8'));
  } catch (error) {
    throw unreadable('parse', error);
  }
  const record = z.record(z.string(), z.unknown()).safeParse(parsed);
  if (record.success) return record.data;
  throw unreadable('parse', record.error);
}

/** Checks the record. Throws `state-invalid` with the sentences of Cinder, and one of its own for a field of the wrong type. */
function requireRecord(fields: Fields, backupId: string): Decoded {
  const missing = requiredFields.filter((name) => !Object.hasOwn(fields, name));
  if (missing.length > 0) {
    throw new BackupError(
      'state-invalid',
      `Driver successfully decoded imported backup data, but there are missing fields (${missing.join(', ')}).`,
    );
  }
  const parsed = recordSchema.safeParse(fields);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new BackupError(
      'state-invalid',
      `The record cannot be imported: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'wrong shape'}`,
    );
  }
  const { id } = parsed.data;
  if (id === backupId) return parsed.data;
  throw new BackupError(
    'state-invalid',
    `Trying to import backup metadata from id ${id} into backup ${backupId}.`,
  );
}

function sizeOf(url: string): number | undefined {
  try {
    return count.safeParse(decodeRecord(url)['size']).data;
  } catch {
    return undefined;
  }
}

function unreadable(what: 'decode' | 'parse', cause?: unknown): BackupError {
  return new BackupError('message-invalid', `Invalid input received: Can't ${what} backup record.`, {
    cause,
  });
}
