/**
 * Where a bench puts its volumes and backups: an XFS with reflinks in a loop-mounted sparse image, as root; else a
 * plain directory. Everything is removed when it is disposed of.
 */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { messageOf } from '../../src/model/errors.ts';

const run = promisify(execFile);

export type Workspace = AsyncDisposable & {
  readonly path: string;
  /** What it stands on: a phrase for the report. */
  readonly description: string;
};

/** A workspace that can take `sizeBytes`, under `parent` (the system's temporary directory unless given). */
export async function createWorkspace(sizeBytes: number, parent = tmpdir()): Promise<Workspace> {
  const folder = await mkdtemp(join(parent, 'cinder-delta-bench-'));
  try {
    return await mountXfs(folder, parent, sizeBytes);
  } catch (error) {
    return {
      path: folder,
      description: `the plain directory ${folder} (no XFS image: ${messageOf(error).split('\n')[0] ?? ''})`,
      [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
    };
  }
}

async function mountXfs(folder: string, parent: string, sizeBytes: number): Promise<Workspace> {
  if (process.getuid?.() !== 0) throw new Error('mounting needs root');
  const image = join(folder, 'xfs.image');
  const mountPoint = join(folder, 'xfs');
  const file = await open(image, 'wx');
  await file.truncate(sizeBytes);
  await file.close();
  try {
    await run('mkfs.xfs', ['-q', '-m', 'reflink=1', image]);
    await mkdir(mountPoint);
    await run('mount', ['-o', 'loop,discard', image, mountPoint]);
  } catch (error) {
    await rm(image);
    throw error;
  }
  return {
    path: mountPoint,
    description: `an XFS with reflinks in a loop-mounted image under ${parent}`,
    async [Symbol.asyncDispose]() {
      await run('umount', [mountPoint]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
