/**
 * A model of what a backup service must do, and a long random walk beside it: guests write, discard and grow, backups are
 * made and deleted, storage snapshots vanish, the service is stopped and killed. The model knows for each backup what its volume
 * held; every backup is restored and compared before it is deleted, and all that are left at the end.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { RestError } from '../../src/main/rest-client.ts';
import { markerName } from '../../src/store/posix-root.ts';
import type { Engine, EngineVolume } from './engine.ts';
import { changeAtRandom } from './random-changes.ts';
import type { Random } from './random-volume.ts';
import { expectContent, type Content } from './tracked-volume.ts';

const MiB = 1024 * 1024;
const largestBytes = 32 * MiB;

type ModelBackup = {
  readonly id: string;
  readonly volumeId: string;
  readonly parentId: string | null;
  readonly content: Content;
};

export type ModelWalk = {
  /** Acts at random, then restores and verifies everything. */
  run(rounds: number): Promise<void>;
  /** Deletes every backup: nothing of them may be left. */
  clear(): Promise<void>;
};

/** Walks with three volumes of its own. */
export async function startModelWalk(engine: Engine, random: Random): Promise<ModelWalk> {
  const volumes: EngineVolume[] = [];
  const backups: ModelBackup[] = [];
  const history: string[] = [];
  for (const sectors of [16_384, 20_483, 30_001]) volumes.push(await engine.addVolume(sectors * 512));

  const newestOf = (volumeId: string) => backups.findLast((backup) => backup.volumeId === volumeId);
  const hasDependents = (id: string) => backups.some((backup) => backup.parentId === id);

  async function backUp(volume: EngineVolume): Promise<string> {
    const parent = newestOf(volume.id);
    const kind = parent !== undefined && random.chance(0.8) ? 'incremental' : 'full';
    const row = await engine.backup(volume.id, kind);
    const parentId = kind === 'incremental' ? (parent?.id ?? null) : null;
    expect(row.parent_id).toBe(parentId);
    backups.push({ id: row.id, volumeId: volume.id, parentId, content: volume.file.content() });
    return `${kind} backup ${row.id}`;
  }

  async function restoreAndCompare(backup: ModelBackup): Promise<string> {
    const target = await engine.addVolume(backup.content.sizeBytes + random.pick([0, 0, 512, MiB]));
    await target.file.write([{ offset: 0, length: target.file.sizeBytes }]);
    const rest = target.file.content();
    rest.generations.set(backup.content.generations);
    await engine.restore(backup.id, target.id);
    await expectContent(target.file.path, rest);
    await rm(target.file.path);
    return `restored ${backup.id}`;
  }

  async function deleteOne(how: 'delete' | 'force'): Promise<string> {
    if (backups.length === 0) return 'nothing to delete';
    const backup = random.pick(backups);
    const ask = () =>
      how === 'force' ? engine.client.forceDelete(backup.id) : engine.client.deleteBackup(backup.id);
    if (hasDependents(backup.id)) {
      await expect(ask()).rejects.toThrow(RestError);
      expect((await engine.client.backup(backup.id)).status).toBe('available');
      return `${how} of ${backup.id} refused: it has dependents`;
    }
    await restoreAndCompare(backup);
    await ask();
    expect(await engine.client.settled(backup.id)).toBeUndefined();
    backups.splice(backups.indexOf(backup), 1);
    return `${how} of ${backup.id}`;
  }

  /** Storage snapshots that vanish behind our back: the files, with or without what is written about them. */
  async function loseSnapshots(): Promise<string> {
    const volume = random.pick(volumes);
    const folder = join(engine.stateDir, 'volumes', '.snapshots', `volume-${volume.id}`);
    const names = await readdir(folder).catch(() => []);
    const withRecords = random.chance(0.5);
    const lost = names.filter((name) => withRecords || !name.endsWith('.json'));
    for (const name of lost) await rm(join(folder, name), { force: true });
    return `lost ${lost.length} snapshot files of ${volume.id}`;
  }

  async function grow(volume: EngineVolume): Promise<string> {
    const room = (largestBytes - volume.file.sizeBytes) / 512;
    const bytes = volume.file.sizeBytes + random.between(0, Math.min(room, 4096)) * 512;
    await volume.file.grow(bytes);
    return `grew ${volume.id} to ${bytes}`;
  }

  async function act(): Promise<string> {
    const volume = random.pick(volumes);
    const dice = random.between(1, 100);
    if (dice <= 38) return await changeAtRandom(random, volume.file);
    if (dice <= 66) return await backUp(volume);
    if (dice <= 72) return await grow(volume);
    if (dice <= 80)
      return backups.length === 0 ? 'nothing to restore' : await restoreAndCompare(random.pick(backups));
    if (dice <= 86) return await deleteOne('delete');
    if (dice <= 89) return await deleteOne('force');
    if (dice <= 95) return await loseSnapshots();
    const how = random.pick(['stop', 'kill'] as const);
    await engine.restart(how);
    return `restarted after ${how}`;
  }

  return {
    async run(rounds) {
      for (let round = 1; round <= rounds; round += 1) {
        try {
          history.push(await act());
          const known = engine.rows().map((row) => row.id);
          expect(known.toSorted()).toEqual(backups.map((backup) => backup.id).toSorted());
        } catch (error) {
          const last = history.slice(-12).join('\n  ');
          throw new Error(`round ${round} of seed ${random.seed}, after\n  ${last}`, { cause: error });
        }
      }
      for (const backup of backups) {
        expect(await engine.verify(backup.id)).toEqual([]);
        await restoreAndCompare(backup);
      }
      const counted = engine.rows().map((row) => [row.id, row.num_dependent_backups ?? 0]);
      const expected = backups.map(({ id }) => [
        id,
        backups.filter(({ parentId }) => parentId === id).length,
      ]);
      expect(Object.fromEntries(counted)).toEqual(Object.fromEntries(expected));
    },
    async clear() {
      for (const backup of backups.splice(0).toReversed()) {
        await engine.client.deleteBackup(backup.id);
        expect(await engine.client.settled(backup.id)).toBeUndefined();
      }
      const left = await readdir(engine.storeDir, { recursive: true, withFileTypes: true });
      const files = left.filter((entry) => entry.isFile()).map((entry) => entry.name);
      expect(files).toEqual([markerName]);
      const snapshots = await readdir(join(engine.stateDir, 'volumes', '.snapshots'), { recursive: true });
      expect(snapshots).toEqual(['.lock']);
    },
  };
}
