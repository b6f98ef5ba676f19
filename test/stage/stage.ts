/**
 * A whole OpenStack block storage from Debian's packages on loopback, in one directory: RabbitMQ, MariaDB, Keystone, Swift, Ceph,
 * cinder-api, cinder-scheduler, cinder-volume over RBD, and cinder-delta or Python's cinder-backup.
 *
 * `upStage` begins one, `openStage` finds one that another process began, `removeStage` leaves no process and no file of it.
 */
import { execFile } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { rabbitIsReady, startMariaDb, startRabbit } from './brokers.ts';
import { makeCinderTables, pythonBackup, startCinder, startPythonBackup, writeCinderConf } from './cinder.ts';
import { startCeph, startKeystone, startSwift } from './cloud.ts';
import { createDaemons, type Daemons } from './daemons.ts';
import { deltaAgent, deltaService, startAgent, startService } from './delta.ts';
import {
  backend,
  clientEnvironment,
  makeSettings,
  readSettings,
  stageHost,
  type StageSettings,
} from './settings.ts';

export type Stage = { readonly settings: StageSettings; readonly daemons: Daemons };

/** Who makes the backups. */
export type BackupProgram = 'delta' | 'python';

const stopGraceMs = 60_000;
const knownTimeoutMs = 90_000;

/** The stage that runs in the directory; undefined if there is none. */
export async function openStage(directory: string): Promise<Stage | undefined> {
  const settings = await readSettings(directory);
  return settings === undefined ? undefined : { settings, daemons: createDaemons(directory) };
}

/** Starts everything but the backup program. `tell` hears of each step. If a step fails, what was started keeps running. */
export async function upStage(directory: string, tell: (step: string) => void): Promise<Stage> {
  await mkdir(directory, { recursive: true });
  const settings = await makeSettings(directory);
  const daemons = createDaemons(directory);
  await writeCinderConf(settings);
  const timed = async (what: string, work: Promise<void>) => {
    const begin = performance.now();
    await work;
    tell(`${what}: ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  };
  const tables = async () => {
    await timed('MariaDB', startMariaDb(settings, daemons));
    await timed("Cinder's tables", makeCinderTables(settings));
  };
  const cloud = async () => {
    await timed('Keystone', startKeystone(settings, daemons));
    await timed('Swift', startSwift(settings, daemons));
  };
  await startRabbit(settings, daemons);
  await allOf([tables(), cloud(), timed('Ceph', startCeph(settings, daemons))]);
  await timed('RabbitMQ', rabbitIsReady(settings, daemons));
  await timed("Cinder's programs", startCinder(settings, daemons));
  await timed('the volume type', makeVolumeType(settings));
  await writeFile(join(directory, 'openrc'), openrcOf(settings, 'admin'));
  await writeFile(join(directory, 'openrc-demo'), openrcOf(settings, 'demo'));
  return { settings, daemons };
}

/** Like Promise.all, but waits for all of them before it fails, so that nothing starts behind the caller's back. */
async function allOf(works: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(works)).filter((each) => each.status === 'rejected');
  if (failed.length === 0) return;
  const reasons: unknown[] = failed.map(({ reason }) => reason);
  throw reasons.length === 1 ? reasons[0] : new AggregateError(reasons, 'the stage did not come up');
}

/**
 * Stops the other backup program, if it runs, and starts this one: the hand-over. Waits until the scheduler would choose it. Does
 * nothing if it runs already.
 */
export async function useBackupProgram({ settings, daemons }: Stage, program: BackupProgram): Promise<void> {
  const [wanted, other] = program === 'python' ? [pythonBackup, deltaService] : [deltaService, pythonBackup];
  await daemons.stop(other, stopGraceMs);
  if (program === 'delta') await startAgent(settings, daemons);
  if (await daemons.isRunning(wanted)) return;
  const before = (await toldSchedulers(daemons)).length;
  await (program === 'python' ? startPythonBackup(settings, daemons) : startService(settings, daemons));
  await daemons.ready(wanted, knownTimeoutMs, async () => {
    const told = await toldSchedulers(daemons);
    return told.length > before && told.at(-1) === true;
  });
}

/** What the host of cinder.conf told the scheduler: whether it works, each time. */
async function toldSchedulers(daemons: Daemons): Promise<readonly boolean[]> {
  const told = new RegExp(
    `Received backup service update from ${stageHost}: .*'backend_state': (True|False)`,
    'gu',
  );
  const log = await daemons.log('cinder-scheduler');
  return [...log.matchAll(told)].map(([, works]) => works === 'True');
}

/** Ends every process of the stage and removes its directory. */
export async function removeStage(directory: string): Promise<void> {
  const daemons = createDaemons(directory);
  const names = await daemons.names();
  await Promise.all(
    [deltaService, deltaAgent].filter((name) => names.includes(name)).map((name) => daemons.stop(name, 5000)),
  );
  await Promise.all(names.map(async (name) => await daemons.kill(name)));
  await rm(directory, { recursive: true, force: true });
}

async function makeVolumeType(settings: StageSettings): Promise<void> {
  const env = { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', ...clientEnvironment(settings, 'admin') };
  const cinder = async (...args: readonly string[]) =>
    await promisify(execFile)('/usr/bin/cinder', [...args], { env });
  await cinder('type-create', backend);
  await cinder('type-key', backend, 'set', `volume_backend_name=${backend}`);
}

function openrcOf(settings: StageSettings, user: 'admin' | 'demo'): string {
  const lines = Object.entries(clientEnvironment(settings, user)).map(
    ([name, value]) => `export ${name}=${value}`,
  );
  return `${lines.join('\n')}\n`;
}
