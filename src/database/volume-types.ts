/** Statements on `volume_types` and their extra specs. */
import type { UserMetadata } from './backup-metadata.ts';
import type { Sql } from './database.ts';
import { readFlag } from './row-values.ts';

export type VolumeType = {
  readonly id: string;
  readonly name: string | null;
  readonly description: string | null;
  readonly isPublic: boolean;
  readonly qosSpecsId: string | null;
  readonly extraSpecs: UserMetadata;
};

/** The volume type, or undefined if there is none or it is deleted. */
export async function findVolumeType(sql: Sql, id: string): Promise<VolumeType | undefined> {
  const row = await sql
    .selectFrom('volume_types')
    .selectAll()
    .where('id', '=', id)
    .where('deleted', '=', false)
    .executeTakeFirst();
  if (row === undefined) return undefined;
  const specs = await sql
    .selectFrom('volume_type_extra_specs')
    .select(['key', 'value'])
    .where('volume_type_id', '=', id)
    .where('deleted', '=', false)
    .orderBy('id')
    .execute();
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    isPublic: readFlag(row.is_public),
    qosSpecsId: row.qos_specs_id,
    extraSpecs: Object.fromEntries(
      specs.flatMap(({ key, value }) => (key === null ? [] : [[key, value ?? '']])),
    ),
  };
}
