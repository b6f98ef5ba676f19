/** Cinder's database, from [database]. */
import { isBackupError } from '../model/errors.ts';
import { databaseOptions } from './database-options.ts';
import { parseDatabaseUrl, type DatabaseUrl } from './database-url.ts';
import type { Settings } from './settings.ts';

export type DatabaseConfig = {
  readonly url: DatabaseUrl;
  readonly maxConnections: number;
  /** A connection older than this is not used again; negative: no limit. */
  readonly recycleSeconds: number;
  /** Wait for a free connection; undefined: the dialect's own. */
  readonly poolTimeoutMs: number | undefined;
  /** Tries of the first connection; negative: for ever. */
  readonly connectAttempts: number;
  readonly connectRetryMs: number;
  /** MySQL's sql_mode for each session; empty: that of the server. */
  readonly mysqlSqlMode: string;
};

/** Reads [database], or undefined after noting what is wrong with it. */
export function readDatabaseConfig(settings: Settings): DatabaseConfig | undefined {
  const options = settings.read('database', databaseOptions);
  if (options.connection === undefined) {
    settings.reject(
      'database',
      'connection',
      'it must be set: mysql+pymysql://user:password@host/cinder or postgresql://…',
    );
    return undefined;
  }
  const parameters = options.connection_parameters;
  const joint = options.connection.includes('?') ? '&' : '?';
  try {
    return {
      url: parseDatabaseUrl(
        parameters === '' ? options.connection : `${options.connection}${joint}${parameters}`,
      ),
      maxConnections: Math.max(1, options.max_pool_size),
      recycleSeconds: options.connection_recycle_time,
      poolTimeoutMs: options.pool_timeout === undefined ? undefined : options.pool_timeout * 1000,
      connectAttempts: options.max_retries,
      connectRetryMs: options.retry_interval * 1000,
      mysqlSqlMode: options.mysql_sql_mode,
    };
  } catch (error) {
    if (!isBackupError(error, 'config-invalid')) throw error;
    settings.reject('database', 'connection', error.message);
    return undefined;
  }
}
