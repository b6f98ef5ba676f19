/**
 * One volume group: the commands of LVM, device mapper and the tools of thin provisioning that the LVM backend needs, as calls
 * with one meaning each. What they answer in words becomes an error of ours here.
 *
 * A command that changes something is never given up before its end, but for `commandTimeoutMs`: who does not know how far it came
 * cannot put it right.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { BackupError, isBackupError, messageOf } from '../model/errors.ts';
import { CommandError, type Command, type RunCommand } from './command.ts';
import { errnoOf } from './file-errors.ts';
import { listArguments, parseList, type LogicalVolume } from './lvm-report.ts';

export type LvmGroup = {
  readonly name: string;
  list(): Promise<readonly LogicalVolume[]>;
  /** A read-only thin snapshot, not active. */
  makeSnapshot(origin: string, name: string, tag: string): Promise<void>;
  /** Succeeds also if it is absent. `busy` while somebody has it open. */
  remove(volume: string): Promise<void>;
  activate(volume: string): Promise<void>;
  deactivate(volume: string): Promise<void>;
  /** The version of thin_delta. */
  toolVersion(): Promise<string>;
  /** Which metadata of a pool the kernel keeps, by their root; null if none. */
  heldMetadata(pool: LogicalVolume): Promise<string | null>;
  /** Has the kernel keep the metadata of a pool as they are now. False if some are kept already. */
  keepMetadata(pool: LogicalVolume): Promise<boolean>;
  dropMetadata(pool: LogicalVolume): Promise<void>;
  /** Writes what differs between two thin devices in the kept metadata. */
  writeDifferences(pool: LogicalVolume, ids: readonly [number, number], to: Output): Promise<void>;
  /** Writes which blocks a thin device maps in the kept metadata. */
  writeMapped(pool: LogicalVolume, id: number, to: Output): Promise<void>;
};

export type Output = { readonly fd: number; readonly signal: AbortSignal };

/** Longer than the tools of LVM wait for each other's locks. */
const commandTimeoutMs = 180_000;
/** Reading the metadata of a pool of many TiB takes minutes. */
const metadataTimeoutMs = 1_800_000;
/** LVM's programs sometimes end by a fault of theirs when they are done (bugs.launchpad.net 1901783): Cinder asks again too. */
const attempts = 3;

export function createLvmGroup(options: {
  readonly name: string;
  /** Where lvm.conf is, if not in /etc/lvm. */
  readonly systemDirectory?: string | undefined;
  readonly run: RunCommand;
}): LvmGroup {
  const { name, run, systemDirectory } = options;
  const environment = {
    LVM_SUPPRESS_FD_WARNINGS: '1',
    ...(systemDirectory === undefined ? {} : { LVM_SYSTEM_DIR: systemDirectory }),
  };

  const command = async (thing: string, what: Omit<Command, 'environment'>): Promise<string> => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await run({ ...what, environment });
      } catch (error) {
        // Not into a file that has a part of the output already.
        if (!hasCrashed(error) || attempt === attempts || what.outputFd !== undefined) {
          throw translateLvmError(error, thing, what);
        }
        await sleep(500);
      }
    }
  };
  const change = async (thing: string, program: string, ...args: readonly string[]): Promise<void> => {
    await command(thing, { program, args, timeoutMs: commandTimeoutMs });
  };
  const pathOf = (volume: string) => `${name}/${volume}`;
  const message = (pool: LogicalVolume, text: string) =>
    change(`pool ${pool.name}`, 'dmsetup', 'message', `${pool.path}-tpool`, '0', text);
  const read = async (tool: string, pool: LogicalVolume, args: readonly string[], to: Output) => {
    await command(`the metadata of pool ${pool.name}`, {
      program: tool,
      args: ['--metadata-snap', ...args, `${pool.path}_tmeta`],
      outputFd: to.fd,
      signal: to.signal,
      timeoutMs: metadataTimeoutMs,
    });
  };

  return {
    name,
    async list() {
      const args = [...listArguments, name];
      return parseList(
        await command(`volume group ${name}`, { program: 'lvs', args, timeoutMs: commandTimeoutMs }),
      );
    },
    makeSnapshot: (origin, snapshot, tag) =>
      change(
        `snapshot ${snapshot} of ${origin}`,
        'lvcreate',
        '--snapshot',
        '--permission',
        'r',
        '--setactivationskip',
        'y',
        '--addtag',
        tag,
        '--yes',
        '--name',
        snapshot,
        pathOf(origin),
      ),
    async remove(volume) {
      try {
        await change(volume, 'lvremove', '--yes', pathOf(volume));
      } catch (error) {
        if (!isBackupError(error, 'not-found')) throw error;
      }
    },
    activate: (volume) =>
      change(volume, 'lvchange', '--activate', 'y', '--ignoreactivationskip', '--yes', pathOf(volume)),
    deactivate: (volume) => change(volume, 'lvchange', '--activate', 'n', '--yes', pathOf(volume)),
    toolVersion: () =>
      command('thin_delta', { program: 'thin_delta', args: ['--version'], timeoutMs: commandTimeoutMs }),
    async heldMetadata(pool) {
      const args = ['status', '--target', 'thin-pool', `${pool.path}-tpool`];
      const thing = `pool ${pool.name}`;
      const status = await command(thing, { program: 'dmsetup', args, timeoutMs: commandTimeoutMs });
      // Start, length, target, transaction, two of used/total, and the root (thin-provisioning.rst of the kernel).
      const root = /^\d+ \d+ thin-pool \d+ \d+\/\d+ \d+\/\d+ (-|\d+) /.exec(status)?.[1];
      if (root !== undefined) return root === '-' ? null : root;
      throw new BackupError('agent-failed', `${thing} cannot be used: its status is ${status.trim()}`);
    },
    async keepMetadata(pool) {
      try {
        await message(pool, 'reserve_metadata_snap');
        return true;
      } catch (error) {
        if (isBackupError(error, 'busy')) return false;
        throw error;
      }
    },
    dropMetadata: (pool) => message(pool, 'release_metadata_snap'),
    writeDifferences: (pool, [previous, current], to) =>
      read('thin_delta', pool, ['--snap1', `${previous}`, '--snap2', `${current}`], to),
    writeMapped: (pool, id, to) => read('thin_dump', pool, ['--format', 'xml', '--dev-id', `${id}`], to),
  };
}

