/** What is known of file systems by their kind: `f_type` of statfs(2). */
import { stat, statfs } from 'node:fs/promises';

const ext4 = 0xef53;
const xfs = 0x58465342;
const btrfs = 0x9123683e;
const nfs = 0x6969;

async function kindOf(directory: string): Promise<number> {
  return (await statfs(directory)).type;
}

/** True where syncfs(2) puts everything on stable storage, and tells what it could not: not over a network. */
export async function isLocal(directory: string): Promise<boolean> {
  return [ext4, xfs, btrfs].includes(await kindOf(directory));
}

/**
 * True if a file system is mounted on `directory`, or it lies on NFS: shares of one server may have the same device number.
 * Throws what stat(2) does.
 */
export async function isMounted(
  directory: string,
  findKind: (directory: string) => Promise<number> = kindOf,
): Promise<boolean> {
  const { dev } = await stat(directory);
  const above = await stat(`${directory}/..`);
  return dev !== above.dev || (await findKind(directory)) === nfs;
}

/**
 * True where writes past the page cache cost nothing else: Btrfs copies them for its checksums, and does not compress them; file servers
 * wait for their disks with each. False where that cannot be told.
 */
export async function favoursDirectWrites(directory: string): Promise<boolean> {
  const kind = await kindOf(directory).catch(() => undefined);
  return kind !== undefined && [ext4, xfs].includes(kind);
}
