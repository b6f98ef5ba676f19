/**
 * Volumes as thin logical volumes of one group (`volume-<uuid>`), as Cinder's LVM driver makes them with `lvm_type = thin`
 * (cinder/volume/drivers/lvm.py); backups by read-only thin snapshots beside them (`backup.<uuid>.snap.<time>`), which keep no volume
 * from being deleted.
 *
 * Entry: createLvmBackend. Changes are told by the mappings of the pool (lvm-ranges), bytes are read from the device of a snapshot, which
 * is active only meanwhile (lvm-devices). The names of logical volumes are those of the group: that a snapshot is of a volume is told by
 * its origin, and by a tag once that is gone.
 *
 * - Identities are LVM's own UUIDs, which no two logical volumes share.
 * - Volumes are made, grown and removed by Cinder, not here.
 *
 *   at the same time on one volume     allowed
 *   snapshot create / snapshot create  one after the other (a lock per volume)
 *   snapshot delete / reading it       no: the deletion waits a while for its readers, then is `busy`
 *   restore target / restore target    no: the second is `state-invalid`
 *   two agents on one group            no: the second is `state-invalid` when it is created
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { inTime } from '../async/in-time.ts';
import { createBudget, type Budget } from '../async/limit.ts';
import type { Logger } from '../log.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import { backupIdOfSnapshot, volumeNamePattern } from '../model/names.ts';
import type { BackendInfo } from '../protocol/calls.ts';
import { runCommand, type RunCommand } from './command.ts';
import { translateFileError } from './file-errors.ts';
import { lockDirectory } from './file-lock.ts';
import type { FileThreads } from './file-snapshots.ts';
import type { FileStep, FileStepResult } from './file-steps.ts';
import { createFileTarget } from './file-target.ts';
import { createLvmDevices, isActive } from './lvm-devices.ts';
import { createLvmGroup, type LvmGroup } from './lvm-group.ts';
import { findLvmRanges, releaseLeft, type Reservation, type ThinVolume } from './lvm-ranges.ts';
import type { LogicalVolume } from './lvm-report.ts';
import {
  hasSame,
  isPool,
  nameOf,
  taggedVolume,
  isSnapshotOf,
  requireThin,
  findThinSnapshot,
  snapshotsOf,
  poolOf,
  identityOf,
  volumeInfo,
  snapshotInfo,
  requireOnePool,
  tagOf,
} from './lvm-volumes.ts';
import { previousGone, requireFit, requireWholeLength } from './range-checks.ts';
import { createThreadPool, workerModule } from './thread-pool.ts';
import type { VolumeBackend } from './volume-backend.ts';
import { createVolumeLocks } from './volume-locks.ts';

/** How long the deletion of a snapshot waits for its readers, less than its client waits: a stream that was cut is closed by then. */
const readersLeaveMs = 30_000;
const groupNamePattern = /^[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}$/;
/** How long a stop waits for streams that end. */
const settleMs = 20_000;

/**
 * Throws `config-invalid` if LVM's programs or the group are not there, or it holds no thin pool; `state-invalid` while another
 * agent serves it.
 */
