import { expect, test } from 'vitest';
import { parseDatabaseUrl } from '../../src/config/database-url.ts';
import { parseTransportUrl } from '../../src/config/transport-url.ts';

test('a transport URL names hosts, credentials and the virtual host, percent-decoded', () => {
  expect(
    parseTransportUrl('rabbit://open%40stack:p%2Fw%23@r1:5671,other:x@[fd00::2]/cinder%2Fvh?ssl=1'),
  ).toEqual({
    scheme: 'rabbit',
    hosts: [
      { hostname: 'r1', port: 5671, username: 'open@stack', password: 'p/w#' },
      { hostname: 'fd00::2', port: 5672, username: 'other', password: 'x' },
    ],
    virtualHost: 'cinder/vh',
    query: new Map([['ssl', '1']]),
  });
});

test('the last "@" ends the credentials, as a password may hold one', () => {
  expect(parseTransportUrl('rabbit://u:p@ss@h:1/').hosts).toEqual([
    { hostname: 'h', port: 1, username: 'u', password: 'p@ss' },
  ]);
});

test('a transport URL without a host is the guest of this machine', () => {
  expect(parseTransportUrl('rabbit://')).toMatchObject({
    hosts: [{ hostname: 'localhost', port: 5672, username: 'guest', password: 'guest' }],
    virtualHost: '/',
  });
});

test.each([
  'nonsense',
  'rabbit:/h',
  'rabbit://u:p@h:port/',
  'rabbit://u:p@h:99999/',
  'rabbit://u:secret@[::1/',
  'rabbit://u:secret@:5672/',
])('the transport URL %s is refused, without showing its password', (url) => {
  expect(() => parseTransportUrl(url)).toThrow(
    expect.objectContaining({ code: 'config-invalid', message: expect.not.stringContaining('secret') }),
  );
});

test('database URLs of MySQL, PostgreSQL and SQLite are read as SQLAlchemy does', () => {
  expect(
    parseDatabaseUrl('mysql+pymysql://cinder:p%40ss@db:3307/cinder?charset=utf8&ssl_ca=/ca.pem'),
  ).toEqual({
    dialect: 'mysql',
    host: 'db',
    port: 3307,
    user: 'cinder',
    password: 'p@ss',
    database: 'cinder',
    socketPath: undefined,
    localAddress: undefined,
    tls: { caFile: '/ca.pem', certFile: undefined, keyFile: undefined, verify: 'host' },
    isTlsOptional: false,
  });
  expect(parseDatabaseUrl('postgresql://cinder@[::1]/cinder?sslmode=verify-full')).toMatchObject({
    dialect: 'postgresql',
    host: '::1',
    port: 5432,
    password: '',
    tls: { verify: 'host' },
  });
  expect(parseDatabaseUrl('mysql://c:p@/cinder?unix_socket=/run/mysqld/mysqld.sock')).toMatchObject({
    socketPath: '/run/mysqld/mysqld.sock',
  });
  expect(parseDatabaseUrl('postgresql://c:p@/cinder?host=/run/postgresql')).toMatchObject({
    socketPath: '/run/postgresql',
  });
  expect(parseDatabaseUrl('sqlite:////var/lib/c.sqlite')).toEqual({
    dialect: 'sqlite',
    path: '/var/lib/c.sqlite',
  });
});

test.each(['db', 'oracle://u:secret@h/d', 'mysql://u:secret@h', 'sqlite://', 'mysql://u:sec@ret:x@h/d'])(
  'the database URL %s is refused, without showing its password',
  (url) => {
    expect(() => parseDatabaseUrl(url)).toThrow(
      expect.objectContaining({ code: 'config-invalid', message: expect.not.stringContaining('secret') }),
    );
  },
);
