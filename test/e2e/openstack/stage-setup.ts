/**
 * One stage for all test files of the project: started before the first, gone after the last, and gone too when the tests are killed.
 * With STAGE_DIRECTORY set, that of `npm run stage -- up --directory` is used, and stays.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestProject } from 'vitest/node';
import { openStage, upStage, useBackupProgram } from '../../stage/stage.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    readonly stageDirectory: string;
  }
}

const watchdog = fileURLToPath(new URL('../../stage/watchdog.ts', import.meta.url));

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env['STAGE_DIRECTORY'];
  if (given !== undefined) {
    if ((await openStage(given)) === undefined) throw new Error(`there is no stage in ${given}`);
    project.provide('stageDirectory', given);
    return async () => {};
  }
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-stage-'));
  const keeper = spawn(process.execPath, [watchdog, directory], {
    detached: true,
    stdio: ['pipe', 'inherit', 'inherit'],
  });
  const remove = async () => {
    const gone = once(keeper, 'exit');
    keeper.stdin.end();
    await gone;
  };
  try {
    const stage = await upStage(directory, (step) => process.stdout.write(`stage: ${step}\n`));
    await useBackupProgram(stage, process.env['STAGE_BACKUP'] === 'python' ? 'python' : 'delta');
  } catch (error) {
    await remove();
    throw error;
  }
  project.provide('stageDirectory', directory);
  return remove;
}