export async function createLvmBackend(options: {
  readonly name: string;
  readonly volumeGroup: string;
  /** Where lvm.conf is, if not in /etc/lvm. */
  readonly systemDirectory?: string | undefined;
  /** Holds, for each group that is served, a lock and what has to survive the agent. */
  readonly stateDirectory?: string;
  readonly run?: RunCommand;
  readonly log: Logger;
}): Promise<VolumeBackend> {
  const { log, name, run = runCommand, systemDirectory, volumeGroup } = options;
  if (!groupNamePattern.test(volumeGroup)) {
    throw new BackupError(
      'config-invalid',
      `backend ${name}: volume_group ${JSON.stringify(volumeGroup)} is no name of a volume group`,
    );
  }
  const group = createLvmGroup({ name: volumeGroup, systemDirectory, run });
  const first = await group.list();
  const groupUuid = first.find(isPool)?.groupUuid;
  if (groupUuid === undefined) {
    throw new BackupError(
      'config-invalid',
      `backend ${name}: volume group ${volumeGroup} has no thin pool: only thin volumes (lvm_type = thin) can be backed up here`,
    );
  }
  await requireTools(name, group);
  const threads: FileThreads = createThreadPool<FileStep, FileStepResult>({
    module: workerModule('file-worker'),
    threads: 2,
  });
  await using opening = new AsyncDisposableStack();
  opening.defer(() => threads.close());
  const root = `${options.stateDirectory ?? '/var/lib/cinder-delta'}/lvm-${groupUuid}`;
  await mkdir(root, { recursive: true, mode: 0o700 }).catch((error: unknown) => {
    throw translateFileError(error, root);
  });
  const lock = await lockDirectory({ directory: `of volume group ${volumeGroup}`, root, threads, log });
  opening.defer(() => lock.close());
  const devices = createLvmDevices({
    group,
    isOurs: (volume) => backupIdOfSnapshot(volume) !== undefined,
    log,
  });
  const inTurn = createVolumeLocks();
  const poolLocks = new Map<string, Budget>();
  const metadataOf = (pool: LogicalVolume) => {
    const lockOfPool = poolLocks.get(pool.uuid) ?? createBudget(1);
    poolLocks.set(pool.uuid, lockOfPool);
    return {
      group,
      pool,
      lock: lockOfPool,
      reservation: createReservation(`${root}/kept-${pool.uuid}`),
      log,
    };
  };
  const targets = new Set<string>();
  const info: BackendInfo = { name, type: 'lvm-thin', delta: 'extents', restore: true, create_volume: false };
  log.info({ backend: name, group: volumeGroup }, 'LVM backend opened');
  const held = opening.move();

  const findVolume = async (
    volume: string,
  ): Promise<{ all: readonly LogicalVolume[]; found: ThinVolume }> => {
    const all = await group.list();
    const found = all.find((one) => one.name === volume);
    if (found === undefined) throw new BackupError('not-found', `${volume} does not exist`);
    return { all, found: requireThin(found, all) };
  };
  const findSnapshot = async (volume: string, snapshot: string) => {
    const all = await group.list();
    const found = findThinSnapshot(all, snapshot, volume);
    if (found !== undefined) return { all, found };
    throw new BackupError('not-found', `snapshot ${snapshot} of ${volume} does not exist`);
  };
  const requireSame = async (volume: string, snapshot: string, was: LogicalVolume): Promise<void> => {
    const now = (await group.list()).find((one) => one.name === was.name && isSnapshotOf(one, volume));
    if (now?.uuid !== was.uuid) throw madeAnew(volume, snapshot);
  };

  const notCreated = () =>
    Promise.reject(
      new BackupError('state-invalid', `backend ${name} makes and resizes no volumes: Cinder does that`),
    );

  return {
    info,
    async listVolumes(signal) {
      throwIfAborted(signal);
      const all = await group.list();
      return all
        .filter((one) => volumeNamePattern.test(one.name) && one.thinId !== null)
        .map(volumeInfo)
        .toSorted((a, b) => (a.name < b.name ? -1 : 1));
    },
    async listGone() {
      const all = await group.list();
      const there = new Set(all.map((one) => one.name));
      const named = all.filter(({ origin }) => origin === null).map(taggedVolume);
      const gone = named.filter((volume) => volume !== undefined && !there.has(volume));
      return [...new Set(gone)].filter((volume) => volume !== undefined).toSorted();
    },
    async getVolume(volume) {
      const { all, found } = await findVolume(volume);
      return { ...volumeInfo(found), snapshots: snapshotsOf(volume, all) };
    },
    listSnapshots: async (volume) => snapshotsOf(volume, await group.list()),
    createVolume: notCreated,
    resizeVolume: notCreated,
    async createSnapshot(volume, snapshot, signal) {
      throwIfAborted(signal);
      return await inTurn(
        volume,
        async () => {
          const { all } = await findVolume(volume);
          const existing = all.find((one) => one.name === nameOf(snapshot));
          if (existing === undefined) {
            await group.makeSnapshot(volume, nameOf(snapshot), tagOf(volume)).catch((error: unknown) => {
              // By the program that crashed when it was done, and was started again.
              if (!isBackupError(error, 'already-exists')) throw error;
            });
            return snapshotInfo((await findSnapshot(volume, snapshot)).found);
          }
          if (isSnapshotOf(existing, volume)) return snapshotInfo(existing);
          throw new BackupError(
            'already-exists',
            `snapshot ${snapshot} exists in volume group ${volumeGroup}, but not of ${volume}: remove it first`,
          );
        },
        signal,
      );
    },
    async deleteSnapshot(volume, snapshot) {
      const late = AbortSignal.timeout(readersLeaveMs);
      const remove = async () => {
        const { found } = await findSnapshot(volume, snapshot);
        await group.remove(found.name);
      };
      try {
        await devices.alone(nameOf(snapshot), remove, late);
      } catch (error) {
        if (isBackupError(error, 'not-found')) return;
        if (!late.aborted || isBackupError(error)) throw error;
        throw new BackupError('busy', `snapshot ${snapshot} of ${volume} is being read: try again later`);
      }
    },
    async findRanges(request) {
      const { volume } = request;
      const { all, found: current } = await findSnapshot(volume, request.current);
      requireWholeLength(request, current.sizeBytes);
      const previous = request.previous === null ? null : findThinSnapshot(all, request.previous, volume);
      if (previous === undefined) throw previousGone(request);
      if (previous !== null) {
        requireFit(request, snapshotInfo(previous));
        requireOnePool(previous, current);
      }
      throwIfAborted(request.signal);
      // Its pool is active as long as it is.
      const device = await devices.hold(current, `snapshot ${request.current} of ${volume}`);
      try {
        const confirm = async () => {
          const now = await group.list();
          if (!hasSame(now, current)) throw madeAnew(volume, request.current);
          if (previous !== null && !hasSame(now, previous)) throw previousGone(request);
        };
        const found = await findLvmRanges({
          ...metadataOf(poolOf(current, all)),
          previous,
          current,
          request,
          confirm,
        });
        return {
          ...found,
          async close() {
            await found.close();
            await device.close();
          },
        };
      } catch (error) {
        await device.close();
        throw error;
      }
    },
    async openSnapshot(volume, snapshot) {
      const { found } = await findSnapshot(volume, snapshot);
      const device = await devices.open(found, 'read', `snapshot ${snapshot} of ${volume}`);
      return {
        sizeBytes: found.sizeBytes,
        identity: identityOf(found),
        handle: { kind: 'file', fd: device.handle.fd },
        requireNamed: () => requireSame(volume, snapshot, found),
        // LVM removes nothing that is open.
        requireWhole: async () => {},
        close: () => device.close(),
      };
    },
    async openTarget(volume) {
      if (targets.has(volume)) {
        throw new BackupError('state-invalid', `${volume} is being restored to: wait until that has ended`);
      }
      targets.add(volume);
      try {
        const { all, found } = await findVolume(volume);
        const pool = poolOf(found, all);
        const device = await devices.open(found, 'write', volume);
        const target = createFileTarget({
          volume: { handle: device.handle, info: volumeInfo(found) },
          threads,
          blocks: { bytes: pool.chunkBytes, zeroed: pool.zeroes },
          closed: () => targets.delete(volume),
        });
        return {
          ...target,
          async close() {
            try {
              await target.close();
            } finally {
              await device.close();
            }
          },
        };
      } catch (error) {
        targets.delete(volume);
        throw error;
      }
    },
    async recover() {
      for (const one of await group.list()) {
        const { name: volume } = one;
        if (isPool(one) && (await isActive({ ...one, path: `${one.path}-tpool` }))) {
          await releaseLeft(metadataOf(one)).catch((err: unknown) => {
            log.warn({ backend: name, pool: volume, err }, 'metadata of the thin pool are reserved');
          });
        }
        if (taggedVolume(one) === undefined || !(await isActive(one))) continue;
        log.info({ backend: name, volume }, 'snapshot of an agent that died is active: it is made inactive');
        await group.deactivate(volume).catch((err: unknown) => {
          log.warn({ backend: name, volume, err }, 'snapshot stays active');
        });
      }
    },
    async close() {
      await inTime(devices.settle(), settleMs, () => log.warn({ backend: name }, 'snapshots are still read'));
      await held.disposeAsync();
    },
  };
}

