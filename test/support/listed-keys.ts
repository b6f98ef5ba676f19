/** Listings of stores in tests. */
import type { ObjectStore, StoredObject } from '../../src/store/object-store.ts';

const live = new AbortController().signal;

/** Every object under `prefix`, as the pages give them. */
export async function listedObjects(
  store: Pick<ObjectStore, 'list'>,
  container: string,
  prefix = '',
  signal = live,
): Promise<readonly StoredObject[]> {
  const found: StoredObject[] = [];
  for await (const page of store.list(container, prefix, signal)) found.push(...page);
  return found;
}

/** The keys of every object under `prefix`. */
export async function listedKeys(
  store: Pick<ObjectStore, 'list'>,
  container: string,
  prefix = '',
  signal = live,
): Promise<readonly string[]> {
  return (await listedObjects(store, container, prefix, signal)).map(({ key }) => key);
}
