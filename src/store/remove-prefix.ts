/** Removing a whole backup: with few requests where the store can, else object by object. */
import { createTaskGroup } from '../async/task-group.ts';
import { listedKeys } from './listed-keys.ts';
import type { ObjectStore } from './object-store.ts';

const sideBySide = 8;

/**
 * Removes every object whose key starts with `prefix`, and in Swift and S3 also the segments and parts that uploads which
 * failed left under it. Returns how many objects there were; may be repeated. Throws what the store throws.
 */
export async function removePrefix(
  store: ObjectStore,
  container: string,
  prefix: string,
  signal: AbortSignal,
): Promise<number> {
  if (store.removePrefix !== undefined) return await store.removePrefix(container, prefix, signal);
  const group = createTaskGroup(sideBySide, signal);
  let count = 0;
  for await (const key of listedKeys(store.list(container, prefix, signal))) {
    await group.add((groupSignal) => store.remove(container, key, groupSignal));
    count += 1;
  }
  await group.settle();
  return count;
}
