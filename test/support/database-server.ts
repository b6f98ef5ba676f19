/** Debian's MariaDB or PostgreSQL on loopback, in a directory of its own; all of it is gone after `stop`, or with this process. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { sql as raw } from 'kysely';
import { createLogger } from '../../src/log.ts';
import type { DatabaseConfig } from '../../src/config/database-config.ts';
import { parseDatabaseUrl } from '../../src/config/database-url.ts';
import { openDatabase } from '../../src/database/open-database.ts';
import type { Database } from '../../src/database/database.ts';
import { systemClock } from '../../src/model/clock.ts';
import type { CertificateFiles } from './certificates.ts';
import { freePort } from './free-ports.ts';

export type ServerKind = 'mariadb' | 'postgresql';

export type DatabaseServer = {
  readonly kind: ServerKind;
  readonly port: number;
  /** SQLAlchemy's URL of a database, for the user that may do everything; another port leads through a proxy. */
  url(database: string, options?: { readonly port?: number; readonly query?: string }): string;
  /** SIGKILL to all of its processes. */
  kill(): Promise<void>;
  /** Starts it again on the same port. */
  start(): Promise<void>;
  /** SIGSTOP to all of its processes, and SIGCONT. */
  halt(): Promise<void>;
  resume(): Promise<void>;
  stop(): Promise<void>;
};

const path = '/usr/sbin:/usr/bin:/sbin:/bin';
const password = 'p@ss/word';

/** True if the packages are installed. */
export function hasServer(kind: ServerKind): boolean {
  const program = kind === 'mariadb' ? '/usr/sbin/mariadbd' : '/usr/lib/postgresql';
  return existsSync(program) && existsSync('/usr/bin/cinder-manage');
}

export async function startDatabaseServer(
  kind: ServerKind,
  options: { readonly tls?: CertificateFiles } = {},
): Promise<DatabaseServer> {
  const directory = await mkdtemp(join(tmpdir(), `cinder-delta-${kind}-`));
  const port = await freePort();
  const tls =
    options.tls === undefined
      ? null
      : { ca: options.tls.caFile, cert: options.tls.certFile, key: options.tls.keyFile };
  const script = fileURLToPath(new URL('database_node.py', import.meta.url));
  const child = spawn('/usr/bin/python3', [script, JSON.stringify({ kind, directory, port, tls })], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: path, LANG: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' },
  });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  const answers = createInterface(child.stdout)[Symbol.asyncIterator]();
  const expectAnswer = async () => {
    const { done } = await answers.next();
    if (done === true) throw new Error(`${kind} did not start: ${complaint.slice(-3000)}`);
  };
  const order = (verb: string) => async () => {
    child.stdin.write(`${verb}\n`);
    await expectAnswer();
  };
  await expectAnswer();
  return {
    kind,
    port,
    url(database, { port: through = port, query = '' } = {}) {
      const scheme = kind === 'mariadb' ? 'mysql+pymysql' : 'postgresql+psycopg2';
      return `${scheme}://cinder:${encodeURIComponent(password)}@127.0.0.1:${through}/${database}${query}`;
    },
    kill: order('kill'),
    start: order('start'),
    halt: order('halt'),
    resume: order('resume'),
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.stdin.end();
      await gone;
    },
  };
}

/** Makes the database `name` on the server, with the tables of the Cinder that is installed (cinder-manage db sync). */
export async function makeCinderDatabase(server: DatabaseServer, name: string): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-sync-'));
  try {
    const file = join(directory, 'cinder.conf');
    await writeFile(
      file,
      `[DEFAULT]\nstate_path = ${directory}\n[oslo_concurrency]\nlock_path = ${directory}\n[database]\nconnection = ${server.url(name)}\n`,
    );
    const env = { PATH: path, LANG: 'C.UTF-8', HOME: directory, PYTHONDONTWRITEBYTECODE: '1' };
    await promisify(execFile)('/usr/bin/python3', ['-c', makeDatabase, server.url(name)], { env });
    await promisify(execFile)('/usr/bin/cinder-manage', ['--config-file', file, 'db', 'sync'], { env });
  } finally {
    await rm(directory, { recursive: true });
  }
}

const makeDatabase = `
import sys, sqlalchemy
from sqlalchemy.engine import url
place = url.make_url(sys.argv[1])
outside = place.set(database='postgres' if place.drivername.startswith('postgresql') else 'mysql')
with sqlalchemy.create_engine(outside, isolation_level='AUTOCOMMIT').connect() as connection:
    connection.execute(sqlalchemy.text('CREATE DATABASE ' + place.database))
`;

/**
 * What Cinder's migrations from Zed to 2026.1 do to the tables that are of interest here, and what its models have dropped and a
 * later migration may drop (cinder/db/migrations/versions, cinder/db/sqlalchemy/models.py).
 */
export async function upgradeCinderDatabase({ sql }: Database, kind: ServerKind): Promise<void> {
  const steps = [
    'create index backups_deleted_project_id_idx on backups (deleted, project_id)',
    'create index volumes_deleted_project_id_idx on volumes (deleted, project_id)',
    'create index snapshots_deleted_project_id_idx on snapshots (deleted, project_id)',
    ...(kind === 'mariadb'
      ? [
          'alter table volumes modify use_quota tinyint(1) not null default 1',
          'alter table snapshots modify use_quota tinyint(1) not null default 1',
          'alter table reservations modify resource varchar(300)',
          'alter table reservations drop foreign key reservations_ibfk_2, drop column allocated_id',
        ]
      : [
          'alter table volumes alter use_quota set default true, alter use_quota set not null',
          'alter table snapshots alter use_quota set default true, alter use_quota set not null',
          'alter table reservations alter resource type varchar(300)',
          'alter table reservations drop column allocated_id cascade',
        ]),
    'alter table quotas drop column allocated',
  ];
  for (const step of steps) await raw.raw(step).execute(sql);
}

/** What [database] yields for a URL, with its defaults but for the waits. */
export function databaseConfig(url: string, changes: Partial<DatabaseConfig> = {}): DatabaseConfig {
  return {
    url: parseDatabaseUrl(url),
    maxConnections: 5,
    maxIdleConnections: 5,
    recycleSeconds: 3600,
    poolTimeoutMs: undefined,
    connectAttempts: 10,
    connectRetryMs: 6000,
    mysqlSqlMode: 'TRADITIONAL',
    mysqlWsrepSyncWait: undefined,
    ...changes,
  };
}

export async function openTestDatabase(
  url: string,
  changes: Partial<DatabaseConfig> = {},
): Promise<Database> {
  return await openDatabase(databaseConfig(url, changes), {
    log: createLogger({ level: 'silent' }),
    clock: systemClock,
    signal: AbortSignal.timeout(60_000),
  });
}
