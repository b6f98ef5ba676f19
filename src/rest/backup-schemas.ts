/** Backups on the wire (cinder/api/schemas/backups.py, cinder/api/v3/views/backups.py, microversion 3.56). */
import { z } from 'zod';
import { flag, link, metadata, optionalUuid, pageQuery, text, uuid } from './parameter-schemas.ts';

export const createBackupBody = z
  .strictObject({
    backup: z.strictObject({
      volume_id: uuid,
      container: text,
      name: text,
      description: text,
      incremental: flag,
      force: flag,
      snapshot_id: optionalUuid,
      metadata,
      availability_zone: text,
    }),
  })
  .meta({ id: 'CreateBackup' });

export const restoreBody = z
  .strictObject({
    restore: z
      .strictObject({ name: text, volume_id: optionalUuid })
      .nullable()
      .transform((value) => value ?? { name: null, volume_id: null }),
  })
  .meta({ id: 'Restore' });

export const backupActionBody = z
  .union([
    z.strictObject({ 'os-force_delete': z.object({}).nullish() }),
    z.strictObject({
      'os-reset_status': z.strictObject({
        status: z
          .string()
          .transform((status) => status.toLowerCase())
          .pipe(z.enum(['available', 'error'])),
      }),
    }),
  ])
  .meta({ id: 'BackupAction' });

export const backupQuery = pageQuery.extend({
  name: z.string().optional(),
  status: z.string().optional(),
  volume_id: z.string().optional(),
  parent_id: z.string().optional(),
});

export const backupSummary = z
  .object({ id: z.string(), name: z.string().nullable(), links: z.array(link) })
  .meta({ id: 'BackupSummary' });

export const backupDetail = z
  .object({
    id: z.string(),
    status: z.string(),
    size: z.number().int().describe('GiB'),
    object_count: z.number().int().nullable(),
    availability_zone: z.string().nullable(),
    container: z.string().nullable(),
    created_at: z.string(),
    updated_at: z.string().nullable(),
    name: z.string().nullable(),
    description: z.string().nullable(),
    fail_reason: z.string().nullable(),
    volume_id: z.string(),
    links: z.array(link),
    is_incremental: z.boolean(),
    has_dependent_backups: z.boolean(),
    snapshot_id: z.string().nullable(),
    data_timestamp: z.string().nullable(),
    metadata: z.record(z.string(), z.string()),
    user_id: z.string().nullable(),
  })
  .meta({ id: 'Backup' });

export const backupSummaries = z.object({
  backups: z.array(backupSummary),
  backups_links: z.array(link).optional(),
});
export const backupDetails = z.object({
  backups: z.array(backupDetail),
  backups_links: z.array(link).optional(),
});
export const restoreAnswer = z
  .object({
    restore: z.object({ backup_id: z.string(), volume_id: z.string(), volume_name: z.string().nullable() }),
  })
  .meta({ id: 'RestoreAnswer' });
