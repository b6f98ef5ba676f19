/** What the logical volumes of a group are to the LVM backend: whose snapshots, of which pool, and whether they can be backed up. Pure. */
import { BackupError } from '../model/errors.ts';
import { backupIdOfSnapshot, snapshotNamePattern, volumeNamePattern } from '../model/names.ts';
import type { SnapshotInfo, VolumeInfo } from '../protocol/calls.ts';
import type { ThinVolume } from './lvm-ranges.ts';
import type { LogicalVolume } from './lvm-report.ts';

/** What tags of ours begin with; the name of the volume follows. */
const tagPrefix = 'cinder-delta:';

/** The tag by which a snapshot is known to be of a volume, also once that is gone. */
export function tagOf(volume: string): string {
  return `${tagPrefix}${volume}`;
}

export function hasSame(all: readonly LogicalVolume[], was: LogicalVolume): boolean {
  return all.some((one) => one.uuid === was.uuid && one.name === was.name);
}

export function isPool({ segmentType }: LogicalVolume): boolean {
  return segmentType === 'thin-pool';
}

/** LVM reserves names that begin with `snapshot`: Cinder puts a line before those (lvm.py, _escape_snapshot). */
export function nameOf(snapshot: string): string {
  return snapshot.startsWith('snapshot') ? `_${snapshot}` : snapshot;
}

function snapshotName({ name }: LogicalVolume): string {
  return name.startsWith('_snapshot') ? name.slice(1) : name;
}

export function taggedVolume({ name, tags }: LogicalVolume): string | undefined {
  if (backupIdOfSnapshot(name) === undefined || !snapshotNamePattern.test(name)) return undefined;
  const volume = tags.find((tag) => tag.startsWith(tagPrefix))?.slice(tagPrefix.length);
  return volume !== undefined && volumeNamePattern.test(volume) ? volume : undefined;
}

export function isSnapshotOf(volume: LogicalVolume, of: string): boolean {
  return (volume.origin ?? taggedVolume(volume)) === of;
}

/**
 * A thin volume over an origin that is not in its pool reads that where it has no blocks of its own, which the pool does not tell. So do
 * all that are made of it, so each origin up to the first is looked at.
 */
export function requireThin(volume: LogicalVolume, all: readonly LogicalVolume[]): ThinVolume {
  const { name, thinId } = volume;
  if (thinId === null) {
    throw new BackupError(
      'state-invalid',
      `${name} is not a thin volume (${volume.segmentType}): only those can be backed up here`,
    );
  }
  const seen = new Set<string>();
  for (let origin = volume.origin; origin !== null && !seen.has(origin);) {
    seen.add(origin);
    const found = all.find((one) => one.name === origin);
    if (found?.pool !== volume.pool) {
      throw new BackupError(
        'state-invalid',
        `${name} has an external origin, ${origin}: only volumes whose blocks are all in their thin pool can be backed up here`,
      );
    }
    origin = found.origin;
  }
  return { ...volume, thinId };
}

export function findThinSnapshot(
  all: readonly LogicalVolume[],
  snapshot: string,
  volume: string,
): ThinVolume | undefined {
  const found = all.find((one) => one.name === nameOf(snapshot) && isSnapshotOf(one, volume));
  return found === undefined ? undefined : requireThin(found, all);
}

export function requireOnePool(previous: LogicalVolume, current: LogicalVolume): void {
  if (previous.pool === current.pool) return;
  throw new BackupError(
    'delta-unavailable',
    `snapshots ${previous.name} and ${current.name} lie in two thin pools: compare digests or do a full`,
  );
}

/** Those that Cinder or an agent made. */
export function snapshotsOf(volume: string, all: readonly LogicalVolume[]): SnapshotInfo[] {
  return all
    .filter((one) => one.thinId !== null && isSnapshotOf(one, volume))
    .filter((one) => snapshotNamePattern.test(snapshotName(one)))
    .map(snapshotInfo);
}

export function poolOf(volume: LogicalVolume, all: readonly LogicalVolume[]): LogicalVolume {
  const pool = all.find((one) => one.name === volume.pool);
  if (pool !== undefined) return pool;
  throw new BackupError('agent-failed', `LVM tells of no pool ${volume.pool ?? ''} of ${volume.name}`);
}

export function identityOf({ groupUuid, uuid }: LogicalVolume): string {
  return `lvm:${groupUuid}/${uuid}`;
}

export function volumeInfo(volume: LogicalVolume): VolumeInfo {
  const { name, sizeBytes } = volume;
  return { name, size_bytes: sizeBytes, identity: identityOf(volume), allocated_bytes: null };
}

export function snapshotInfo(volume: LogicalVolume): SnapshotInfo {
  return {
    name: snapshotName(volume),
    size_bytes: volume.sizeBytes,
    identity: identityOf(volume),
    created_at: new Date(volume.createdAtMs).toISOString(),
  };
}
