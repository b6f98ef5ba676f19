/** Opens Cinder's own database, as [database] of cinder.conf says (oslo.db, options.py). */
import { Kysely, type Dialect, type Driver } from 'kysely';
import { inTime } from '../async/in-time.ts';
import type { DatabaseConfig } from '../config/database-config.ts';
import type { DatabaseUrl } from '../config/database-url.ts';
import type { Logger } from '../log.ts';
import type { Clock } from '../model/clock.ts';
import { BackupError, throwIfAborted } from '../model/errors.ts';
import { requireCinderTables } from './columns.ts';
import type { Database } from './database.ts';
import { createMysqlDialect } from './mysql/mysql-dialect.ts';
import { openMysqlWire } from './mysql/mysql-wire.ts';
import { createPostgresDialect } from './postgres/postgres-dialect.ts';
import { openPostgresWire } from './postgres/postgres-wire.ts';
import { defaultStatementTimeoutMs } from './server/deadline.ts';
import { createOutageRetry } from './server/outage-retry.ts';
import { createPool, type Pool } from './server/pool.ts';
import { createServerDriver } from './server/server-driver.ts';
import type { OpenWire } from './server/wire.ts';
import { openSqliteDatabase } from './sqlite/sqlite-database.ts';
import type { Tables } from './tables.ts';
import { createDatabase } from './transaction.ts';

type ServerUrl = Exclude<DatabaseUrl, { dialect: 'sqlite' }>;

const defaultPoolTimeoutMs = 30_000;
const pingTimeoutMs = 5_000;

/**
 * Opens the database. Waits for its server max_retries times retry_interval, and later as long for one that goes away, but only
 * some seconds once `signal` has aborted. `database-unavailable` if it does not answer in that time, or until the signal aborts;
 * `config-invalid` if it refuses us, `version-unsupported` if it is not Cinder's from Zed on.
 */
export async function openDatabase(
  config: DatabaseConfig,
  deps: { readonly log: Logger; readonly clock: Clock; readonly signal: AbortSignal },
): Promise<Database> {
  const { url } = config;
  if (url.dialect === 'sqlite') return openSqliteDatabase(url.path);
  const server = url.socketPath ?? `${url.host}:${url.port}`;
  const closing = new AbortController();
  const pool = createPool({
    server,
    open: openerOf(url, server, config),
    maxConnections: config.maxConnections,
    maxIdleConnections: config.maxIdleConnections,
    waitMs: config.poolTimeoutMs ?? defaultPoolTimeoutMs,
    recycleMs: config.recycleSeconds * 1000,
    clock: deps.clock,
  });
  const outageMs = config.connectAttempts < 0 ? -1 : config.connectAttempts * config.connectRetryMs;
  const retry = createOutageRetry({
    outageMs,
    stopping: deps.signal,
    closing: closing.signal,
    log: deps.log,
  });
  const kysely = new Kysely<Tables>({ dialect: dialectOf(url, createServerDriver(pool, retry)) });
  const database = createDatabase(kysely, {
    hasRowLocks: true,
    retry,
    ping: () => pingServer(pool, server),
    release: () => undefined,
  });
  const close = async () => {
    closing.abort();
    await database.close();
  };
  const stop = () => closing.abort();
  deps.signal.addEventListener('abort', stop, { once: true });
  try {
    throwIfAborted(deps.signal);
    await requireCinderTables(kysely, { server, database: url.database, dialect: url.dialect });
  } catch (error) {
    await close();
    throw error;
  } finally {
    deps.signal.removeEventListener('abort', stop);
  }
  return { ...database, close };
}

function openerOf(url: ServerUrl, server: string, config: DatabaseConfig): OpenWire {
  const at = { ...url, server, statementTimeoutMs: defaultStatementTimeoutMs };
  if (url.dialect === 'postgresql') return () => openPostgresWire(at);
  const { mysqlSqlMode: sqlMode, mysqlWsrepSyncWait: wsrepSyncWait } = config;
  return () => openMysqlWire({ ...at, sqlMode, wsrepSyncWait });
}

function dialectOf({ dialect }: ServerUrl, driver: Driver): Dialect {
  return dialect === 'mysql' ? createMysqlDialect(driver) : createPostgresDialect(driver);
}

async function pingServer(pool: Pool, server: string): Promise<void> {
  const ping = async () => {
    const wire = await pool.take();
    try {
      await wire.run('select 1', []);
    } finally {
      pool.give(wire);
    }
  };
  await inTime(ping(), pingTimeoutMs, () => {
    throw new BackupError('database-unavailable', `the database at ${server} does not answer`);
  });
}
