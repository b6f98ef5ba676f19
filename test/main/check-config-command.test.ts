import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseCheckConfigFlags, runCheckConfig } from '../../src/main/check-config-command.ts';

const cinderConf = `[DEFAULT]
host = refhost
transport_url = rabbit://cinder:hunter2@mq1:5672,cinder:hunter2@mq2:5673/
backup_driver = cinder.backup.drivers.swift.SwiftBackupDriver
backup_swift_container = nightly
backup_workers = 4
backup_swift_colour = blue
enabled_backends = ceph
[database]
connection = mysql+pymysql://cinder:hunter2@db/cinder?charset=utf8
[ceph]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
rbd_pool = volumes
rbd_user = cinder
[keystone_authtoken]
auth_url = http://keystone:5000/v3
username = cinder
password = hunter2
`;

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-check-'));
});

afterEach(() => rm(directory, { recursive: true }));

async function write(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, text);
  return path;
}

async function check(...args: readonly string[]) {
  let [out, err] = ['', ''];
  const code = await runCheckConfig(args, {
    out: (text) => void (out += text),
    err: (text) => void (err += text),
  });
  return { code, out, err };
}

test('every value that a file gives is printed with its file and line, without secrets', async () => {
  const path = await write('cinder.conf', cinderConf);
  const { code, out, err } = await check('--config-file', path);
  expect(code).toBe(0);
  expect(out).toContain(`backup_swift_container = nightly  # ${path}:5\n`);
  expect(out).toContain(`transport_url = [secret]  # ${path}:3\n`);
  expect(out).toContain(`rbd_pool = volumes  # ${path}:13\n`);
  expect(out).not.toContain('# default');
  expect(out + err).not.toContain('hunter2');
});

test('the head says what it comes to', async () => {
  const { out } = await check('--config-file', await write('cinder.conf', cinderConf));
  const head = out.split('\n[')[0] ?? '';
  expect(
    head
      .split('\n')
      .slice(1)
      .map((line) => line.replaceAll(/ {2,}/g, '  ').trim()),
  ).toEqual([
    '#  this host  refhost, availability zone nova',
    '#  backups  Swift, container nightly, in the account of each caller',
    '#  objects  zlib, at most 52428800 bytes, blocks of 32768; service cinder.backup.drivers.swift.SwiftBackupDriver',
    '#  messages  RabbitMQ cinder@mq1:5672, cinder@mq2:5673, virtual host /, without TLS',
    '#  notifications  off',
    '#  rows  mysql cinder@db:3306, database cinder, without TLS',
    "#  keys  Barbican at the public endpoint of the request's catalog",
    '#  agent  refhost@ceph at http://refhost:8777',
    '#  limits  15 operations at once, 512 MiB of buffers',
    "#  operator's API  http://127.0.0.1:8790",
    '',
  ]);
});

test.each([
  ['mysql://c:p@db/cinder?ssl_ca=/ca', 'mysql c@db:3306, database cinder, over TLS'],
  ['postgresql://c:p@db/cinder', 'postgresql c@db:5432, database cinder, over TLS where the server has it'],
  ['postgresql://c:p@db/cinder?sslmode=disable', 'postgresql c@db:5432, database cinder, without TLS'],
  ['postgresql://c:p@/cinder?host=/run/pg', 'postgresql c@/run/pg, database cinder, without TLS'],
])('the head says of %s: %s', async (url, line) => {
  const text = cinderConf.replace(/^connection = .*$/mu, `connection = ${url}`);
  const { out } = await check('--config-file', await write('cinder.conf', text));
  expect(out).toMatch(new RegExp(`^#   rows +${line}$`, 'mu'));
});

test('a later file wins, and says so', async () => {
  const first = await write('cinder.conf', cinderConf);
  const second = await write(
    'cinder-delta.conf',
    '[delta]\nmemory_limit_mib = 1024\n[DEFAULT]\nhost = other\n',
  );
  const { out } = await check('--config-file', first, '--config-file', second);
  expect(out).toContain(`host = other  # ${second}:4\n`);
  expect(out).toContain(`memory_limit_mib = 1024  # ${second}:2\n`);
  expect(out).toContain('other, availability zone nova');
});

