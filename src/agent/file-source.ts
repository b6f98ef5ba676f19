/** Opens the bytes of a snapshot of the file backend for the reader threads. */
import { BackupError } from '../model/errors.ts';
import type { FileSnapshots } from './file-snapshots.ts';
import type { OpenSnapshot } from './volume-backend.ts';

/** Throws `not-found`, `corrupt` if the file is not what its record says, `state-invalid` if it was made anew meanwhile. */
export async function openFileSnapshot(
  snapshots: FileSnapshots,
  volume: string,
  snapshot: string,
): Promise<OpenSnapshot> {
  const before = await snapshots.read(volume, snapshot);
  const { handle, record } = await snapshots.open(volume, snapshot);
  const requireSame = (identity: string) => {
    if (identity === before.identity) return;
    throw new BackupError(
      'state-invalid',
      `snapshot ${snapshot} of ${volume} was made anew while it was opened`,
    );
  };
  try {
    requireSame(record.identity);
  } catch (error) {
    await handle.close();
    throw error;
  }
  return {
    identity: record.identity,
    sizeBytes: record.size_bytes,
    handle: { kind: 'file', fd: handle.fd },
    requireNamed: async () => requireSame((await snapshots.read(volume, snapshot)).identity),
    // The open file keeps its bytes, whatever happens to its name.
    requireWhole: async () => {},
    close: () => handle.close(),
  };
}