function hasCrashed(error: unknown): boolean {
  return error instanceof CommandError && (error.signal === 'SIGSEGV' || error.exitCode === 139);
}

/** What LVM's programs say when something is so; they have one exit code for nearly all of it. */
const complaints: readonly (readonly [RegExp, BackupErrorMaker])[] = [
  [
    /permission denied|running as a non-root user|Operation not permitted/i,
    (thing) =>
      new BackupError('agent-failed', `${thing} is not accessible: LVM needs an agent that runs as root`),
  ],
  [
    /Can't get lock|locking failed/i,
    (thing) => new BackupError('busy', `${thing} is locked by another program of LVM: try again later`),
  ],
  [
    /Volume group "[^"]*" not found/i,
    (thing) => new BackupError('config-invalid', `${thing} does not exist on this host: see volume_group`),
  ],
  [
    /Failed to find logical volume|One or more specified logical volume\(s\) not found/i,
    (thing) => new BackupError('not-found', `${thing} does not exist`),
  ],
  [
    /already exists in volume group/i,
    (thing) => new BackupError('already-exists', `${thing} exists already`),
  ],
  [
    /contains a filesystem in use|in use\b|device or resource busy|is used by another device/i,
    (thing) => new BackupError('busy', `${thing} is in use by another program: try again later`),
  ],
  [
    /above threshold|insufficient free space|out of (?:data|metadata) space|free space in pool|No space left/i,
    (thing) =>
      new BackupError('store-full', `${thing} does not fit: its thin pool is full; grow it (lvextend)`),
  ],
];

type BackupErrorMaker = (thing: string) => BackupError;

function translateLvmError(
  error: unknown,
  thing: string,
  { program, signal }: Omit<Command, 'environment'>,
): BackupError {
  if (signal?.aborted === true) {
    return new BackupError('cancelled', `${thing}: ${program} was stopped`, { cause: signal.reason });
  }
  if (errnoOf(error) === 'ENOENT') {
    return new BackupError(
      'config-invalid',
      `${program} is not installed on this host: install lvm2, dmsetup and thin-provisioning-tools`,
      { cause: error },
    );
  }
  if (error instanceof CommandError && error.signal === 'SIGTERM') {
    return new BackupError(
      'agent-unavailable',
      `${thing}: ${program} did not end in time: see what holds LVM up on this host (lvs, dmesg)`,
      { cause: error },
    );
  }
  const complaint = error instanceof CommandError ? error.complaint : messageOf(error);
  const known = complaints.find(([pattern]) => pattern.test(complaint))?.[1](thing);
  if (known === undefined) {
    return new BackupError('agent-failed', `${thing}: ${program} says: ${complaint}`, { cause: error });
  }
  return new BackupError(known.code, known.message, { cause: error, details: { program, complaint } });
}
