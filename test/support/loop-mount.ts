/**
 * A file system in an image file, mounted by loop: XFS and Btrfs have the reflinks that the default temporary
 * directory may lack. Needs root, xfsprogs, btrfs-progs and e2fsprogs; with CI=true their absence is a failure, else the
 * tests that need them are skipped with a message.
 */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export type LoopMount = {
  readonly directory: string;
  unmount(): Promise<void>;
};

export type LoopFileSystem = 'xfs' | 'btrfs' | 'ext4';

/** tmpfs has neither reflinks nor extents, and fills up quickly. */
export type MountedFileSystem = LoopFileSystem | 'tmpfs';

const makers: Readonly<Record<LoopFileSystem, readonly [string, ...string[]]>> = {
  xfs: ['mkfs.xfs', '-q', '-m', 'reflink=1'],
  btrfs: ['mkfs.btrfs', '-q'],
  ext4: ['mkfs.ext4', '-q'],
};

/** Why this machine cannot mount images, or null if it can. Throws with CI=true if it cannot. */
export async function loopMountObstacle(kind: MountedFileSystem): Promise<string | null> {
  try {
    const mount = await mountLoop(kind, { sizeBytes: 512 * 1024 * 1024 });
    await mount.unmount();
    return null;
  } catch (error) {
    const why = `${kind} cannot be mounted here (needs root, loop devices, xfsprogs, btrfs-progs and e2fsprogs): ${String(error)}`;
    if (process.env['CI'] === 'true') throw new Error(why, { cause: error });
    console.warn(`SKIPPED: ${why}`);
    return why;
  }
}

/** Makes and mounts an image (sparse: it takes only what is written to it) in a new directory under `parent`. */
export async function mountLoop(
  kind: MountedFileSystem,
  options: {
    readonly sizeBytes: number;
    readonly mountOptions?: string;
    readonly makeOptions?: readonly string[];
    readonly parent?: string;
  },
): Promise<LoopMount> {
  const base = await mkdtemp(join(options.parent ?? tmpdir(), `cinder-delta-${kind}-`));
  const image = join(base, 'image');
  const directory = join(base, 'mounted');
  try {
    await mkdir(directory);
    const flags = options.mountOptions === undefined ? '' : `,${options.mountOptions}`;
    if (kind === 'tmpfs') {
      await run('mount', ['-t', 'tmpfs', '-o', `size=${options.sizeBytes}${flags}`, 'tmpfs', directory]);
    } else {
      const handle = await open(image, 'wx');
      await handle.truncate(options.sizeBytes);
      await handle.close();
      const [maker, ...makerFlags] = makers[kind];
      await run(maker, [...makerFlags, ...(options.makeOptions ?? []), image]);
      await run('mount', ['-o', `loop${flags}`, image, directory]);
    }
  } catch (error) {
    await rm(base, { recursive: true, force: true });
    throw error;
  }
  return {
    directory,
    async unmount() {
      await run('umount', [directory]);
      await rm(base, { recursive: true, force: true });
    },
  };
}
