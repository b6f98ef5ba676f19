/**
 * Which rows stand for work that goes on. A row of a host that is down stays `creating` or `restoring` until that host comes back,
 * perhaps for ever: it holds nothing that others wait for.
 */
import type { Sql } from '../database/database.ts';
import { isBackupServiceUp } from '../database/services.ts';
import type { Backup } from '../model/backup.ts';
import type { ManagerEnvironment } from './environment.ts';

/**
 * Those of `rows` that somebody works on, or will: of this host, where lost-requests.ts ends what nobody does; of a host that is
 * up; of none, which wait for the scheduler.
 */
export async function livingRows(
  { options }: Pick<ManagerEnvironment, 'options'>,
  sql: Sql,
  rows: readonly Backup[],
  now: Date,
): Promise<readonly Backup[]> {
  const since = new Date(now.getTime() - options.serviceDownMs);
  const living: Backup[] = [];
  for (const row of rows) {
    const isOurs = row.host === null || row.host === options.host;
    if (isOurs || (await isBackupServiceUp(sql, row.host, since))) living.push(row);
  }
  return living;
}
