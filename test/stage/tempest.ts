/**
 * `npm run tempest`: the volume backup tests of Debian's tempest and cinder-tempest-plugin against the stage. With
 * --directory, one that is up; without, one of its own. tempest prints each test with its result, and the sums.
 */
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { installPackages, neededPackages, packageState } from '../debian-packages.ts';
import { glancePackages, startGlance } from './glance.ts';
import { addressesOf, backend, region, type StageSettings } from './settings.ts';
import { openStage, removeStage, upStage, useBackupProgram } from './stage.ts';

const tests = [
  '^tempest\\.api\\.volume\\.test_volumes_backup\\.',
  '^tempest\\.api\\.volume\\.admin\\.test_volumes_backup\\.',
  '^cinder_tempest_plugin\\.api\\.volume\\.test_volume_backup\\.',
  '^cinder_tempest_plugin\\.api\\.volume\\.admin\\.test_volume_backup\\.',
].join('|');

/** They attach the volume to a server: there is no Nova here. */
const needNova = [
  'VolumesBackupsTest\\.test_backup_create_attached_volume',
  'VolumesBackupsTest\\.test_incremental_backup\\[',
].join('|');

const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' };

/** Runs the tests below `directory`; tempest itself prints each of them with its result, and the sums. */
async function runTempest(settings: StageSettings, image: string, directory: string): Promise<boolean> {
  const workspace = join(directory, 'workspace');
  const env = { ...environment, HOME: directory };
  const tempest = (cwd: string, ...args: readonly string[]) =>
    spawnSync('/usr/bin/tempest', [...args], { cwd, env, stdio: ['ignore', 'inherit', 'inherit'] }).status ===
    0;
  if (!tempest(directory, 'init', '--workspace-path', join(directory, 'workspaces.yaml'), workspace)) {
    throw new Error('tempest init failed');
  }
  const conf = join(workspace, 'etc', 'tempest.conf');
  await writeFile(conf, tempestConf(settings, image, workspace));
  const selected = ['--regex', tests, '--exclude-regex', needNova];
  return tempest(workspace, 'run', '--config-file', conf, ...selected, '--serial');
}

function tempestConf(settings: StageSettings, image: string, workspace: string): string {
  const { keystone } = addressesOf(settings);
  return `[DEFAULT]
log_dir = ${workspace}
[oslo_concurrency]
lock_path = ${workspace}/lock
[auth]
use_dynamic_credentials = true
admin_username = admin
admin_password = admin
admin_project_name = admin
admin_domain_name = Default
tempest_roles = member
[identity]
uri_v3 = ${keystone}/v3
auth_version = v3
region = ${region}
[identity-feature-enabled]
api_v2 = false
[service_available]
cinder = true
glance = true
neutron = false
nova = false
swift = false
horizon = false
[compute]
image_ref = ${image}
[image]
region = ${region}
[volume]
catalog_type = volumev3
region = ${region}
storage_protocol = rbd
vendor_name = Open Source
volume_size = 1
build_timeout = 180
backend_names = ${backend}
min_microversion = 3.0
max_microversion = 3.70
[volume-feature-enabled]
backup = true
snapshot = true
api_v3 = true
`;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { directory: { type: 'string' }, backup: { type: 'string', default: 'delta' } },
  });
  const wanted = [...neededPackages, ...glancePackages, 'tempest', 'cinder-tempest-plugin'];
  const { missing, installCommand } = installPackages(packageState(wanted));
  if (missing.length > 0) {
    process.stderr.write(
      `Debian packages are missing: ${missing.join(', ')}. As root, run: ${installCommand}\n`,
    );
    return 1;
  }
  const workspace = await mkdtemp(join(tmpdir(), 'cinder-delta-tempest-'));
  const own = values.directory === undefined ? join(workspace, 'stage') : undefined;
  try {
    const stage =
      own === undefined
        ? await openStage(resolve(values.directory ?? ''))
        : await upStage(own, (step) => process.stdout.write(`stage: ${step}\n`));
    if (stage === undefined) throw new Error(`there is no stage in ${values.directory}`);
    if (own !== undefined) await useBackupProgram(stage, values.backup === 'python' ? 'python' : 'delta');
    const image = await startGlance(stage.settings, stage.daemons);
    return (await runTempest(stage.settings, image, workspace)) ? 0 : 1;
  } finally {
    if (own !== undefined) await removeStage(own);
    await rm(workspace, { recursive: true, force: true });
  }
}

process.exitCode = await main();
