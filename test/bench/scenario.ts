/**
 * One volume through its life, by both sides: a full backup, an increment of scattered small writes, one of clustered long
 * writes, one of nothing, and a restore of the whole chain. Both sides back up the same file in the same state, into
 * stores of the same kind on the same file system; both restored volumes are compared with it.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { totalLength, type Extent } from '../../src/model/extent.ts';
import type { Codec } from '../../src/model/codec.ts';
import { writeRealBytes, type RealBytes } from '../../src/main/real-bytes.ts';
import type { PeerRow } from '../support/cinder-peer.ts';
import { createRandom, expectSameBytes, makeVolumeFile } from '../support/random-volume.ts';
import { startService } from '../../src/main/service-process.ts';
import type { BenchStore } from './bench-store.ts';
import { clusteredChange, dataExtents, scatteredChange } from './layout.ts';
import {
  measureCinder,
  measureOurBackup,
  measureOurRestore,
  measurePlainRead,
  type MeasuredBackup,
} from './measure.ts';

export type StepResult = {
  readonly name: string;
  readonly ours: MeasuredBackup;
  readonly cinder: MeasuredBackup;
  /** How ours was found. */
  readonly mode: string;
  /** Bytes of the volume that are not what they were, and the seconds of a plain read with SHA-256 of them. */
  readonly changedBytes: number;
  readonly plainSeconds: number;
};

export type ScenarioOptions = {
  readonly workspace: string;
  readonly sizeGiB: number;
  readonly codec: Codec;
  /** Bytes of each of the two changes. */
  readonly changedBytes: number;
  readonly source: RealBytes;
  readonly store: BenchStore;
  readonly onStep: (result: StepResult) => void;
};

const GiB = 1024 ** 3;
const objectBytes = 52_428_800;

export async function runScenario(options: ScenarioOptions): Promise<void> {
  const { workspace, sizeGiB, codec, source, onStep } = options;
  const sizeBytes = sizeGiB * GiB;
  const folder = join(workspace, `${sizeGiB}-${codec}`);
  const stateDir = join(folder, 'ours');
  for (const path of [folder, stateDir]) await mkdir(path);
  const place = await options.store.place(folder);
  const service = await startService({ stateDir, codec, objectBytes, args: place.serviceArgs });
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(folder, { recursive: true, force: true }));
  cleanup.use(service);

  const volumeId = await service.client.createVolume('bench', sizeGiB);
  const pathOf = (id: string) => join(stateDir, 'volumes', `volume-${id}`);
  const write = async (extents: readonly Extent[]) => {
    await using file = await open(pathOf(volumeId), 'r+');
    await writeRealBytes(file, extents, source);
  };
  const { driver } = place;
  const peerOptions = { ...place.peerOptions, backup_compression_algorithm: codec };
  const rows: PeerRow[] = [];
  const ourIds: string[] = [];

  const backUp = async (name: string, changed: readonly Extent[]) => {
    await write(changed);
    const plainSeconds = await measurePlainRead(pathOf(volumeId), changed);
    const { id, mode, ...ours } = await measureOurBackup(service, place, volumeId, ourIds.length > 0);
    ourIds.push(id);
    const row = newRow(volumeId, rows.at(-1)?.id ?? null, sizeGiB);
    const { row: made, ...cinder } = await measureCinder(
      {
        op: 'backup',
        driver,
        options: peerOptions,
        rows: [row, ...rows],
        backup_id: row.id,
        volume_file: pathOf(volumeId),
      },
      place,
    );
    rows.push(made);
    onStep({ name, mode, ours, cinder, changedBytes: totalLength(changed), plainSeconds });
  };

  const random = createRandom();
  await backUp('full', dataExtents(sizeBytes));
  await backUp('1 % scattered', scatteredChange(random, sizeBytes, options.changedBytes));
  await backUp('1 % clustered', clusteredChange(random, sizeBytes, options.changedBytes));
  await backUp('unchanged', []);

  const targetId = await service.client.createVolume('restored', sizeGiB);
  const newest = ourIds.at(-1) ?? '';
  const ours = await measureOurRestore(service, newest, targetId);
  await expectSameBytes(pathOf(volumeId), pathOf(targetId));
  await rm(pathOf(targetId));
  const restored = join(folder, 'restored-by-cinder');
  await makeVolumeFile(restored, { sizeBytes, extents: [] });
  const { row, ...cinder } = await measureCinder(
    {
      op: 'restore',
      driver,
      options: peerOptions,
      rows,
      backup_id: rows.at(-1)?.id ?? '',
      volume_file: restored,
    },
    place,
  );
  await expectSameBytes(pathOf(volumeId), restored);
  const data = dataExtents(sizeBytes);
  onStep({
    name: `restore of ${rows.length} layers`,
    mode: row.status ?? '',
    ours: { ...ours, storedBytes: 0, readBytes: 0 },
    cinder: { ...cinder, storedBytes: 0, readBytes: 0 },
    changedBytes: totalLength(data),
    plainSeconds: await measurePlainRead(pathOf(volumeId), data),
  });
}

function newRow(volumeId: string, parentId: string | null, sizeGiB: number): PeerRow {
  return {
    id: randomUUID(),
    volume_id: volumeId,
    parent_id: parentId,
    container: null,
    service_metadata: null,
    size: sizeGiB,
    created_at: new Date().toISOString().replace('T', ' ').replace('Z', ''),
    display_name: null,
    display_description: null,
    object_count: 0,
  };
}
