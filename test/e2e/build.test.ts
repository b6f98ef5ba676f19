/** The compiled program: all that `npm run build` makes, its worker threads too, in a directory without sources. */
import { execFile } from 'node:child_process';
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { requireAvailable } from '../../src/main/rest-client.ts';
import { createRandom, expectSameBytes, scatteredBlocks, writePattern } from '../support/random-volume.ts';

const project = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);
const sizeBytes = 1024 ** 3;

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'cinder-delta-build-'));
  const compiler = join(project, 'node_modules', 'typescript', 'bin', 'tsc');
  const config = join(project, 'tsconfig.build.json');
  await run(process.execPath, [compiler, '-p', config, '--outDir', join(root, 'dist')], { cwd: project });
  await symlink(join(project, 'node_modules'), join(root, 'node_modules'));
  await cp(join(project, 'package.json'), join(root, 'package.json'));
});
afterAll(() => rm(root, { recursive: true, force: true }));

it('says its version', async () => {
  const { stdout } = await run(process.execPath, [join(root, 'dist', 'main', 'cli.js'), 'version']);
  expect(stdout).toMatch(/^cinder-delta \d/);
});

it('backs up, increments, verifies and restores', async () => {
  const built = (await import(
    pathToFileURL(join(root, 'dist', 'main', 'service-process.js')).href
  )) as typeof import('../../src/main/service-process.ts');
  const stateDir = join(root, 'state');
  await using service = await built.startService({ stateDir });
  const { client } = service;
  const random = createRandom();
  const some = (count: number) => scatteredBlocks(random, { sizeBytes, blockBytes: 256 * 1024, count });
  const pathOf = (volume: string) => join(stateDir, 'volumes', `volume-${volume}`);

  const volumeId = await client.createVolume('source', 1);
  await writePattern(pathOf(volumeId), some(100), 1);
  requireAvailable(await client.settled(await client.createBackup({ volumeId })));
  await writePattern(pathOf(volumeId), some(20), 2);
  const backupId = await client.createBackup({ volumeId, incremental: true });
  requireAvailable(await client.settled(backupId));

  const verified = await client.finished(await client.startVerify(backupId));
  expect([verified.state, verified.result?.bad_ranges]).toEqual(['succeeded', []]);
  const target = await client.createVolume('target', 1);
  await client.restore(backupId, target);
  requireAvailable(await client.settled(backupId));
  await expectSameBytes(pathOf(target), pathOf(volumeId));
  expect(await service.stop()).toBe(0);
});
