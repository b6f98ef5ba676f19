import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { optionFilePlace, parseDatabaseUrl } from '../../src/config/database-url.ts';
import { parseOptionFile } from '../../src/config/mysql-option-file.ts';
import { loadServiceConfig } from '../../src/config/service-config.ts';

const options = (text: string, group = 'client') => {
  const found = parseOptionFile(text, group);
  return found === undefined ? undefined : Object.fromEntries(found);
};

test('a group has its own options and those of [DEFAULT], without quotes and comments', () => {
  const text = `[DEFAULT]
ssl-ca = /default
port: 3307
[client]
# ssl-cert=/no
  ; ssl-key=/no
ssl
ssl-ca = "/etc/ca=1.pem" 
password = 'it''s#5'
ssl_key=/key
user =
[other]
ssl-ca = /other
`;
  expect(options(text)).toEqual({
    'ssl-ca': '/etc/ca=1.pem',
    port: '3307',
    password: "it''s#5",
    'ssl-key': '/key',
  });
  expect(options(text, 'other')).toEqual({ 'ssl-ca': '/other', port: '3307' });
  expect(options(text, 'absent')).toBeUndefined();
});

test('keys may be indented, and what is indented further goes on with the value', () => {
  expect(options('[client]\n  user = a\n  password = b\n    c\n  !includedir /etc/my.cnf.d\n')).toEqual({
    user: 'a',
    password: 'b\nc',
  });
});

test.each([
  [
    'mysql+pymysql://u:p@h/d?read_default_file=/f&read_default_group=tripleo',
    { path: '/f', group: 'tripleo' },
  ],
  ['mysql://u:p@h/d?read_default_file=/f', { path: '/f', group: 'client' }],
  ['mysql://u:p@h/d?read_default_group=g', { path: '/etc/my.cnf', group: 'g' }],
  ['mysql://u:p@h/d', undefined],
  ['postgresql://u:p@h/d?read_default_file=/f', undefined],
])('the option file of %s is %o', (url, place) => {
  expect(optionFilePlace(url)).toEqual(place);
});

test('what the URL says goes before what the option file says', () => {
  const file = new Map(
    Object.entries({
      user: 'file',
      password: 'of file',
      host: 'filehost',
      port: '3310',
      database: 'filedb',
      'bind-address': '10.0.0.9',
      'ssl-ca': '/file/ca',
      'ssl-cert': '/file/cert',
    }),
  );
  expect(parseDatabaseUrl('mysql://?read_default_file=/f', file)).toEqual({
    dialect: 'mysql',
    host: 'filehost',
    port: 3310,
    user: 'file',
    password: 'of file',
    database: 'filedb',
    socketPath: undefined,
    localAddress: '10.0.0.9',
    tls: { caFile: '/file/ca', certFile: '/file/cert', keyFile: undefined, verify: 'host' },
    isTlsOptional: false,
  });
  expect(parseDatabaseUrl('mysql://u:p@h:3306/d?ssl_ca=/url/ca&bind_address=::1', file)).toMatchObject({
    host: 'h',
    port: 3306,
    user: 'u',
    password: 'p',
    database: 'd',
    localAddress: '::1',
    tls: { caFile: '/url/ca', certFile: '/file/cert' },
  });
  expect(parseDatabaseUrl('mysql://u:p@h/d?ssl_disabled=true', file)).toMatchObject({ tls: undefined });
  const socket = new Map([['socket', '/run/mysqld.sock']]);
  expect(parseDatabaseUrl('mysql://u:p@h/d', socket)).toMatchObject({ socketPath: '/run/mysqld.sock' });
  expect(parseDatabaseUrl('mysql://u:p@h/d?unix_socket=/s', socket)).toMatchObject({ socketPath: '/s' });
});

test.each([
  ['ssl-capath', '/etc/ssl', 'ssl-capath of its option file is not supported'],
  ['port', 'many', 'port of its option file'],
])('the option %s = %s of the file is refused', (name, value, words) => {
  expect(() => parseDatabaseUrl('mysql://u:p@h/d', new Map([[name, value]]))).toThrow(
    expect.objectContaining({ code: 'config-invalid', message: expect.stringContaining(words) }),
  );
});

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cinder-delta-option-file-'));
});
afterEach(() => rm(directory, { recursive: true }));

async function load(query: string) {
  const path = join(directory, 'cinder.conf');
  await writeFile(
    path,
    `[DEFAULT]
transport_url = rabbit://r/
backup_driver = cinder.backup.drivers.posix.PosixBackupDriver
[database]
connection = mysql+pymysql://cinder:hunter2@db/cinder?${query}
`,
  );
  return await loadServiceConfig([{ kind: 'file', path }]);
}

test('the configuration has what the option file says', async () => {
  const file = join(directory, 'tripleo.cnf');
  await writeFile(file, '[tripleo]\nbind-address=10.0.0.1\nssl=1\nssl-ca=/etc/ipa/ca.crt\n');
  const { config, warnings } = await load(`read_default_file=${file}&read_default_group=tripleo`);
  expect(config.database.url).toMatchObject({
    host: 'db',
    localAddress: '10.0.0.1',
    tls: { caFile: '/etc/ipa/ca.crt', verify: 'host' },
  });
  expect(warnings).toEqual([]);
});

test('an option file that cannot be read, or lacks the group, is warned of', async () => {
  const absent = await load(`read_default_file=${join(directory, 'absent.cnf')}`);
  expect(absent.config.database.url).toMatchObject({ host: 'db', tls: undefined });
  expect(absent.warnings).toEqual([expect.stringMatching(/absent\.cnf.*ENOENT/u)]);
  const file = join(directory, 'my.cnf');
  await writeFile(file, '[mysqld]\nport=3306\n');
  expect((await load(`read_default_file=${file}`)).warnings).toEqual([
    expect.stringContaining('no group [client]'),
  ]);
});

test('what is wrong with the option file is told with everything else', async () => {
  const file = join(directory, 'my.cnf');
  await writeFile(file, '[client]\nssl-capath=/etc/ssl\n');
  const loading = load(`read_default_file=${file}\nmax_retries = many`);
  await expect(loading).rejects.toThrow(/2 errors:[\s\S]*connection = \[secret\]: ssl-capath/u);
});
