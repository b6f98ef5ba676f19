import { expect, test } from 'vitest';
import { mysqlError } from '../../src/database/mysql/mysql-error.ts';
import { postgresError } from '../../src/database/postgres/postgres-error.ts';

const at = { server: 'db', what: 'run "commit…"', lost: 'unknown' } as const;
const mysql = (errno: number, code = '', syscall = '') =>
  mysqlError(
    at,
    Object.assign(new Error('said no'), { errno, code, ...(syscall === '' ? {} : { syscall }) }),
  );
const postgres = (code: string, severity: string | undefined = 'ERROR') =>
  postgresError(at, Object.assign(new Error('said no'), { code, ...(severity === '' ? {} : { severity }) }));

test.each([
  ['a deadlock', mysql(1213)],
  ['a row that was changed since it was read', mysql(1020)],
  ['a lock that is not given', mysql(1205)],
  ['a Galera node that is not ready', mysql(1047)],
  ['a server that is read-only for now', mysql(1290)],
  ['too many connections', mysql(1040)],
  ['a deadlock', postgres('40P01')],
  ['a serialization failure', postgres('40001')],
  ['a server that starts up', postgres('57P03', 'FATAL')],
  ['a standby', postgres('25006')],
  ['too many connections', postgres('53300', 'FATAL')],
])('%s is retried: nothing was done', (_, error) => {
  expect(error).toMatchObject({
    code: 'database-unavailable',
    retryable: true,
    details: { outcome: 'undone' },
  });
});

test.each([
  ['a connection that is reset', mysql(-104, 'ECONNRESET')],
  ['a connection that is closed', mysql(Number.NaN, 'PROTOCOL_CONNECTION_LOST')],
  ['a connection that is killed', mysql(1927)],
  ['a server that shuts down', mysql(1053)],
  ['a TLS connection that is lost as it is made', mysql(-104, 'HANDSHAKE_SSL_ERROR', 'read')],
  ['a connection that is reset', postgres('ECONNRESET', '')],
  ['a connection that an administrator ends', postgres('57P01', 'FATAL')],
])('%s leaves open what was done', (_, error) => {
  expect(error).toMatchObject({
    code: 'database-unavailable',
    retryable: true,
    details: { outcome: 'unknown' },
  });
});

test.each([
  ['a wrong password', 'config-invalid', mysql(1045)],
  ['a wrong password', 'config-invalid', postgres('28P01', 'FATAL')],
  ['a variable that the server does not have', 'config-invalid', mysql(1193)],
  ['a second row of the same id', 'already-exists', mysql(1062)],
  ['a second row of the same id', 'already-exists', postgres('23505')],
  ['a text that is too long', 'message-invalid', mysql(1406)],
  ['a text that is too long', 'message-invalid', postgres('22001')],
  ['a table that is not there', 'version-unsupported', mysql(1146)],
  ['a table that is not there', 'version-unsupported', postgres('42P01')],
  ['a statement that nobody understands', 'bug', mysql(1064)],
  ['a statement that nobody understands', 'bug', postgres('42601')],
])('%s is %s, and not retried', (_, code, error) => {
  expect(error).toMatchObject({ code, retryable: false });
});

test('the sentence names the server, what was tried and what it said', () => {
  expect(mysql(1213).message).toBe('MySQL at db could not run "commit…": said no');
});
