/**
 * Where a bench puts its volumes and backups: an XFS with reflinks in a loop-mounted sparse image, as root; else a
 * plain directory. Everything is removed when it is disposed of.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '../../src/model/errors.ts';
import { mountLoop } from '../support/loop-mount.ts';

export type Workspace = AsyncDisposable & {
  readonly path: string;
  /** What it stands on: a phrase for the report. */
  readonly description: string;
};

/** A workspace that can take `sizeBytes`, under `parent`. */
export async function createWorkspace(sizeBytes: number, parent = tmpdir()): Promise<Workspace> {
  try {
    const mount = await mountLoop('xfs', { sizeBytes, mountOptions: 'discard', parent });
    return {
      path: mount.directory,
      description: `an XFS with reflinks in a loop-mounted image under ${parent}`,
      [Symbol.asyncDispose]: () => mount.unmount(),
    };
  } catch (error) {
    const path = await mkdtemp(join(parent, 'cinder-delta-bench-'));
    return {
      path,
      description: `the plain directory ${path}, without reflinks (no XFS image: ${messageOf(error).split('\n', 1).join('')})`,
      [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
    };
  }
}
