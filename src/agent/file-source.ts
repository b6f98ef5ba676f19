/** Opens the bytes of a snapshot of the file backend for the reader threads. */
import { requireSame, type FileSnapshots } from './file-snapshots.ts';
import type { OpenSnapshot } from './volume-backend.ts';

/** Throws `not-found`, `corrupt` if the file is not what its record says, `state-invalid` if it was made anew meanwhile. */
export async function openFileSnapshot(
  snapshots: FileSnapshots,
  volume: string,
  snapshot: string,
): Promise<OpenSnapshot> {
  const { handle, record } = await snapshots.open(volume, snapshot);
  return {
    identity: record.identity,
    sizeBytes: record.size_bytes,
    handle: { kind: 'file', fd: handle.fd },
    requireNamed: async () => requireSame(record, await snapshots.read(volume, snapshot)),
    // The open file keeps its bytes, whatever happens to its name.
    requireWhole: async () => {},
    close: () => handle.close(),
  };
}
