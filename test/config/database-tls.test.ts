import { expect, test } from 'vitest';
import { parseDatabaseUrl } from '../../src/config/database-url.ts';

function parse(scheme: 'mysql+pymysql' | 'postgresql', query: string) {
  const url = parseDatabaseUrl(`${scheme}://cinder:secret@db/cinder?${query}`);
  if (url.dialect === 'sqlite') throw new Error('taken for SQLite');
  return url;
}

test.each([
  ['charset=utf8', undefined],
  ['ssl_ca=/ca', 'host'],
  ['ssl_ca=/ca&ssl_check_hostname=false', 'ca'],
  ['ssl_ca=/ca&ssl_verify_cert=true', 'ca'],
  ['ssl_ca=/ca&ssl_verify_cert=false', 'none'],
  ['ssl_ca=/ca&ssl_verify_cert=true&ssl_verify_identity=true', 'host'],
  ['ssl_cert=/cert&ssl_key=/key', 'none'],
  ['ssl_key=/key', 'none'],
  ['ssl_verify_cert=true', 'ca'],
  ['ssl_verify_cert=required', 'ca'],
  ['ssl_verify_cert=none', 'none'],
  ['ssl_verify_identity=true', 'host'],
  ['ssl_check_hostname=false', 'none'],
  ['ssl_ca=/ca&ssl_disabled=true', undefined],
  ['ssl_ca=/ca&ssl_disabled=false', 'host'],
  ['ssl_ca=', undefined],
  ['ssl_mode=DISABLED&ssl_ca=/ca', undefined],
  ['ssl_mode=REQUIRED', 'none'],
  ['ssl_mode=VERIFY_CA&ssl_ca=/ca', 'ca'],
  ['ssl_mode=VERIFY_IDENTITY', 'host'],
  ['ssl_mode=PREFERRED', undefined],
  ['ssl_cipher=AES128-SHA', 'none'],
] as const)('a MySQL URL with %s has TLS that verifies: %s', (query, verify) => {
  expect(parse('mysql+pymysql', query).tls?.verify).toBe(verify);
});

test.each([
  ['ssl_capath=/etc/ssl', 'ssl_ca'],
  ['ssl=true', 'ssl_ca'],
  ['sslmode=require', 'ssl_ca'],
  ['ssl_verify_cert=perhaps', 'true or false'],
  ['ssl_mode=OFTEN', 'REQUIRED'],
])('a MySQL URL with %s is refused, and says what to do', (query, remedy) => {
  const refused = { code: 'config-invalid', message: expect.stringContaining(remedy) };
  expect(() => parse('mysql+pymysql', query)).toThrow(expect.objectContaining(refused));
  const named = expect.objectContaining({ message: expect.stringContaining(query.split('=')[0] ?? '') });
  expect(() => parse('mysql+pymysql', query)).toThrow(named);
});

test.each([
  ['', 'none', true],
  ['sslmode=prefer', 'none', true],
  ['sslmode=allow&sslrootcert=/ca', 'none', true],
  ['sslmode=disable', undefined, false],
  ['sslmode=disable&sslrootcert=/ca', undefined, false],
  ['sslmode=require', 'none', false],
  ['sslmode=require&sslrootcert=/ca', 'ca', false],
  ['sslmode=verify-ca', 'ca', false],
  ['sslmode=verify-full', 'host', false],
  ['sslrootcert=/ca', 'ca', false],
  ['sslcert=/cert&sslkey=/key', 'none', false],
] as const)(
  'a PostgreSQL URL with "%s" verifies %s, and may do without TLS: %s',
  (query, verify, isOptional) => {
    const { tls, isTlsOptional } = parse('postgresql', query);
    expect([tls?.verify, isTlsOptional]).toEqual([verify, isOptional]);
  },
);

test.each([
  ['sslmode=maybe', 'verify-full'],
  ['sslcrl=/crl', 'sslrootcert'],
  ['ssl_ca=/ca', 'sslrootcert'],
])('a PostgreSQL URL with %s is refused, and says what to do', (query, remedy) => {
  const refused = { code: 'config-invalid', message: expect.stringContaining(remedy) };
  expect(() => parse('postgresql', query)).toThrow(expect.objectContaining(refused));
});

test('certificates and keys are those of the URL', () => {
  expect(parse('mysql+pymysql', 'ssl_ca=/a&ssl_cert=/c&ssl_key=/k').tls).toEqual({
    caFile: '/a',
    certFile: '/c',
    keyFile: '/k',
    verify: 'host',
  });
  expect(parse('postgresql', 'sslmode=prefer&sslrootcert=/a&sslcert=/c&sslkey=/k').tls).toEqual({
    caFile: undefined,
    certFile: '/c',
    keyFile: '/k',
    verify: 'none',
  });
});
