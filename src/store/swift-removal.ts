/** Removing objects of Swift: one by one, or many with one request where the cluster has the `bulk` middleware. */
import { z } from 'zod';
import { createTaskGroup } from '../async/task-group.ts';
import { BackupError } from '../model/errors.ts';
import type { SwiftCapabilities } from './swift-capabilities.ts';
import type { SwiftExchange } from './swift-exchange.ts';
import { translateSwiftStatus } from './swift-error.ts';

const singlesSideBySide = 8;
/** Keeps the request and its answer small and short; clusters allow 1000 to 10 000. */
const bulkLimit = 1000;

const bulkAnswerSchema = z.object({
  'Response Status': z.string(),
  'Response Body': z.string().default(''),
  Errors: z.array(z.tuple([z.string(), z.string()])).default([]),
});

/** Removes one object; an absent one or an absent container is no error. Segments of a large object stay. */
export async function removeOne(
  exchange: SwiftExchange,
  container: string,
  key: string,
  signal: AbortSignal,
): Promise<void> {
  await exchange.tell({ method: 'DELETE', container, key, signal, accept: [200, 202, 204, 404] });
}

/**
 * Removes all that `keys` yields, and returns how many those were. Throws the first failure after trying all of its batch. What a
 * bulk delete may not remove goes one by one, and so does all that follows: Swift's middleware hands the user's token on and drops
 * X-Service-Token (swift/common/middleware/bulk.py), and tells of a token that has expired only in its body.
 */
export async function removeMany(
  exchange: SwiftExchange,
  capabilities: SwiftCapabilities,
  container: string,
  keys: AsyncIterable<string>,
  signal: AbortSignal,
): Promise<number> {
  const batchSize = Math.min(bulkLimit, capabilities.bulkDeletes || singlesSideBySide);
  let count = 0;
  let batch: string[] = [];
  let together = capabilities.bulkDeletes > 0;
  const flush = async () => {
    together = together && (await removeInBulk(exchange, container, batch, signal));
    if (!together) await removeSingly(exchange, container, batch, signal);
    count += batch.length;
    batch = [];
  };
  for await (const key of keys) {
    batch.push(key);
    if (batch.length >= batchSize) await flush();
  }
  if (batch.length > 0) await flush();
  return count;
}

async function removeSingly(
  exchange: SwiftExchange,
  container: string,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const group = createTaskGroup(singlesSideBySide, signal);
  for (const key of keys) {
    await group.add((groupSignal) => removeOne(exchange, container, key, groupSignal));
  }
  await group.settle();
}

/**
 * The answer is 200 whatever happened: what counts stands in its body (swift/common/middleware/bulk.py). False if the tokens
 * did not do for one of them.
 */
async function removeInBulk(
  exchange: SwiftExchange,
  container: string,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  const answer = await exchange.send({
    method: 'POST',
    query: { 'bulk-delete': '' },
    headers: { 'content-type': 'text/plain', accept: 'application/json' },
    body: keys.map((key) => `${encodeURIComponent(container)}/${encodeURIComponent(key)}\n`).join(''),
    signal,
    accept: [200],
  });
  const result = parseBulkAnswer(container, await answer.text());
  if (result.Errors.some(([, status]) => /^40[13]\b/.test(status))) return false;
  const [failed] = result.Errors;
  if (failed !== undefined) {
    const [name, status] = failed;
    const key = decodeURIComponent(name).replace(/^\/?[^/]*\//, '');
    throw translateSwiftStatus({ method: 'DELETE', container, key }, Number.parseInt(status, 10), status);
  }
  const status = Number.parseInt(result['Response Status'], 10);
  if (status < 200 || status > 299) {
    throw translateSwiftStatus({ method: 'DELETE', container }, status, result['Response Body']);
  }
  return true;
}

function parseBulkAnswer(container: string, text: string): z.infer<typeof bulkAnswerSchema> {
  try {
    return bulkAnswerSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new BackupError(
      'store-unavailable',
      `Swift's answer to a bulk delete in container ${container} is cut or cannot be read`,
      { cause },
    );
  }
}
