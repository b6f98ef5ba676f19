/**
 * The devices of logical volumes that are open here. A snapshot of a backup is active only while it is read: LVM activates it for
 * its first reader and not any more after its last. What Cinder made stays active, as Cinder leaves it.
 */
import { constants, open, readFile, stat, type FileHandle } from 'node:fs/promises';
import { createBudget, withLimit, type Budget } from '../async/limit.ts';
import type { Logger } from '../log.ts';
import { BackupError } from '../model/errors.ts';
import { errnoOf, translateFileError } from './file-errors.ts';
import type { LvmGroup } from './lvm-group.ts';
import type { LogicalVolume } from './lvm-report.ts';

export type OpenDevice = { readonly handle: FileHandle; close(): Promise<void> };

export type LvmDevices = {
  /**
   * Opens the device of a logical volume, which is made active. `thing` names it in messages. Throws `state-invalid` if another one has taken its
   * name meanwhile.
   */
  open(volume: LogicalVolume, mode: 'read' | 'write', thing: string): Promise<OpenDevice>;
  /** Has it active until it is let go of: costs nothing while it is open here. */
  hold(volume: LogicalVolume, thing: string): Promise<{ close(): Promise<void> }>;
  /** Waits until nothing is open. */
  settle(): Promise<void>;
  /**
   * Has `work` done while nobody here has the volume open: waits for those who have until the signal aborts, then throws its reason. Others
   * wait meanwhile.
   */
  alone<T>(volume: string, work: () => Promise<T>, signal: AbortSignal): Promise<T>;
};

/** The opens of a volume, the lock of what makes it active and inactive, and whether it has been made active here. */
type Locks = { readonly opens: Budget; readonly switching: Budget; isActive: boolean };

/** As many readers as there are streams, and more. */
const manyReaders = 1_000_000;

export function createLvmDevices(deps: {
  readonly group: LvmGroup;
  /** True for those that are made inactive when nobody reads them any more. */
  readonly isOurs: (volume: string) => boolean;
  readonly log: Logger;
}): LvmDevices {
  const { group, isOurs, log } = deps;
  /** Of each that is open or waited for. */
  const known = new Map<string, Locks>();

  const using = async <T>(volume: string, work: (locks: Locks) => Promise<T>): Promise<T> => {
    const locks = known.get(volume) ?? {
      opens: createBudget(manyReaders),
      switching: createBudget(1),
      isActive: false,
    };
    known.set(volume, locks);
    try {
      return await work(locks);
    } finally {
      forget(volume, locks);
    }
  };

  const forget = (volume: string, { opens, switching }: Locks) => {
    if (opens.held + opens.waiting + switching.held + switching.waiting === 0) known.delete(volume);
  };

  const openActive = async (
    volume: LogicalVolume,
    locks: Locks,
    flags: number,
    thing: string,
  ): Promise<FileHandle> => {
    if (!locks.isActive) await group.activate(volume.name);
    locks.isActive = true;
    const handle = await open(volume.path, flags).catch((error: unknown) => {
      throw isAbsent(error) ? withoutDevice(volume, error) : translateFileError(error, thing);
    });
    try {
      if ((await mapperUuid(handle)) === mapperUuidOf(volume)) return handle;
      throw new BackupError(
        'state-invalid',
        `${thing} was made anew or renamed while it was opened: try again`,
      );
    } catch (error) {
      await handle.close();
      throw error;
    }
  };

  const rest = async (volume: string, locks: Locks) => {
    if (!isOurs(volume)) return;
    await withLimit(locks.switching, async () => {
      if (locks.opens.held > 0 || !locks.isActive) return;
      locks.isActive = false;
      await group.deactivate(volume).catch((err: unknown) => {
        log.warn({ volume, err }, 'a snapshot that nobody reads any more is still active');
      });
    });
  };

  const openDevice: LvmDevices['open'] = (volume, mode, thing) =>
    using(volume.name, async (locks) => {
      const release = await locks.opens.acquire(1);
      const leave = async () => {
        release();
        await rest(volume.name, locks);
        forget(volume.name, locks);
      };
      try {
        const flags = mode === 'read' ? constants.O_RDONLY : constants.O_RDWR;
        const handle = await withLimit(locks.switching, () => openActive(volume, locks, flags, thing));
        const close = async () => {
          try {
            await handle.close();
          } finally {
            await leave();
          }
        };
        let closing: Promise<void> | undefined;
        return {
          handle,
          close() {
            closing ??= close();
            return closing;
          },
        };
      } catch (error) {
        await leave();
        throw error;
      }
    });

  return {
    open: openDevice,
    async hold(volume, thing) {
      const locks = known.get(volume.name);
      const isOpen = locks?.isActive === true && locks.opens.held > 0 && locks.opens.held < manyReaders;
      // A second open would wait behind a deletion that waits for the first one.
      return isOpen ? { close: async () => {} } : await openDevice(volume, 'read', thing);
    },
    async settle() {
      for (const { opens } of Array.from(known.values())) (await opens.acquire(manyReaders))();
    },
    alone: (volume, work, signal) =>
      using(volume, async (locks) => {
        const release = await locks.opens.acquire(manyReaders, signal);
        try {
          return await work();
        } finally {
          // What is of that name from here on may be another one.
          locks.isActive = false;
          release();
        }
      }),
  };
}

function isAbsent(error: unknown): boolean {
  return ['ENOENT', 'ENXIO', 'ENODEV'].includes(errnoOf(error));
}

function withoutDevice({ name, path }: LogicalVolume, cause: unknown): BackupError {
  return new BackupError(
    'agent-failed',
    `LVM has activated ${name}, but there is no device ${path}: see volume_list in lvm.conf, and whether udev runs`,
    { cause },
  );
}

/** True if the volume is active on this host. */
export async function isActive({ path }: LogicalVolume): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isBlockDevice() ?? false;
}

/** The UUID that the device mapper has for an open device; undefined if it is none of its own. */
async function mapperUuid(handle: FileHandle): Promise<string | undefined> {
  const stats = await handle.stat({ bigint: true });
  if (!stats.isBlockDevice()) return undefined;
  const { major, minor } = deviceNumbers(stats.rdev);
  const text = await readFile(`/sys/dev/block/${major}:${minor}/dm/uuid`, 'utf8').catch(() => undefined);
  return text?.trim();
}

/** What LVM gives to the device of a logical volume (build_dm_uuid of lib/activate/dev_manager.c). */
function mapperUuidOf({ groupUuid, uuid }: LogicalVolume): string {
  return `LVM-${groupUuid.replaceAll('-', '')}${uuid.replaceAll('-', '')}`;
}

/** The halves of `st_rdev` (gnu_dev_major(3)). */
export function deviceNumbers(device: bigint): { readonly major: bigint; readonly minor: bigint } {
  return {
    major: ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n),
    minor: (device & 0xffn) | ((device >> 12n) & 0xffffff00n),
  };
}
