/** One connection to MySQL or MariaDB through mysql2: rows as texts and numbers, times without fraction, strict mode. */
import { lookup } from 'node:dns/promises';
import { connect, isIP, type Socket } from 'node:net';
import { createConnection, type Connection, type ConnectionOptions, type SslOptions } from 'mysql2/promise';
import { inTime } from '../../async/in-time.ts';
import type { DatabaseTls } from '../../config/database-tls.ts';
import { BackupError } from '../../model/errors.ts';
import { connectTimeoutMs, farewellTimeoutMs, keepAliveDelayMs } from '../server/deadline.ts';
import { readTlsFiles } from '../server/pem-file.ts';
import { toServerValue, type Answer, type Row, type Wire } from '../server/wire.ts';
import { asUndone } from '../transaction.ts';
import { mysqlError } from './mysql-error.ts';

export type MysqlLogin = {
  readonly server: string;
  readonly host: string;
  readonly port: number;
  readonly socketPath: string | undefined;
  /** Where the connection comes from; undefined: the system chooses. */
  readonly localAddress: string | undefined;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly tls: DatabaseTls | undefined;
  readonly statementTimeoutMs: number;
  /** `mysql_sql_mode`; empty: that of the server. */
  readonly sqlMode: string;
  /** `mysql_wsrep_sync_wait`; undefined: that of the server. */
  readonly wsrepSyncWait: number | undefined;
};

/** Logs in and sets the session's variables, as oslo.db does. Errors as OpenWire. */
export async function openMysqlWire(login: MysqlLogin): Promise<Wire> {
  const at = { server: login.server, what: 'be reached', lost: 'undone' } as const;
  let connection: Connection;
  try {
    connection = await createConnection(await connectionOptions(login));
  } catch (error) {
    throw mysqlError(at, error);
  }
  const wire = wireOf(connection, login);
  try {
    await prepareSession(wire, login);
    return wire;
  } catch (error) {
    await wire.close();
    throw asUndone(error);
  }
}

async function connectionOptions(login: MysqlLogin): Promise<ConnectionOptions> {
  const { host, port, socketPath, user, password, database, tls } = login;
  const localAddress = await addressOf(login.localAddress);
  const stream = () => openSocket({ host, port, localAddress });
  const place = socketPath === undefined ? { host, port, stream } : { socketPath };
  const ssl = tls === undefined || socketPath !== undefined ? {} : { ssl: await sslOptions(tls) };
  return {
    ...place,
    ...ssl,
    user,
    password,
    database,
    charset: 'utf8mb4',
    connectTimeout: connectTimeoutMs,
    dateStrings: true,
    supportBigNumbers: true,
  };
}

/**
 * mysql2 names no server to the TLS of Node where `host` is an address, and Node then compares the certificate with
 * `localhost`, unless the socket knows the host (`_host`, which Node sets for names only; lib/internal/tls/wrap.js).
 */
function openSocket({
  host,
  port,
  localAddress,
}: Pick<MysqlLogin, 'host' | 'port' | 'localAddress'>): Socket {
  const socket = connect({
    host,
    port,
    ...(localAddress === undefined ? {} : { localAddress }),
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: keepAliveDelayMs,
  });
  return Object.assign(socket, { _host: host });
}

/** PyMySQL takes a name too, Node does not. */
async function addressOf(nameOrAddress: string | undefined): Promise<string | undefined> {
  if (nameOrAddress === undefined || isIP(nameOrAddress) !== 0) return nameOrAddress;
  return (await lookup(nameOrAddress)).address;
}

async function sslOptions(tls: DatabaseTls): Promise<SslOptions> {
  return {
    ...(await readTlsFiles(tls)),
    verifyIdentity: tls.verify === 'host',
    ...(tls.ciphers === undefined ? {} : { ciphers: tls.ciphers }),
  };
}

/** mysql2 writes values into the text of a statement with backslashes, which NO_BACKSLASH_ESCAPES would take for themselves. */
async function prepareSession(wire: Wire, { sqlMode, wsrepSyncWait }: MysqlLogin): Promise<void> {
  await wire.run('set session autocommit = 1', []);
  if (wsrepSyncWait !== undefined) await wire.run('set session wsrep_sync_wait = ?', [wsrepSyncWait]);
  if (sqlMode !== '') await wire.run('set session sql_mode = ?', [sqlMode]);
  const { rows } = await wire.run('select @@session.sql_mode as mode', []);
  const mode = rows[0]?.['mode'];
  const modes = typeof mode === 'string' ? mode.split(',') : [];
  if (!modes.includes('NO_BACKSLASH_ESCAPES')) return;
  const rest = modes.filter((each) => each !== 'NO_BACKSLASH_ESCAPES').join(',');
  await wire.run(`set session sql_mode = '${rest}'`, []);
}

function wireOf(connection: Connection, { server, statementTimeoutMs }: MysqlLogin): Wire {
  let isUsable = true;
  const lose = () => {
    isUsable = false;
  };
  connection.on('error', lose);
  connection.on('end', lose);

  return {
    get isUsable() {
      return isUsable;
    },
    async run(text, values) {
      const at = { server, what: `run "${text.slice(0, 60)}…"`, lost: 'unknown' } as const;
      const parameters = values.map((value) => toPlainValue(toServerValue(value, 0)));
      try {
        const work = connection.query(text, parameters);
        const [result] = await inTime(work, statementTimeoutMs, () => {
          lose();
          connection.destroy();
          throw new Error(`no answer within ${statementTimeoutMs / 1000} s`);
        });
        return toAnswer(result);
      } catch (error) {
        if (error instanceof Error && 'fatal' in error && error.fatal === true) lose();
        throw mysqlError(at, error);
      }
    },
    async close() {
      const wasUsable = isUsable;
      lose();
      try {
        if (wasUsable) await inTime(connection.end(), farewellTimeoutMs, () => undefined);
      } catch {
        // The server has gone already: what end() would have told it is no longer of interest.
      } finally {
        connection.destroy();
      }
    },
  };
}

/** mysql2 would turn an object or a list into several values: none may reach it. */
function toPlainValue(value: unknown): string | number | boolean | bigint | null {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number' || typeof value === 'bigint') return value;
  throw new BackupError('bug', `broken invariant: a ${typeof value} was given to the database`);
}

function toAnswer(result: unknown): Answer {
  if (Array.isArray(result)) return { rows: result.filter(isRow), affectedRows: 0 };
  const affectedRows = isRow(result) ? Number(result['affectedRows'] ?? 0) : 0;
  return { rows: [], affectedRows };
}

function isRow(value: unknown): value is Row {
  return typeof value === 'object' && value !== null;
}
