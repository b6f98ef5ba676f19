/** Glance with one image, for the tests of Tempest that make bootable volumes. */
import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createConnection } from 'mysql2/promise';
import { z } from 'zod';
import { databaseSocket } from './brokers.ts';
import type { Daemons } from './daemons.ts';
import { addressesOf, region, type StageSettings } from './settings.ts';
import { logIn } from './swift-objects.ts';

const startTimeoutMs = 120_000;
const databaseTimeoutMs = 240_000;
const imageWords = 512 * 1024;

/** Debian's packages for it. */
export const glancePackages = ['glance-api', 'glance-common'] as const;

/** Starts Glance; the id of its image: 2 MiB of raw bytes, for everybody. */
export async function startGlance(settings: StageSettings, daemons: Daemons): Promise<string> {
  const state = join(settings.directory, 'glance');
  for (const each of ['images', 'staging', 'tasks', 'lock'])
    await mkdir(join(state, each), { recursive: true });
  const conf = join(settings.directory, 'etc', 'glance-api.conf');
  await writeFile(conf, glanceConf(settings, state));
  {
    await using connection = await createConnection({
      socketPath: databaseSocket(settings),
      user: 'root',
      multipleStatements: true,
    });
    await connection.query(
      "CREATE DATABASE glance CHARACTER SET utf8mb3; GRANT ALL ON glance.* TO 'cinder'@'127.0.0.1'",
    );
  }
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' };
  const options = { timeout: databaseTimeoutMs, env };
  await promisify(execFile)('/usr/bin/glance-manage', ['--config-file', conf, 'db_sync'], options);
  await daemons.start({ name: 'glance', command: '/usr/bin/glance-api', args: ['--config-file', conf] });
  const { glance } = addressesOf(settings);
  await daemons.ready('glance', startTimeoutMs, async () => {
    const answer = await fetch(`${glance}/versions`).catch(() => undefined);
    return answer !== undefined && answer.status < 500;
  });
  return await uploadImage(settings, glance);
}

async function uploadImage(settings: StageSettings, glance: string): Promise<string> {
  const { token } = await logIn(settings);
  const headers = { 'x-auth-token': token, 'content-type': 'application/json' };
  const described = { name: 'stage', disk_format: 'raw', container_format: 'bare', visibility: 'public' };
  const made = await fetch(`${glance}/v2/images`, {
    method: 'POST',
    headers,
    body: JSON.stringify(described),
  });
  const { id } = z.object({ id: z.string() }).parse(await made.json());
  const stored = await fetch(`${glance}/v2/images/${id}/file`, {
    method: 'PUT',
    headers: { ...headers, 'content-type': 'application/octet-stream' },
    body: new Uint32Array(imageWords).map((_, index) => index),
  });
  if (!stored.ok) throw new Error(`Glance does not take the image: ${stored.status} ${await stored.text()}`);
  return id;
}

function glanceConf(settings: StageSettings, state: string): string {
  const { keystone, database } = addressesOf(settings);
  return `[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${settings.ports.glance}
workers = 0
use_stderr = true
enabled_backends = file:file
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = ${state}/images
[os_glance_staging_store]
filesystem_store_datadir = ${state}/staging
[os_glance_tasks_store]
filesystem_store_datadir = ${state}/tasks
[database]
connection = ${database.replace('/cinder?', '/glance?')}
[paste_deploy]
flavor = keystone
config_file = /etc/glance/glance-api-paste.ini
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
[oslo_concurrency]
lock_path = ${state}/lock
`;
}
