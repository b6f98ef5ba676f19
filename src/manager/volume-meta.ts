/** `volume_meta`: what a backup keeps of its volume's rows, and gives back (cinder/backup/driver.py, BackupMetadataAPI). */
import { z } from 'zod';
import type { UserMetadata } from '../database/backup-metadata.ts';
import { findGlanceMetadata } from '../database/volume-glance-metadata.ts';
import { listVolumeMetadata } from '../database/volume-metadata.ts';
import { getVolumeColumns } from '../database/volumes.ts';
import { BackupError } from '../model/errors.ts';
import type { Volume } from '../model/volume.ts';
import type { ManagerEnvironment } from './environment.ts';

/** The JSON text for a backup of `volumeId`, version 2. */
export async function readVolumeMeta({ database }: ManagerEnvironment, volumeId: string): Promise<string> {
  const { sql } = database;
  const columns = await getVolumeColumns(sql, volumeId);
  const base = Object.fromEntries(
    Object.entries(columns).map(([key, value]) => [key, value instanceof Date ? isoText(value) : value]),
  );
  const user = (await listVolumeMetadata(sql, [volumeId])).get(volumeId);
  const glance = await findGlanceMetadata(sql, volumeId);
  return JSON.stringify({
    version: 2,
    'volume-base-metadata': base,
    ...(user === undefined ? {} : { 'volume-metadata': user }),
    ...(Object.keys(glance).length === 0 ? {} : { 'volume-glance-metadata': glance }),
  });
}

const keyed = z.record(z.string(), z.coerce.string());
const volumeMeta = z.object({
  version: z.union([z.literal(1), z.literal(2)]),
  'volume-base-metadata': z
    .object({
      display_name: z.string().nullish(),
      display_description: z.string().nullish(),
      encryption_key_id: z.string().nullish(),
    })
    .optional(),
  'volume-metadata': keyed.optional(),
  'volume-glance-metadata': keyed.optional(),
});

export type RestoredMeta = {
  readonly base: { readonly name?: string; readonly description?: string | null };
  readonly user?: UserMetadata | undefined;
  readonly glance?: UserMetadata | undefined;
  /** The key that the volume had when it was backed up; null if it was not encrypted. Version 1 does not keep it. */
  readonly encryptionKeyId: string | null;
};

/**
 * What a restore writes into the rows of `target`: the user's keys, the image's, and the name if the target has none or
 * was made for the restore. `corrupt` if the text is not what a backup keeps.
 */
export function restoredMeta(text: string | null, target: Pick<Volume, 'name'>): RestoredMeta {
  if (text === null) return { base: {}, encryptionKeyId: null };
  const parsed = volumeMeta.safeParse(parseJson(text));
  if (!parsed.success) {
    throw new BackupError(
      'corrupt',
      `volume_meta in the backup's metadata is not valid: ${z.prettifyError(parsed.error)}`,
    );
  }
  const { data } = parsed;
  const name = data['volume-base-metadata']?.display_name ?? '';
  const isOurs = target.name === null || target.name === '' || target.name.startsWith('restore_backup_');
  const description = data['volume-base-metadata']?.display_description ?? null;
  return {
    base: name !== '' && isOurs ? { name, description } : {},
    user: data['volume-metadata'],
    glance: data['volume-glance-metadata'],
    encryptionKeyId: data.version === 1 ? null : (data['volume-base-metadata']?.encryption_key_id ?? null),
  };
}

/** Python's `str()` of a UTC datetime. */
export function pythonTimeText(time: Date): string {
  const text = isoText(time).replace('T', ' ');
  return `${text.endsWith('.000000') ? text.slice(0, -7) : text}+00:00`;
}

function isoText(time: Date): string {
  return `${time.toISOString().slice(0, -1)}000`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BackupError('corrupt', "volume_meta in the backup's metadata is no JSON", { cause: error });
  }
}
