/** What a Swift cluster says it can do: `GET /info`, asked for once when it is first needed. */
import { z } from 'zod';
import type { HttpResponse } from '../openstack/http.ts';
import { isRetryable } from './retry-call.ts';
import { swiftError } from './swift-error.ts';
import type { SwiftExchange } from './swift-exchange.ts';

export type SwiftCapabilities = {
  /** Objects that one bulk delete may name; 0 where the cluster has none. */
  readonly bulkDeletes: number;
  /** Segments that one static large object may have; 0 where the cluster has none. */
  readonly manifestSegments: number;
  /** Names of its storage policies; null where it does not tell. */
  readonly policies: readonly string[] | null;
};

/** What is assumed of a cluster that does not tell: no bulk delete, and large objects as every Swift has them. */
const untold: SwiftCapabilities = { bulkDeletes: 0, manifestSegments: 1000, policies: null };

const infoSchema = z.object({
  bulk_delete: z.object({ max_deletes_per_request: z.number().int().positive().default(1000) }).optional(),
  swift: z
    .object({ policies: z.array(z.object({ name: z.string(), aliases: z.string().default('') })) })
    .optional(),
  slo: z.object({ max_manifest_segments: z.number().int().positive().default(1000) }).optional(),
});

/**
 * Returns a function that asks once. A Swift that cannot be reached or cannot answer now is thrown, and asked again at the next
 * call; one that does not tell (expose_info = false) is not.
 */
export function createCapabilities(
  exchange: SwiftExchange,
): (signal: AbortSignal) => Promise<SwiftCapabilities> {
  let known: SwiftCapabilities | undefined;
  return async (signal) => {
    if (known !== undefined) return known;
    const answer = await exchange.getInfo(signal);
    known = await readInfo(answer);
    return known;
  };
}

/** What was asked for, or what is assumed where the cluster cannot be reached or cannot answer now: for work that can do without. */
export async function orUntold(asked: Promise<SwiftCapabilities>): Promise<SwiftCapabilities> {
  try {
    return await asked;
  } catch (error) {
    if (isRetryable(error)) return untold;
    throw error;
  }
}

/** What an answer to `/info` tells. Throws `store-unavailable` for one of a server in trouble. */
export async function readInfo(answer: HttpResponse): Promise<SwiftCapabilities> {
  if (answer.status === 200) return parseInfo(await answer.text(1_048_576));
  const error = await swiftError({ method: 'GET', path: '/info' }, answer);
  if (error.retryable) throw error;
  return untold;
}

function parseInfo(text: string): SwiftCapabilities {
  const parsed = infoSchema.safeParse(parseJson(text));
  if (!parsed.success) return untold;
  const { bulk_delete: bulk, slo, swift } = parsed.data;
  return {
    bulkDeletes: bulk?.max_deletes_per_request ?? 0,
    manifestSegments: slo?.max_manifest_segments ?? 0,
    policies: swift?.policies.flatMap(({ name, aliases }) => [name, ...aliases.split(/,\s*/)]) ?? null,
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
