/** Requests to a cloud rig: the rows as cinder-api makes them, and recorded messages about them. */
import { randomUUID } from 'node:crypto';
import { cloudHost, type CloudRig } from './cloud-rig.ts';
import { wireFixture } from './wire-fixtures.ts';

const recordedBackup = '64543244-d974-4570-8647-08adbcd5828a';
const recordedVolume = 'bdbc1081-d9a5-444f-b987-3886923383d9';
const recordedTarget = 'd604f2e2-9e80-40c5-8067-b432cdbf3104';

export type AskedBackup = { readonly backupId: string; readonly volumeId: string };
export type Changes = { readonly [recorded: string]: string };

/** A recorded message about other rows, as a message that was never sent. */
export function payloadOf(name: string, changes: Changes): string {
  const unique = randomUUID().replaceAll('-', '');
  let { payload_raw: payload } = wireFixture(name);
  for (const [recorded, other] of Object.entries(changes)) payload = payload.replaceAll(recorded, other);
  return payload.replace(/(_unique_id\\": \\")[0-9a-f]{32}/u, `$1${unique}`);
}

export async function publishTo(rig: CloudRig, payload: string): Promise<void> {
  await rig.publish({ exchange: 'openstack', routingKey: `cinder-backup.${cloudHost}`, payload });
}

const life = () => ({ created_at: new Date(), deleted: false, user_id: 'u', project_id: 'p', size: 1 });

async function addVolume(rig: CloudRig, bytes: number, generation: number, columns: object): Promise<string> {
  const id = randomUUID();
  await rig.writeVolume(id, bytes, generation);
  const row = { ...life(), id, host: `${cloudHost}@ceph#ceph`, ...columns };
  await rig.database.sql.insertInto('volumes').values(row).execute();
  return id;
}

/** The rows of a backup that cinder-api has asked for, and a volume. */
export async function addBackup(rig: CloudRig, volumeBytes: number): Promise<AskedBackup> {
  const taken = { status: 'backing-up', previous_status: 'available' };
  const volumeId = await addVolume(rig, volumeBytes, 1, taken);
  const backupId = randomUUID();
  const row = { ...life(), id: backupId, volume_id: volumeId, host: cloudHost, status: 'creating' };
  await rig.database.sql
    .insertInto('backups')
    .values({ ...row, data_timestamp: new Date() })
    .execute();
  return { backupId, volumeId };
}

/** The message that asks for it. */
export function createMessage({ backupId, volumeId }: AskedBackup, changes: Changes = {}): string {
  return payloadOf('create_backup.full', {
    [recordedBackup]: backupId,
    [recordedVolume]: volumeId,
    ...changes,
  });
}

/** Takes the backup for a restore to a volume of other bytes, and asks for it. Returns the id of the volume. */
export async function askForRestore(rig: CloudRig, backupId: string, volumeBytes: number): Promise<string> {
  const target = await addVolume(rig, volumeBytes, 9, { status: 'restoring-backup' });
  const taken = { status: 'restoring', restore_volume_id: target };
  await rig.database.sql.updateTable('backups').set(taken).where('id', '=', backupId).execute();
  await publishTo(
    rig,
    payloadOf('restore_backup.existing-volume', { [recordedBackup]: backupId, [recordedTarget]: target }),
  );
  return target;
}

/** Takes the backup for a deletion, and asks for it. */
export async function askForDelete(rig: CloudRig, backupId: string): Promise<void> {
  const { sql } = rig.database;
  await sql.updateTable('backups').set({ status: 'deleting' }).where('id', '=', backupId).execute();
  await publishTo(rig, payloadOf('delete_backup', { '6b7a8f14-8f01-4f46-8f19-efceccb012fe': backupId }));
}
