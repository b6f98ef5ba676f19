/** Listings of Swift: JSON pages, each asked for from the last name of the one before. */
import { BackupError } from '../model/errors.ts';
import type { StoredObject } from './object-store.ts';
import type { SwiftExchange } from './swift-exchange.ts';

/**
 * Every object of `container` under `prefix`, page by page in the order of names; nothing if the container is absent. A page may be
 * shorter than the cluster's limit, so only an empty one is the last. radosgw gives a large object the size of its manifest. Throws
 * `store-unavailable` for what is no listing.
 */
export async function* listSwift(
  exchange: SwiftExchange,
  container: string,
  prefix: string,
  signal: AbortSignal,
): AsyncGenerator<readonly StoredObject[]> {
  for (let marker = ''; ;) {
    const answer = await exchange.send({
      method: 'GET',
      container,
      query: { format: 'json', prefix, ...(marker === '' ? {} : { marker }) },
      signal,
      accept: [200, 204, 404],
    });
    if (answer.status !== 200) {
      await answer.discard();
      return;
    }
    const page = parsePage(container, await answer.text());
    const last = page.at(-1);
    if (last === undefined) return;
    yield page;
    if (last.key === marker) {
      throw new BackupError(
        'store-unavailable',
        `the listing of container ${container} in Swift runs in circles`,
      );
    }
    marker = last.key;
  }
}

function parsePage(container: string, text: string): readonly StoredObject[] {
  try {
    const parsed: unknown = JSON.parse(text);
    if (!Array.isArray(parsed)) throw new TypeError('not a list');
    return parsed.map((entry: unknown) => {
      if (
        typeof entry === 'object' &&
        entry !== null &&
        'name' in entry &&
        typeof entry.name === 'string' &&
        'bytes' in entry &&
        typeof entry.bytes === 'number'
      ) {
        return { key: entry.name, sizeBytes: entry.bytes };
      }
      throw new TypeError('not an object');
    });
  } catch (cause) {
    throw new BackupError('store-unavailable', `Swift's listing of container ${container} cannot be read`, {
      cause,
    });
  }
}
