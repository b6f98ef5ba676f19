/** cinder-delta on the stage: the service in cinder-backup's place, and the agent on the storage node. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cinderConf } from './cinder.ts';
import type { Daemons } from './daemons.ts';
import { answersAt } from './brokers.ts';
import type { StageSettings } from './settings.ts';

const startTimeoutMs = 60_000;
const program = fileURLToPath(new URL('../../src/main/cli.ts', import.meta.url));

/** Names of the daemons. */
export const deltaService = 'cinder-delta';
export const deltaAgent = 'cinder-delta-agent';
export const secondService = 'cinder-delta-2';
/** `host` of the second service. */
export const secondHost = 'stage2';

async function startProgram(
  daemons: Daemons,
  name: string,
  command: 'service' | 'agent',
  files: readonly string[],
): Promise<void> {
  const configured = files.flatMap((file) => ['--config-file', file]);
  await daemons.start({ name, command: process.execPath, args: [program, command, ...configured] });
}

export async function startAgent(settings: StageSettings, daemons: Daemons): Promise<void> {
  await startProgram(daemons, deltaAgent, 'agent', [cinderConf(settings)]);
  await daemons.ready(deltaAgent, startTimeoutMs, async () => await answersAt(settings.ports.agent));
}

export async function startService(settings: StageSettings, daemons: Daemons): Promise<void> {
  await startProgram(daemons, deltaService, 'service', [cinderConf(settings)]);
  await daemons.ready(deltaService, startTimeoutMs, async () => await answersAt(settings.ports.rest));
}

/** Another host with the same cinder.conf but for its name and its port. */
export async function startSecondService(settings: StageSettings, daemons: Daemons): Promise<void> {
  const file = join(settings.directory, 'etc', 'second.conf');
  await writeFile(
    file,
    `[DEFAULT]\nhost = ${secondHost}\n[delta]\nrest_port = ${settings.ports.secondRest}\n`,
  );
  await startProgram(daemons, secondService, 'service', [cinderConf(settings), file]);
  await daemons.ready(secondService, startTimeoutMs, async () => await answersAt(settings.ports.secondRest));
}
