/** A volume group with a thin pool on the disk of the guest, as Cinder's LVM driver has it, and what that driver does to its volumes. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { runCommand } from '../../src/agent/command.ts';
import { createLvmBackend } from '../../src/agent/lvm-backend.ts';
import type { VolumeBackend } from '../../src/agent/volume-backend.ts';
import { createLogger } from '../../src/log.ts';

const run = promisify(execFile);
const lvm = async (program: string, ...args: readonly string[]) => (await run(program, [...args])).stdout;
const log = createLogger({ level: 'silent' });

/** Blocks of the pool, all of them of one size. */
export const chunkBytes = 65_536;

export type ThinPool = {
  readonly group: string;
  /** Runs a program of LVM, for example `lvs`. */
  lvm(program: string, ...args: readonly string[]): Promise<string>;
  /** A thin volume of zeros. */
  create(volume: string, sizeBytes: number): Promise<void>;
  resize(volume: string, sizeBytes: number): Promise<void>;
  isActive(volume: string): Promise<boolean>;
  /** Blocks of the pool that any of its volumes has. */
  usedBytes(): Promise<number>;
  /** What `dmsetup message` and `dmsetup status` know the pool by. */
  readonly mapped: string;
  /** Where a backend keeps what has to survive it. */
  stateDirectory(): Promise<string>;
  open(): Promise<VolumeBackend>;
  [Symbol.asyncDispose](): Promise<void>;
};

/** Takes the whole disk. Extents of one sector, so that volumes can have sizes that are no whole number of blocks. */
export async function createThinPool(poolBytes: number): Promise<ThinPool> {
  const disk = process.env['GUEST_DISK'];
  if (disk === undefined) throw new Error('these tests run in a guest: npm run test:lvm');
  const group = 'cinder-volumes';
  const pool = `${group}-pool`;
  const mapped = 'cinder--volumes-cinder--volumes--pool-tpool';
  await lvm('vgcreate', '--yes', '--physicalextentsize', '512b', group, disk);
  await lvm(
    'lvcreate',
    '--yes',
    '--type',
    'thin-pool',
    '--chunksize',
    '64k',
    '-L',
    `${poolBytes}b`,
    '-n',
    pool,
    group,
  );
  return {
    group,
    mapped,
    async stateDirectory() {
      const uuid = await lvm('vgs', '--noheadings', '-o', 'vg_uuid', group);
      return `/tmp/lvm-${uuid.trim()}`;
    },
    lvm,
    async create(volume, sizeBytes) {
      await lvm('lvcreate', '--yes', '-T', '-V', `${sizeBytes}b`, '-n', volume, `${group}/${pool}`);
    },
    async resize(volume, sizeBytes) {
      await lvm('lvextend', '--yes', '-L', `${sizeBytes}b`, `${group}/${volume}`);
    },
    async isActive(volume) {
      return (await lvm('lvs', '--noheadings', '-o', 'lv_active', `${group}/${volume}`)).trim() === 'active';
    },
    async usedBytes() {
      const status = await lvm('dmsetup', 'status', mapped);
      return Number(/ (\d+)\/\d+ (?:-|\d+) (?:rw|ro)/.exec(status)?.[1]) * chunkBytes;
    },
    open: () =>
      createLvmBackend({ name: 'lvm', volumeGroup: group, stateDirectory: '/tmp', run: runCommand, log }),
    async [Symbol.asyncDispose]() {
      await lvm('vgremove', '--yes', '--force', group);
    },
  };
}
