/**
 * Statements on `workers`: what a service has in hand, so that another can clean it up. A backup service has no rows of its
 * own, but makes one for what it asks cinder-volume to delete (cinder/objects/cleanable.py, create_worker).
 */
import { inTransaction, type Sql } from './database.ts';

/** Makes the row of a resource, or takes over the one that is there; no service has it yet. */
export async function putWorker(
  sql: Sql,
  resource: { readonly type: 'Volume' | 'Snapshot'; readonly id: string; readonly status: string },
  now: Date,
): Promise<void> {
  await inTransaction(sql, async (inner) => {
    const result = await inner
      .updateTable('workers')
      .set((columns) => ({
        status: resource.status,
        service_id: null,
        updated_at: now,
        race_preventer: columns('race_preventer', '+', 1),
      }))
      .where('resource_type', '=', resource.type)
      .where('resource_id', '=', resource.id)
      .executeTakeFirst();
    if (result.numUpdatedRows > 0n) return;
    await inner
      .insertInto('workers')
      .values({
        created_at: now,
        updated_at: now,
        deleted: false,
        resource_type: resource.type,
        resource_id: resource.id,
        status: resource.status,
        race_preventer: 0,
      })
      .execute();
  });
}
