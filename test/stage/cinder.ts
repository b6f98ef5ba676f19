/** Cinder's own programs: one cinder.conf for all of them, and for cinder-delta. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cephDirectory } from './cloud.ts';
import type { Daemons, DaemonSpec } from './daemons.ts';
import { addressesOf, backend, pool, region, stageHost, type StageSettings } from './settings.ts';

const startTimeoutMs = 120_000;
const databaseTimeoutMs = 240_000;

/** The file that every program gets with --config-file. */
export function cinderConf({ directory }: StageSettings): string {
  return join(directory, 'etc', 'cinder.conf');
}

export async function writeCinderConf(settings: StageSettings): Promise<void> {
  const state = join(settings.directory, 'cinder');
  for (const each of ['lock', 'coordination', 'tmp']) await mkdir(join(state, each), { recursive: true });
  const { keystone, rabbit, database, agent, glance } = addressesOf(settings);
  const agentToken = join(settings.directory, 'etc', 'delta.token');
  await writeFile(agentToken, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  await writeFile(
    cinderConf(settings),
    `[DEFAULT]
debug = true
use_stderr = true
host = ${stageHost}
my_ip = 127.0.0.1
state_path = ${state}
api_paste_config = /etc/cinder/api-paste.ini
resource_query_filters_file = /etc/cinder/resource_filters.json
rootwrap_config = /etc/cinder/rootwrap.conf
auth_strategy = keystone
transport_url = ${rabbit}
osapi_volume_listen = 127.0.0.1
osapi_volume_listen_port = ${settings.ports.cinder}
osapi_volume_workers = 1
enabled_backends = ${backend}
default_volume_type = ${backend}
report_interval = 3
service_down_time = 15
backup_driver_stats_polling_interval = 10
periodic_interval = 20
backup_driver = cinder.backup.drivers.swift.SwiftBackupDriver
glance_api_servers = ${glance}
image_conversion_dir = ${state}/conversion
quota_volumes = 200
quota_snapshots = 200
quota_backups = 200
quota_gigabytes = 1000
quota_backup_gigabytes = 1000

[${backend}]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
volume_backend_name = ${backend}
rbd_pool = ${pool}
rbd_user = cinder
rbd_ceph_conf = ${join(cephDirectory(settings), 'ceph.conf')}
rbd_secret_uuid = ${settings.secretId}
rbd_flatten_volume_from_snapshot = false

[backend_defaults]

[database]
connection = ${database}

[keystone_authtoken]
www_authenticate_uri = ${keystone}
auth_url = ${keystone}
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = cinder
password = cinder
region_name = ${region}
service_token_roles_required = true

[oslo_concurrency]
lock_path = ${state}/lock

[coordination]
backend_url = file://${state}/coordination

[key_manager]
backend = cinder.keymgr.conf_key_mgr.ConfKeyManager
fixed_key = 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff

[delta]
agent_url = ${agent}
agent_port = ${settings.ports.agent}
agent_token_file = ${agentToken}
rest_port = ${settings.ports.rest}
`,
  );
}

/** Makes Cinder's tables. */
export async function makeCinderTables(settings: StageSettings): Promise<void> {
  const args = ['--config-file', cinderConf(settings), 'db', 'sync'];
  await promisify(execFile)('/usr/bin/cinder-manage', args, {
    timeout: databaseTimeoutMs,
    env: pythonEnvironment,
  });
}

const pythonEnvironment = {
  PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  LANG: 'C.UTF-8',
  PYTHONDONTWRITEBYTECODE: '1',
};

/** os-brick reads the keyring below /etc/ceph, wherever ceph.conf is: the program gets a mount namespace where that is ours. */
function pythonSpec(settings: StageSettings, name: string, extra: readonly string[] = []): DaemonSpec {
  const start = 'mount --bind "$0" /etc/ceph && exec "$@"';
  const program = [`/usr/bin/${name}`, '--config-file', cinderConf(settings), ...extra];
  return {
    name,
    command: '/usr/bin/unshare',
    args: ['--mount', '/bin/sh', '-c', start, cephDirectory(settings), ...program],
    env: { TMPDIR: join(settings.directory, 'cinder', 'tmp') },
  };
}

/** cinder-api, cinder-scheduler and cinder-volume. */
export async function startCinder(settings: StageSettings, daemons: Daemons): Promise<void> {
  for (const name of ['cinder-api', 'cinder-scheduler', 'cinder-volume']) {
    await daemons.start(pythonSpec(settings, name));
  }
  const health = `${addressesOf(settings).cinder}/healthcheck`;
  await daemons.ready('cinder-api', startTimeoutMs, async () => {
    const answer = await fetch(health).catch(() => undefined);
    return answer?.ok === true;
  });
}

export const pythonBackup = 'cinder-backup';

/** Python's own cinder-backup, under the host of cinder.conf. */
export async function startPythonBackup(settings: StageSettings, daemons: Daemons): Promise<void> {
  await daemons.start(pythonSpec(settings, pythonBackup));
}
