/** Cinder's database, from [database]. */
import { isBackupError } from '../model/errors.ts';
import { databaseOptions } from './database-options.ts';
import { optionFilePlace, parseDatabaseUrl, type DatabaseUrl } from './database-url.ts';
import type { OptionFile, OptionFilePlace } from './mysql-option-file.ts';
import type { ValuesOf } from './option.ts';
import type { Settings } from './settings.ts';

export type DatabaseConfig = {
  readonly url: DatabaseUrl;
  /** At once; Infinity: no limit. */
  readonly maxConnections: number;
  /** What stays open of them when it is not used. */
  readonly maxIdleConnections: number;
  /** A connection older than this is not used again; negative: no limit. */
  readonly recycleSeconds: number;
  /** Wait for a free connection; undefined: the dialect's own. */
  readonly poolTimeoutMs: number | undefined;
  /** Tries of the first connection; negative: for ever. */
  readonly connectAttempts: number;
  readonly connectRetryMs: number;
  /** MySQL's sql_mode for each session; empty: that of the server. */
  readonly mysqlSqlMode: string;
  /** Galera's wsrep_sync_wait for each session; undefined: that of the server. */
  readonly mysqlWsrepSyncWait: number | undefined;
};

/** The option file that [database] connection names; undefined if it names none. */
export function findOptionFile(settings: Settings): OptionFilePlace | undefined {
  const url = urlOf(settings.read('database', databaseOptions));
  return url === undefined ? undefined : optionFilePlace(url);
}

/** Reads [database] and what its option file says, or undefined after noting what is wrong with it. */
export function readDatabaseConfig(
  settings: Settings,
  optionFile: OptionFile | undefined,
): DatabaseConfig | undefined {
  const options = settings.read('database', databaseOptions);
  const url = urlOf(options);
  if (url === undefined) {
    settings.reject(
      'database',
      'connection',
      'it must be set: mysql+pymysql://user:password@host/cinder or postgresql://…',
    );
    return undefined;
  }
  if (optionFile?.problem !== undefined) {
    settings.warnings.push(
      `[database] connection names the option file ${optionFile.path}, which is passed over: ${optionFile.problem}`,
    );
  }
  try {
    return {
      url: parseDatabaseUrl(url, optionFile?.options),
      ...poolOf(options),
      recycleSeconds: options.connection_recycle_time,
      poolTimeoutMs: options.pool_timeout === undefined ? undefined : options.pool_timeout * 1000,
      connectAttempts: options.max_retries,
      connectRetryMs: options.retry_interval * 1000,
      mysqlSqlMode: options.mysql_sql_mode,
      mysqlWsrepSyncWait: options.mysql_wsrep_sync_wait,
    };
  } catch (error) {
    if (!isBackupError(error, 'config-invalid')) throw error;
    settings.reject('database', 'connection', error.message);
    return undefined;
  }
}

type DatabaseValues = ValuesOf<typeof databaseOptions>;

function urlOf({ connection, connection_parameters: parameters }: DatabaseValues): string | undefined {
  if (connection === undefined || parameters === '') return connection;
  return `${connection}${connection.includes('?') ? '&' : '?'}${parameters}`;
}

/** As QueuePool of SQLAlchemy counts (sqlalchemy/pool/impl.py). */
function poolOf({ max_pool_size: kept, max_overflow: overflow }: DatabaseValues) {
  return {
    maxConnections: kept <= 0 || overflow < 0 ? Infinity : kept + overflow,
    maxIdleConnections: kept <= 0 ? Infinity : kept,
  };
}
