/**
 * `npm run stage -- up | down | status | use`: a whole OpenStack block storage to play with, on loopback, in one directory.
 */
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { installPackages, packageState } from '../debian-packages.ts';
import { openStage, removeStage, upStage, useBackupProgram, type BackupProgram } from './stage.ts';

const help = `npm run stage -- COMMAND [--directory DIR] [--backup PROGRAM]

  up       installs what is missing of Debian's packages and starts everything; as root
  status   says what runs
  use      stops one backup program and starts the other
  down     ends everything and removes the directory

  --directory DIR     everything is kept here (${join(tmpdir(), 'cinder-delta-stage')})
  --backup PROGRAM    delta, python or none (delta)
`;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function isProgram(text: string): text is BackupProgram {
  return text === 'delta' || text === 'python';
}

async function up(directory: string, backup: string): Promise<number> {
  if (process.getuid?.() !== 0)
    return fail('the stage needs root: it installs packages and mounts /etc/ceph for Cinder');
  if ((await openStage(directory)) !== undefined)
    return fail(`there is a stage in ${directory}: see status, or down`);
  const { missing, installCommand } = installPackages(packageState());
  if (missing.length > 0)
    return fail(`Debian packages are missing: ${missing.join(', ')}. Run: ${installCommand}`);
  const stage = await upStage(directory, say);
  if (isProgram(backup)) await useBackupProgram(stage, backup);
  say(`up. To use it: . ${join(directory, 'openrc')}; cinder service-list\nlogs: ${join(directory, 'log')}`);
  return 0;
}

async function status(directory: string): Promise<number> {
  const stage = await openStage(directory);
  if (stage === undefined) return fail(`there is no stage in ${directory}`);
  for (const name of await stage.daemons.names()) {
    const pid = await stage.daemons.pidOf(name);
    say(
      `${name.padEnd(20)} ${pid === undefined ? 'down' : `up    pid ${pid}`}    ${stage.daemons.logFile(name)}`,
    );
  }
  return 0;
}

async function use(directory: string, backup: string): Promise<number> {
  const stage = await openStage(directory);
  if (stage === undefined) return fail(`there is no stage in ${directory}`);
  if (!isProgram(backup)) return fail('--backup must be delta or python');
  await useBackupProgram(stage, backup);
  return 0;
}

async function down(directory: string): Promise<number> {
  if ((await openStage(directory)) === undefined) return fail(`there is no stage in ${directory}`);
  await removeStage(directory);
  say('down');
  return 0;
}

function fail(text: string): number {
  process.stderr.write(`${text}\n`);
  return 1;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      directory: { type: 'string', default: join(tmpdir(), 'cinder-delta-stage') },
      backup: { type: 'string', default: 'delta' },
    },
  });
  const directory = resolve(values.directory);
  switch (positionals[0] ?? 'help') {
    case 'up':
      return await up(directory, values.backup);
    case 'status':
      return await status(directory);
    case 'use':
      return await use(directory, values.backup);
    case 'down':
      return await down(directory);
    default:
      return fail(help);
  }
}

process.exitCode = await main();
