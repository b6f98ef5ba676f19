/**
 * Statements on `quota_usages` and `reservations`: what a project has of backups and of their gigabytes.
 *
 * cinder-api takes a project's quota when it makes a backup's row; the backup service gives it back when the row goes. Cinder
 * reserves first and commits after the row (cinder/backup/manager.py, delete_backup), and loses the rest when it dies in
 * between. Here both happen in the transaction that deletes the row, and leave the same rows: the usage less what was given
 * back, and reservations that are marked deleted, which nobody has to expire.
 */
import { randomUUID } from 'node:crypto';
import type { Selectable } from 'kysely';
import { BackupError, isBackupError } from '../model/errors.ts';
import { inTransaction, type Sql } from './database.ts';
import { readCount, readTime } from './row-values.ts';
import type { QuotaUsagesTable } from './tables.ts';

type Usage = Selectable<QuotaUsagesTable>;

const resources = ['backups', 'backup_gigabytes'] as const;
type Resource = (typeof resources)[number];

/** [DEFAULT] of cinder.conf (cinder/quota.py). */
export type QuotaRules = {
  /** `until_refresh`: after so many reservations a usage is counted anew; 0: never. */
  readonly untilRefresh: number;
  /** `max_age`: a usage that has not changed for so long is counted anew; 0: never. */
  readonly maxAgeSeconds: number;
  /** `reservation_expire` */
  readonly reservationSeconds: number;
};

export const defaultQuotaRules: QuotaRules = {
  untilRefresh: 0,
  maxAgeSeconds: 0,
  reservationSeconds: 86_400,
};

/**
 * Gives back one backup of `sizeGiB` to its project. To be called in the transaction that deletes the backup's row, before
 * the row is deleted: a usage that has to be counted anew is counted with it. No usage falls below 0.
 */
export async function giveBackQuota(
  sql: Sql,
  backup: { readonly projectId: string; readonly sizeGiB: number },
  now: Date,
  rules: QuotaRules = defaultQuotaRules,
): Promise<void> {
  const amounts: Readonly<Record<Resource, number>> = { backups: 1, backup_gigabytes: backup.sizeGiB };
  const uuids: Readonly<Record<Resource, string>> = { backups: randomUUID(), backup_gigabytes: randomUUID() };
  await inTransaction(sql, async (inner) => {
    const usages = await lockUsages(inner, backup.projectId, rules, now);
    for (const usage of usages) {
      const amount = usage.resource === 'backups' ? amounts.backups : amounts.backup_gigabytes;
      const { inUse, untilRefresh } = await refreshed(inner, usage, rules, now);
      await inner
        .updateTable('quota_usages')
        .set({ in_use: inUse - Math.min(amount, inUse), until_refresh: untilRefresh, updated_at: now })
        .where('id', '=', usage.id)
        .execute();
    }
    const expire = new Date(now.getTime() + rules.reservationSeconds * 1000);
    await inner
      .insertInto('reservations')
      .values(
        usages.map((usage) => ({
          created_at: now,
          updated_at: now,
          deleted_at: now,
          deleted: true,
          uuid: usage.resource === 'backups' ? uuids.backups : uuids.backup_gigabytes,
          usage_id: usage.id,
          project_id: backup.projectId,
          resource: usage.resource,
          delta: usage.resource === 'backups' ? -amounts.backups : -amounts.backup_gigabytes,
          expire,
        })),
      )
      .execute();
  });
}

/** The rows of both resources, locked in the order of their ids as Cinder locks them; what is missing is made first. */
async function lockUsages(sql: Sql, projectId: string, rules: QuotaRules, now: Date): Promise<Usage[]> {
  const locked = await readUsages(sql, projectId);
  const missing = resources.filter((name) => !locked.some(({ resource }) => resource === name));
  if (missing.length === 0) return locked;
  const counted = await countBackups(sql, projectId);
  try {
    await sql
      .insertInto('quota_usages')
      .values(
        missing.map((resource) => ({
          created_at: now,
          deleted: false,
          project_id: projectId,
          resource,
          in_use: counted[resource],
          reserved: 0,
          until_refresh: rules.untilRefresh === 0 ? null : rules.untilRefresh,
          race_preventer: true,
        })),
      )
      .execute();
  } catch (error) {
    if (!isBackupError(error, 'already-exists')) throw error;
    throw new BackupError('database-unavailable', `quota usages of ${projectId} were made by somebody else`, {
      cause: error,
    });
  }
  return await readUsages(sql, projectId);
}

async function readUsages(sql: Sql, projectId: string): Promise<Usage[]> {
  return await sql
    .selectFrom('quota_usages')
    .selectAll()
    .where('deleted', '=', false)
    .where('project_id', '=', projectId)
    .where('resource', 'in', resources)
    .orderBy('id')
    .$if(sql.scope.hasRowLocks, (query) => query.forUpdate())
    .execute();
}

/** What a project has, by its rows (cinder/db/sqlalchemy/api.py, _backup_data_get_for_project). */
async function countBackups(sql: Sql, projectId: string): Promise<Readonly<Record<Resource, number>>> {
  const row = await sql
    .selectFrom('backups')
    .select(({ fn }) => [fn.countAll().as('backups'), fn.sum('size').as('gigabytes')])
    .where('deleted', '=', false)
    .where('project_id', '=', projectId)
    .executeTakeFirstOrThrow();
  return { backups: readCount(row.backups), backup_gigabytes: readCount(row.gigabytes) };
}

/** The usage as a reservation finds it, counted anew where the rules ask for it (quota_reserve in the same file). */
async function refreshed(
  sql: Sql,
  usage: Usage,
  rules: QuotaRules,
  now: Date,
): Promise<{ readonly inUse: number; readonly untilRefresh: number | null }> {
  const left = usage.until_refresh === null ? null : usage.until_refresh - 1;
  const isRefreshDue = usage.in_use < 0 || (left === null ? isTooOld(usage, rules, now) : left <= 0);
  if (isRefreshDue) {
    const counted = await countBackups(sql, usage.project_id ?? '');
    const inUse = usage.resource === 'backups' ? counted.backups : counted.backup_gigabytes;
    return { inUse, untilRefresh: rules.untilRefresh || null };
  }
  const isChanged = left === null ? rules.untilRefresh > 0 : left > rules.untilRefresh;
  return { inUse: usage.in_use, untilRefresh: isChanged ? rules.untilRefresh || null : left };
}

function isTooOld(usage: Usage, { maxAgeSeconds }: QuotaRules, now: Date): boolean {
  const updatedAt = readTime(usage.updated_at);
  if (maxAgeSeconds === 0 || updatedAt === null) return false;
  return now.getTime() - updatedAt.getTime() >= maxAgeSeconds * 1000;
}
