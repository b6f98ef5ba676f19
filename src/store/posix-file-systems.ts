/** What is known of file systems by their kind: `f_type` of statfs(2). */
import { statfs } from 'node:fs/promises';

const ext4 = 0xef53;
const xfs = 0x58465342;
const btrfs = 0x9123683e;

/** True where syncfs(2) puts everything on stable storage, and tells what it could not: not over a network. */
export async function isLocal(directory: string): Promise<boolean> {
  return [ext4, xfs, btrfs].includes((await statfs(directory)).type);
}

/**
 * True where writes past the page cache cost nothing else: Btrfs copies them for its checksums, and does not compress them; file servers
 * wait for their disks with each. False where that cannot be told.
 */
export async function favoursDirectWrites(directory: string): Promise<boolean> {
  const found = await statfs(directory).catch(() => undefined);
  return found !== undefined && [ext4, xfs].includes(found.type);
}
