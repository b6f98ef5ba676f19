/** [database]: names, types and defaults of oslo.db (options.py). */
import { flag, integer, text } from './option.ts';

export const databaseOptions = {
  connection: text({
    secret: true,
    aliases: [
      { group: 'DEFAULT', name: 'sql_connection' },
      { group: 'DATABASE', name: 'sql_connection' },
      { group: 'sql', name: 'connection' },
    ],
  }),
  connection_parameters: text({ default: '' }),
  connection_recycle_time: integer({ default: 3600 }),
  max_pool_size: integer({ default: 5 }),
  max_overflow: integer({
    default: 50,
    aliases: [
      { group: 'DEFAULT', name: 'sql_max_overflow' },
      { group: 'DATABASE', name: 'sqlalchemy_max_overflow' },
    ],
  }),
  pool_timeout: integer({ aliases: [{ group: 'DATABASE', name: 'sqlalchemy_pool_timeout' }] }),
  max_retries: integer({
    default: 10,
    aliases: [
      { group: 'DEFAULT', name: 'sql_max_retries' },
      { group: 'DATABASE', name: 'sql_max_retries' },
    ],
  }),
  retry_interval: integer({
    default: 10,
    aliases: [
      { group: 'DEFAULT', name: 'sql_retry_interval' },
      { group: 'DATABASE', name: 'reconnect_interval' },
    ],
  }),
  mysql_sql_mode: text({ default: 'TRADITIONAL' }),
  mysql_wsrep_sync_wait: integer(),
  sqlite_synchronous: flag({ default: true, aliases: [{ group: 'DEFAULT' }] }),
  use_db_reconnect: flag({ default: false }),
  db_retry_interval: integer({ default: 1 }),
  db_inc_retry_interval: flag({ default: true }),
  db_max_retry_interval: integer({ default: 10 }),
  db_max_retries: integer({ default: 20 }),
};
