/** `volume_meta`: what a backup keeps of its volume's rows, and gives back (cinder/backup/driver.py, BackupMetadataAPI). */
import type { UserMetadata } from '../database/backup-metadata.ts';
import type { Sql } from '../database/database.ts';
import { findGlanceMetadata } from '../database/volume-glance-metadata.ts';
import { listVolumeMetadata } from '../database/volume-metadata.ts';
import { findVolumeType } from '../database/volume-types.ts';
import { getVolumeColumns } from '../database/volumes.ts';
import {
  decodeVolumeMetadata,
  encodeVolumeMetadata,
  type RestorableMetadata,
} from '../layout/volume-metadata.ts';
import { BackupError } from '../model/errors.ts';
import type { Volume } from '../model/volume.ts';
import type { ManagerEnvironment } from './environment.ts';

type MetaDeps = Pick<ManagerEnvironment, 'database'> & {
  readonly options: Pick<ManagerEnvironment['options'], 'metadataVersion'>;
};

/** The JSON text for a backup of `volumeId`. `not-found` if the volume is gone. */
export async function readVolumeMeta({ database, options }: MetaDeps, volumeId: string): Promise<string> {
  const { sql } = database;
  const volume = await getVolumeColumns(sql, volumeId);
  const metadata = (await listVolumeMetadata(sql, [volumeId])).get(volumeId) ?? {};
  const glanceMetadata = await findGlanceMetadata(sql, volumeId);
  return encodeVolumeMetadata({ volume, metadata, glanceMetadata }, options.metadataVersion);
}

/** What a restore writes into the rows of its target. */
export type RestoredMeta = {
  readonly base: {
    readonly name?: string;
    readonly description?: string | null;
    /** Of a target without a type, to which an encrypted backup is restored. */
    readonly volumeTypeId?: string;
  };
  /** All that the user's keys become; undefined: they stay. */
  readonly user: UserMetadata | undefined;
  /** The same of the image's; they make the volume bootable. */
  readonly glance: UserMetadata | undefined;
  /** The key that the volume had when it was backed up, null for none; undefined: the target's stays. */
  readonly encryptionKeyId: string | null | undefined;
};

/** The `volume_meta` of one layer. */
export type LayerMeta = { readonly backupId: string; readonly volumeMeta: string | null };

/**
 * What a restore of `layers`, the full backup first, writes into the rows of `target`. Python gives each layer's metadata back
 * after its data (cinder/backup/chunkeddriver.py, restore), so an older layer's keys stay where a newer one has none, and
 * the name is that of the oldest. `corrupt`, `version-unsupported`, and `state-invalid` if an encrypted backup does
 * not fit the target's type: to be asked for before any byte is written.
 */
export async function planRestoredMeta(
  sql: Sql,
  layers: readonly LayerMeta[],
  target: Pick<Volume, 'id' | 'name'>,
): Promise<RestoredMeta> {
  const typeId = (await getVolumeColumns(sql, target.id))['volume_type_id'];
  let plan: RestoredMeta = { base: {}, user: undefined, glance: undefined, encryptionKeyId: undefined };
  const state = { name: target.name ?? '', typeId: typeof typeId === 'string' ? typeId : null };
  for (const { backupId, volumeMeta } of layers) {
    const meta = decodeVolumeMetadata(volumeMeta, backupId);
    if (meta === null) continue;
    const named = nameOf(meta, state.name);
    const wantedType = encryptedTypeOf(meta, state.typeId);
    if (wantedType !== null) await requireType(sql, wantedType);
    plan = {
      base: { ...plan.base, ...named, ...(wantedType === null ? {} : { volumeTypeId: wantedType }) },
      user: textsOf(meta.metadata) ?? plan.user,
      glance: textsOf(meta.glanceMetadata) ?? plan.glance,
      encryptionKeyId:
        meta.base?.encryptionKeyId === undefined ? plan.encryptionKeyId : meta.base.encryptionKeyId,
    };
    state.name = named.name ?? state.name;
    state.typeId = wantedType ?? state.typeId;
  }
  return plan;
}

/** The name is given back only to a volume that has none or was made for the restore (_restore_vol_base_meta). */
function nameOf(
  { base }: RestorableMetadata,
  targetName: string,
): Pick<RestoredMeta['base'], 'name' | 'description'> {
  const name = base?.displayName ?? '';
  if (name === '' || (targetName !== '' && !targetName.startsWith('restore_backup_'))) return {};
  const description = base?.displayDescription;
  return { name, ...(description === undefined ? {} : { description }) };
}

/**
 * The type that the target has to take on for an encrypted backup, or null if it need not. A target of another type would
 * not be decrypted (_restore_vol_encryption_meta).
 */
function encryptedTypeOf({ base }: RestorableMetadata, targetType: string | null): string | null {
  if (base?.encryptionKeyId === undefined || base.encryptionKeyId === null) return null;
  const sourceType = base.volumeTypeId ?? null;
  if (sourceType === targetType) return null;
  if (targetType === null) return sourceType;
  throw new BackupError(
    'state-invalid',
    `The source volume type '${sourceType ?? 'None'}' is different than the destination volume type '${targetType}'.`,
  );
}

async function requireType(sql: Sql, typeId: string): Promise<void> {
  if ((await findVolumeType(sql, typeId)) !== undefined) return;
  throw new BackupError('state-invalid', `The source volume type '${typeId}' is not available.`);
}

function textsOf(section: Readonly<Record<string, string | null>> | undefined): UserMetadata | undefined {
  if (section === undefined) return undefined;
  return Object.fromEntries(Object.entries(section).map(([key, value]) => [key, value ?? '']));
}

/** Python's `str()` of a UTC datetime. */
export function pythonTimeText(time: Date): string {
  const text = `${time.toISOString().slice(0, -1)}000`.replace('T', ' ');
  return `${text.endsWith('.000000') ? text.slice(0, -7) : text}+00:00`;
}
