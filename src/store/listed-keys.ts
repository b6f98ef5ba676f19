import type { StoredObject } from './object-store.ts';

/** The keys of a listing, one by one. */
export async function* listedKeys(pages: AsyncIterable<readonly StoredObject[]>): AsyncGenerator<string> {
  for await (const page of pages) for (const { key } of page) yield key;
}
