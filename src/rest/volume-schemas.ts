/** Volumes and snapshots on the wire (cinder/api/schemas/{volumes,snapshots}.py, cinder/api/v2/views/volumes.py). */
import { z } from 'zod';
import { flag, link, metadata, pageQuery, text, uuid } from './parameter-schemas.ts';

/** The largest volume, in GiB: 16 EiB would not fit a safe integer of bytes. */
const maxGiB = 4 * 1024 * 1024;
const sizeGiB = z.coerce.number().int().min(1).max(maxGiB);
const notHere = z
  .union([z.null(), z.literal('')])
  .optional()
  .describe('not supported in standalone mode');

export const createVolumeBody = z
  .object({
    volume: z.object({
      size: sizeGiB.describe('GiB'),
      name: text,
      description: text,
      metadata,
      snapshot_id: notHere,
      source_volid: notHere,
      imageRef: notHere,
      image_id: notHere,
      backup_id: notHere,
    }),
  })
  .meta({ id: 'CreateVolume' });

export const volumeActionBody = z
  .union([
    z.strictObject({ 'os-extend': z.strictObject({ new_size: sizeGiB.describe('GiB') }) }),
    z.strictObject({
      'os-reset_status': z.strictObject({
        status: z
          .string()
          .transform((status) => status.toLowerCase())
          .pipe(z.enum(['available', 'in-use', 'error'])),
      }),
    }),
  ])
  .meta({ id: 'VolumeAction' });

export const volumeQuery = pageQuery.extend({ name: z.string().optional(), status: z.string().optional() });

export const volumeSummary = z
  .object({ id: z.string(), name: z.string().nullable(), links: z.array(link) })
  .meta({ id: 'VolumeSummary' });

export const volumeDetail = z
  .object({
    id: z.string(),
    status: z.string(),
    size: z.number().int().describe('GiB'),
    availability_zone: z.string().nullable(),
    created_at: z.string(),
    updated_at: z.string().nullable(),
    name: z.string().nullable(),
    description: z.string().nullable(),
    volume_type: z.string().nullable(),
    snapshot_id: z.string().nullable(),
    source_volid: z.string().nullable(),
    metadata: z.record(z.string(), z.string()),
    links: z.array(link),
    user_id: z.string().nullable(),
    bootable: z.enum(['true', 'false']),
    encrypted: z.boolean(),
    replication_status: z.string().nullable(),
    consistencygroup_id: z.string().nullable(),
    multiattach: z.boolean(),
    attachments: z.array(z.object({})),
    'os-vol-host-attr:host': z.string().nullable(),
    'os-vol-tenant-attr:tenant_id': z.string(),
  })
  .meta({ id: 'VolumeDetails' });

export const volumeSummaries = z.object({
  volumes: z.array(volumeSummary),
  volumes_links: z.array(link).optional(),
});
export const volumeDetails = z.object({
  volumes: z.array(volumeDetail),
  volumes_links: z.array(link).optional(),
});

export const createSnapshotBody = z
  .strictObject({
    snapshot: z.strictObject({
      volume_id: uuid,
      name: text,
      description: text,
      force: flag,
      metadata: z.object({}).strict().nullish().describe('not kept in standalone mode: leave it out'),
    }),
  })
  .meta({ id: 'CreateSnapshot' });

export const snapshotQuery = z.object({
  name: z.string().optional(),
  status: z.string().optional(),
  volume_id: z.string().optional(),
});

export const snapshotDetail = z
  .object({
    id: z.string(),
    created_at: z.string(),
    updated_at: z.string().nullable(),
    name: z.string().nullable(),
    description: z.string().nullable(),
    volume_id: z.string(),
    status: z.string(),
    size: z.number().int().describe('GiB'),
    metadata: z.record(z.string(), z.string()),
  })
  .meta({ id: 'VolumeSnapshot' });

export const snapshotDetails = z.object({ snapshots: z.array(snapshotDetail) });
