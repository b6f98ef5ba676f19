/** Opens what a backend names as the place of a snapshot's bytes. */
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { BackupError } from '../model/errors.ts';
import { translateFileError } from './file-errors.ts';
import type { SnapshotSource, VolumeBackend } from './volume-backend.ts';

export type OpenSnapshot = { readonly source: SnapshotSource; readonly handle: FileHandle };

/**
 * Opens a snapshot for reading. The caller closes the handle. Throws `not-found`, and `state-invalid` if the
 * snapshot was removed or made anew meanwhile.
 */
export async function openSnapshotSource(
  backend: VolumeBackend,
  volume: string,
  snapshot: string,
): Promise<OpenSnapshot> {
  const source = await backend.snapshotSource(volume, snapshot);
  const handle = await open(source.path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(
    (error: unknown) => {
      throw translateFileError(error, `snapshot ${snapshot} of ${volume}`);
    },
  );
  try {
    await requireSame(backend, volume, snapshot, source);
    return { source, handle };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Throws `state-invalid` unless the snapshot still is `source`: what was opened by name in between is the same too. */
export async function requireSame(
  backend: VolumeBackend,
  volume: string,
  snapshot: string,
  source: SnapshotSource,
): Promise<void> {
  const now = await backend.snapshotSource(volume, snapshot);
  if (now.identity === source.identity) return;
  throw new BackupError(
    'state-invalid',
    `snapshot ${snapshot} of ${volume} was made anew while it was opened`,
  );
}
