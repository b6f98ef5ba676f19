/** A chain of backups of one volume, of which each layer is made by our engine or by Cinder's driver. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Extent } from '../../src/model/extent.ts';
import type { CinderPeer, PeerDriver, PeerOptions, PeerRow } from '../support/cinder-peer.ts';
import type { Engine, EngineVolume } from '../support/engine.ts';
import { makeVolumeFile } from '../support/random-volume.ts';
import { expectContent, type Content } from '../support/tracked-volume.ts';

export type Side = 'ours' | 'cinder';

export type ChainLayer = { readonly side: Side; readonly row: PeerRow; readonly content: Content };

export type MixedChain = {
  readonly volume: EngineVolume;
  readonly layers: readonly ChainLayer[];
  /** Backs up what the volume holds now: a full backup first, an increment on the newest layer after it. */
  add(side: Side): Promise<ChainLayer>;
  /** Restores each layer with both sides over a volume of other bytes, and compares. */
  expectEveryLayerRestores(): Promise<void>;
  /** The same for the newest layer alone. */
  expectNewestRestores(): Promise<void>;
  /** Our verify finds nothing wrong in any layer. */
  expectEveryLayerVerifies(): Promise<void>;
};

/** `options` are those of Cinder's driver; posix, which it is unless given, is told the path of the store besides. */
export function createMixedChain(deps: {
  readonly engine: Engine;
  readonly peer: CinderPeer;
  readonly volume: EngineVolume;
  readonly driver?: PeerDriver;
  readonly options: PeerOptions;
  /** What a volume holds before it is restored over: other bytes everywhere unless given. */
  readonly dirt?: readonly Extent[];
}): MixedChain {
  const { engine, peer, volume } = deps;
  const dirtOf = (content: Content) => deps.dirt ?? [{ offset: 0, length: content.sizeBytes }];
  const { driver = 'posix' } = deps;
  const options = driver === 'posix' ? { ...deps.options, backup_posix_path: engine.storeDir } : deps.options;
  const layers: ChainLayer[] = [];

  async function backUpWithCinder(parent: ChainLayer | undefined): Promise<PeerRow> {
    const row = engine.insertRow({
      volumeId: volume.id,
      parentId: parent?.row.id ?? null,
      sizeBytes: volume.file.sizeBytes,
    });
    const rows = [row, ...layers.map((layer) => layer.row)];
    const request = {
      op: 'backup',
      driver,
      options,
      rows,
      backup_id: row.id,
      volume_file: volume.file.path,
    } as const;
    const { row: made } = await peer.perform(request);
    engine.updateRow(made, 'available');
    return { ...row, ...made };
  }

  async function restoreWithCinder(layer: ChainLayer): Promise<void> {
    const path = join(engine.storeDir, '..', `restored-by-cinder-${layer.row.id}`);
    const { sizeBytes } = layer.content;
    await makeVolumeFile(path, { sizeBytes, extents: dirtOf(layer.content), generation: 4_000_000 });
    const rows = layers.map((each) => each.row);
    await peer.perform({ op: 'restore', driver, options, rows, backup_id: layer.row.id, volume_file: path });
    await expectContent(path, layer.content);
    await rm(path);
  }

  async function restoreWithOurs(layer: ChainLayer): Promise<void> {
    const target = await engine.addVolume(layer.content.sizeBytes);
    await target.file.write(dirtOf(layer.content));
    await engine.restore(layer.row.id, target.id);
    await expectContent(target.file.path, layer.content);
    await rm(target.file.path);
  }

  async function restoreWithBoth(layer: ChainLayer): Promise<void> {
    await restoreWithCinder(layer);
    await restoreWithOurs(layer);
  }

  return {
    volume,
    layers,
    async add(side) {
      const content = volume.file.content();
      const parent = layers.at(-1);
      const row =
        side === 'cinder'
          ? await backUpWithCinder(parent)
          : await engine.backup(volume.id, parent === undefined ? 'full' : 'incremental');
      expect(row.parent_id).toBe(parent?.row.id ?? null);
      const layer = { side, row, content };
      layers.push(layer);
      return layer;
    },
    async expectEveryLayerRestores() {
      for (const layer of layers) await restoreWithBoth(layer);
    },
    async expectNewestRestores() {
      for (const layer of layers.slice(-1)) await restoreWithBoth(layer);
    },
    async expectEveryLayerVerifies() {
      for (const layer of layers) expect(await engine.verify(layer.row.id)).toEqual([]);
    },
  };
}