/** Versions 1.0.0 to 1.0.5 of the tools leave changes out (their CHANGES at 1.0.6), and older ones than 0.9 the last blocks. */
export async function requireTools(name: string, group: Pick<LvmGroup, 'toolVersion'>): Promise<void> {
  const text = await group.toolVersion();
  const found = /\b(\d+)\.(\d+)\.(\d+)/.exec(text);
  const [major = 0, minor = 0, patch = 0] = found?.slice(1).map(Number) ?? [];
  const isOld = major === 0 && minor < 9;
  const isBroken = major === 1 && minor === 0 && patch < 6;
  if (found !== null && !isOld && !isBroken) return;
  throw new BackupError(
    'config-invalid',
    `backend ${name}: thin_delta of this host is version ${JSON.stringify(text.trim())}, which cannot be trusted to tell all changes: install thin-provisioning-tools 0.9, or 1.0.6 or later`,
  );
}

function createReservation(path: string): Reservation {
  return {
    read: async () => await readFile(path, 'utf8').catch(() => null),
    write: async (text) => await writeFile(path, text, { mode: 0o600, flush: true }),
    clear: async () => await rm(path, { force: true }),
  };
}

function madeAnew(volume: string, snapshot: string): BackupError {
  return new BackupError(
    'state-invalid',
    `snapshot ${snapshot} of ${volume} was removed or made anew while it was read`,
  );
}
