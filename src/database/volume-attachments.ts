/** Statements on `volume_attachment`: who uses a volume. */
import type { Sql } from './database.ts';

export type VolumeAttachment = {
  readonly id: string;
  readonly volumeId: string;
  readonly attachedHost: string | null;
  /** Null: attached by a service, not to a server. */
  readonly instanceId: string | null;
  readonly mountpoint: string | null;
  readonly mode: string | null;
  readonly status: string | null;
};

/** The attachments of a volume that are not deleted. */
export async function listVolumeAttachments(sql: Sql, volumeId: string): Promise<VolumeAttachment[]> {
  const rows = await sql
    .selectFrom('volume_attachment')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .where('deleted', '=', false)
    .orderBy('created_at')
    .orderBy('id')
    .execute();
  return rows.map((row) => ({
    id: row.id,
    volumeId: row.volume_id,
    attachedHost: row.attached_host,
    instanceId: row.instance_uuid,
    mountpoint: row.mountpoint,
    mode: row.attach_mode,
    status: row.attach_status,
  }));
}
