/**
 * The walk of test/support/model-walk.ts: where deltas are found by comparing bytes, and on XFS, where they are found by the
 * physical extents of reflinked snapshots.
 *
 * TEST_SEED repeats a walk, TEST_ROUNDS makes the first longer.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startEngine, type Engine } from '../support/engine.ts';
import { loopMountObstacle, mountLoop, type LoopMount } from '../support/loop-mount.ts';
import { startModelWalk, type ModelWalk } from '../support/model-walk.ts';
import { createRandom } from '../support/random-volume.ts';

const MiB = 1024 * 1024;
const rounds = Number(process.env['TEST_ROUNDS'] ?? 240);
const roundsOnXfs = 60;
const random = createRandom();

describe('a service over files', () => {
  let engine: Engine;
  let walk: ModelWalk;
  beforeAll(async () => {
    engine = await startEngine({ codec: 'zlib', objectBytes: MiB });
    walk = await startModelWalk(engine, random);
  });
  afterAll(async () => {
    await engine[Symbol.asyncDispose]();
  });

  it(`restores every backup of ${rounds} random rounds as it was (seed ${random.seed})`, () =>
    walk.run(rounds));

  it('leaves no object and no snapshot behind once every backup is deleted', () => walk.clear());
});

const obstacle = await loopMountObstacle('xfs');
describe.skipIf(obstacle !== null)('a service over files of XFS', () => {
  let mount: LoopMount;
  let engine: Engine;
  let walk: ModelWalk;
  beforeAll(async () => {
    mount = await mountLoop('xfs', { sizeBytes: 2048 * MiB });
    engine = await startEngine({ codec: 'zlib', objectBytes: MiB, stateDir: join(mount.directory, 'state') });
    walk = await startModelWalk(engine, random);
  });
  afterAll(async () => {
    await engine[Symbol.asyncDispose]();
    await mount.unmount();
  });

  it(`restores every backup of ${roundsOnXfs} random rounds as it was (seed ${random.seed})`, async () => {
    await walk.run(roundsOnXfs);
    const snapshots = join(engine.stateDir, 'volumes', '.snapshots');
    const names = await readdir(snapshots, { recursive: true });
    const records = names.filter((name) => name.endsWith('.json'));
    expect(records.length).toBeGreaterThan(0);
    for (const name of records) {
      expect(JSON.parse(await readFile(join(snapshots, name), 'utf8'))).toMatchObject({ method: 'reflink' });
    }
  });

  it('leaves no object and no snapshot behind once every backup is deleted', () => walk.clear());
});
