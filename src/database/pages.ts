/** Lists in pages: the newest first, each page after the last row of the one before. */
import { sql as raw, type RawBuilder, type SqlBool } from 'kysely';
import { BackupError } from '../model/errors.ts';

export type Page = {
  readonly limit?: number | undefined;
  readonly offset?: number | undefined;
  /** The id after which the page begins. */
  readonly marker?: string | undefined;
};

export type PageBounds = {
  /** Which rows lie after the marker. */
  readonly after: RawBuilder<SqlBool>;
  readonly limit: number;
  readonly offset: number;
};

/**
 * The bounds of a page of `table` in the order `created_at desc, id desc`. `hasMarker` tells whether the list has the row of
 * the marker; `message-invalid` if not. The times are compared where they lie: they may be finer than a Date.
 */
export async function boundsOf(
  table: 'backups' | 'volumes' | 'snapshots',
  page: Page,
  hasMarker: (id: string) => Promise<boolean>,
): Promise<PageBounds> {
  const { marker, limit = Number.MAX_SAFE_INTEGER, offset = 0 } = page;
  if (marker === undefined) return { after: raw<SqlBool>`1 = 1`, limit, offset };
  if (!(await hasMarker(marker))) {
    throw new BackupError('message-invalid', `marker ${marker} could not be found`);
  }
  const [createdAt, id] = [raw.ref(`${table}.created_at`), raw.ref(`${table}.id`)];
  const markerTime = raw`(select marker.created_at from ${raw.table(table)} as marker where marker.id = ${marker})`;
  const after = raw<SqlBool>`(${createdAt} < ${markerTime} or (${createdAt} = ${markerTime} and ${id} < ${marker}))`;
  return { after, limit, offset };
}
