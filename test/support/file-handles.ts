/** The calls that all file handles of Node share: for tests in which one of them fails. */
import { open, type FileHandle } from 'node:fs/promises';

export async function fileHandleCalls(): Promise<FileHandle> {
  const handle = await open('/dev/null');
  await handle.close();
  return Object.getPrototypeOf(handle) as FileHandle;
}
