/** A sparse volume of 1 TiB of which 100 MiB change: ours only, since Cinder's driver would read and compress it all. */
import { mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { totalLength, type Extent } from '../../src/model/extent.ts';
import { writeRealBytes, type RealBytes } from '../../src/main/real-bytes.ts';
import { showBytes, showSeconds, textTable } from '../../src/main/text-table.ts';
import { createRandom } from '../support/random-volume.ts';
import { startService } from '../../src/main/service-process.ts';
import { createBenchStore } from './bench-store.ts';
import { clusteredChange, scatteredChange } from './layout.ts';
import { measureOurBackup } from './measure.ts';

const MiB = 1024 ** 2;
const sizeGiB = 1024;
const dataBytes = 1024 * MiB;
const changedBytes = 100 * MiB;

/** The table of it. */
export async function runScale(workspace: string, source: RealBytes): Promise<string> {
  const folder = join(workspace, 'scale');
  const stateDir = join(folder, 'ours');
  await mkdir(stateDir, { recursive: true });
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(folder, { recursive: true, force: true }));
  const place = await cleanup.use(await createBenchStore('posix')).place(folder);
  const service = cleanup.use(await startService({ stateDir, codec: 'zlib' }));
  const sizeBytes = sizeGiB * 1024 * MiB;
  const volumeId = await service.client.createVolume('scale', sizeGiB);
  const random = createRandom();
  const rows: string[][] = [];

  const backUp = async (name: string, changed: readonly Extent[]) => {
    await using file = await open(join(stateDir, 'volumes', `volume-${volumeId}`), 'r+');
    await writeRealBytes(file, changed, source);
    const { mode, seconds, readBytes, storedBytes, peakBytes } = await measureOurBackup(
      service,
      place,
      volumeId,
      rows.length > 0,
    );
    const cells = [totalLength(changed), readBytes, storedBytes, peakBytes].map(showBytes);
    rows.push([name, mode, showSeconds(seconds), ...cells]);
  };
  await backUp('full', clusteredChange(random, sizeBytes, dataBytes));
  await backUp('100 MiB scattered', scatteredChange(random, sizeBytes, changedBytes));
  await backUp('unchanged', []);
  const head = ['step', 'way', 'ours', 'changed', 'read', 'stored', 'peak'];
  return `\nsparse volume of 1 TiB, 1 GiB of it real bytes, codec zlib\n\n${textTable(head, rows)}`;
}