test('with --all defaults are printed too', async () => {
  const { out } = await check('--all', '--config-file', await write('cinder.conf', cinderConf));
  expect(out).toContain('report_interval = 10  # default\n');
});

test('backup_ options that do nothing are warned of, which counts under --strict', async () => {
  const path = await write('cinder.conf', cinderConf);
  const { code, err } = await check('--config-file', path);
  expect(code).toBe(0);
  expect(err).toContain(
    `warning: ${path}:7: [DEFAULT] backup_swift_colour has no effect: there is no such option\n`,
  );
  expect(err).toContain('backup_workers has no effect');
  expect((await check('--strict', '--config-file', path)).code).toBe(1);
});

test('files that an option names and that cannot be read are warned of', async () => {
  const path = await write('cinder.conf', `${cinderConf}[delta]\nagent_token_file = /nowhere/token\n`);
  const { err } = await check('--config-file', path);
  expect(err).toContain(`warning: ${path}:20: [delta] agent_token_file = /nowhere/token: ENOENT`);
});

test('all errors come at once, with file and line', async () => {
  const text = cinderConf
    .replace('swift.SwiftBackupDriver', 'ceph.CephBackupDriver')
    .replace('mysql+pymysql', 'oracle')
    .concat('[delta]\nmemory_limit_mib = much\n');
  const path = await write('cinder.conf', text);
  const error: unknown = await check('--config-file', path, '--config-file', join(directory, 'absent')).catch(
    (thrown: unknown) => thrown,
  );
  expect(error).toMatchObject({ code: 'config-invalid' });
  const message = error instanceof Error ? error.message : '';
  expect(message).toContain('4 errors');
  expect(message).toContain(`${path}:4: [DEFAULT] backup_driver`);
  expect(message).toContain('memory_limit_mib = much');
  expect(message).toContain('absent');
  expect(message).not.toContain('hunter2');
});

test('what the service would refuse at its start is an error here too', async () => {
  const path = await write('cinder.conf', `${cinderConf}[delta]\nrest_listen = 0.0.0.0\n`);
  await expect(check('--config-file', path)).rejects.toMatchObject({ code: 'config-invalid' });
});

test('credentials that the service can do without are warned of, not refused', async () => {
  const path = await write('cinder.conf', cinderConf.replace('password = hunter2\n', ''));
  const { code, err } = await check('--config-file', path);
  expect(code).toBe(0);
  expect(err).toContain('warning: [keystone_authtoken] password: it must be set; as it is');
});

test('a back end without a section matters to an agent only', async () => {
  const path = await write(
    'cinder.conf',
    cinderConf.replace('enabled_backends = ceph', 'enabled_backends = ceph, lvm'),
  );
  expect((await check('--config-file', path)).err).toContain('there is no section [lvm]');
  await expect(check('--agent', '--config-file', path)).rejects.toMatchObject({ code: 'config-invalid' });
});

test('for an agent the back ends are what matters', async () => {
  const path = await write('cinder.conf', cinderConf);
  const { out } = await check('--agent', '--config-file', path);
  expect(out).toContain('refhost@ceph: RBD pool volumes, cluster ceph, user cinder');
  expect(out).toContain('http://127.0.0.1:8777');
  expect(out).not.toContain('transport_url');
});

test('without files it is the one that Cinder reads', () => {
  expect(parseCheckConfigFlags([]).files).toEqual([{ kind: 'file', path: '/etc/cinder/cinder.conf' }]);
});

test('a wrong command line is refused with every fault', () => {
  for (const fault of ['--colour is not known', 'x is not expected here', '--strict takes no value']) {
    expect(() => parseCheckConfigFlags(['--colour', 'x', '--strict=yes'])).toThrow(
      expect.objectContaining({ code: 'config-invalid', message: expect.stringContaining(fault) }),
    );
  }
});
