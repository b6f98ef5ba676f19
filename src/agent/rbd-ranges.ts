/**
 * Which ranges of an RBD snapshot hold data, and which changed since another one: librbd's diff, which asks the OSDs for
 * the snapshots of each object and tells written and discarded bytes to the sector. Where the image keeps an object map,
 * it says first in which objects to look; some of the others are looked at all the same, and if one has
 * changed the map is not believed.
 */
import { randomInt } from 'node:crypto';
import type { Logger } from '../log.ts';
import { throwIfAborted } from '../model/errors.ts';
import { endOf, type Extent, type TypedExtent } from '../model/extent.ts';
import type { RbdImage } from './rbd-images.ts';
import { commonLength, knowExtents } from './range-checks.ts';
import type { FindRequest, FoundRanges } from './volume-backend.ts';

/** Objects that one step asks about; of an image without an object map some 10,000 take a second. */
const objectsPerStep = 256;
/** The same where an object map answers for all of them. */
const mappedObjectsPerStep = 16_384;
/** Smaller images are looked at as a whole: that takes less than a second. */
const mapWorthObjects = 4096;
/** Two objects to look at that are nearer are looked at in one step, with those between. */
const nearObjects = 16;
/** Objects that the map calls unchanged and that are looked at all the same. */
const sampledObjects = 32;

export type RbdDiffSource = Pick<RbdImage, 'run' | 'handle' | 'facts'>;

/**
 * Finds the ranges of `request`, whose snapshots fit. `previousBytes`: the size of the previous snapshot, null without one.
 * `confirm` is asked when all is found, and throws unless the snapshots were there all the time. Owns the image.
 */
export async function findRbdRanges(deps: {
  readonly image: RbdDiffSource;
  readonly request: FindRequest;
  readonly previousBytes: number | null;
  readonly confirm: () => Promise<void>;
  readonly close: () => Promise<void>;
  readonly log: Logger;
}): Promise<FoundRanges> {
  const { confirm, image, previousBytes, request } = deps;
  const common = previousBytes === null ? 0 : commonLength(request, previousBytes);
  let walking: AsyncGenerator<TypedExtent> | undefined;
  const close = async () => {
    await walking?.return(undefined);
    await deps.close();
  };
  try {
    throwIfAborted(request.signal);
    const { ranges, reason } =
      request.previous === null
        ? { ranges: [], reason: 'objects that do not exist, here or in a parent, are not read' }
        : await whereToLook(deps, common);
    walking = walk(image, request, common, ranges, confirm);
    const extents = await knowExtents(walking, request.signal);
    if (Array.isArray(extents)) await close();
    const method = request.previous === null ? 'allocation' : 'extents';
    return { method, reason, extents, readBytes: () => 0, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Changed ranges below `common`, then data and zeros that tile what is behind it. */
async function* walk(
  image: RbdDiffSource,
  request: FindRequest,
  common: number,
  ranges: readonly Extent[],
  confirm: () => Promise<void>,
): AsyncGenerator<TypedExtent> {
  const { lengthBytes, previous, startOffset } = request;
  if (previous !== null) yield* diff(image, request, previous, cut(ranges, periodOf(image) * objectsPerStep));
  const from = Math.max(startOffset, common);
  const behind = cut([{ offset: from, length: lengthBytes - from }], periodOf(image) * objectsPerStep);
  let at = from;
  for await (const extent of diff(image, request, null, behind)) {
    if (extent.kind === 'zero') continue;
    if (extent.offset > at) yield { kind: 'zero', offset: at, length: extent.offset - at };
    yield extent;
    at = endOf(extent);
  }
  if (at < lengthBytes) yield { kind: 'zero', offset: at, length: lengthBytes - at };
  await confirm();
}

/** The ranges below `common` in which something may have changed. */
async function whereToLook(
  deps: { readonly image: RbdDiffSource; readonly request: FindRequest; readonly log: Logger },
  common: number,
): Promise<{ readonly ranges: readonly Extent[]; readonly reason: string }> {
  const { image, log, request } = deps;
  const { previous, startOffset, volume } = request;
  const { fastDiff, objectBytes, stripeCount } = image.facts;
  const all = { offset: startOffset, length: Math.max(0, common - startOffset) };
  const everywhere = { ranges: [all], reason: 'librbd has compared the objects of two snapshots' };
  const objects = Math.ceil(all.length / objectBytes);
  if (!fastDiff || stripeCount > 1 || objects < mapWorthObjects) return everywhere;

  const found: Extent[] = [];
  const pieces = cut([all], objectBytes * mappedObjectsPerStep);
  for await (const extent of diff(image, request, previous, pieces, true)) found.push(extent);
  const named = join(found, objectBytes, 0, all);
  const unnamed = sample(named, objectBytes, all);
  for await (const missed of diff(image, request, previous, unnamed)) {
    log.warn(
      { volume, offset: missed.offset },
      'the object map of a volume is wrong: its objects are compared',
    );
    return { ...everywhere, reason: `${everywhere.reason}, since the object map of the volume is wrong` };
  }
  const chosen = named.reduce((sum, { length }) => sum + Math.ceil(length / objectBytes), 0);
  return {
    ranges: join(found, objectBytes, nearObjects * objectBytes, all),
    reason: `librbd has compared ${chosen} of ${objects} objects, those that the object map names`,
  };
}

/** What differs in `ranges` from snapshot `from`, or is allocated; each step runs while the last one is used. */
async function* diff(
  image: RbdDiffSource,
  request: FindRequest,
  from: string | null,
  ranges: Iterable<Extent>,
  whole = false,
): AsyncGenerator<TypedExtent> {
  const thing = `the changes of ${request.volume}`;
  const pieces = ranges[Symbol.iterator]();
  const ask = async (piece: Extent) => {
    const { offset } = piece;
    const step = { kind: 'diff', image: image.handle, from, offset, end: endOf(piece), whole } as const;
    return { piece, extents: (await image.run('extents', thing, step, { signal: request.signal })).extents };
  };
  const next = () => {
    const piece = pieces.next();
    if (piece.done === true) return undefined;
    const asked = ask(piece.value);
    asked.catch(() => {});
    return asked;
  };
  let ahead = next();
  try {
    while (ahead !== undefined) {
      const { piece, extents } = await ahead;
      ahead = next();
      for (let i = 0; i + 2 < extents.length; i += 3) {
        const start = Math.max(extents[i] ?? 0, piece.offset);
        const end = Math.min((extents[i] ?? 0) + (extents[i + 1] ?? 0), endOf(piece));
        if (start < end)
          yield { kind: extents[i + 2] === 0 ? 'zero' : 'data', offset: start, length: end - start };
      }
    }
  } finally {
    await Promise.allSettled([ahead]);
  }
}

/** Bytes after which objects begin anew, also where the image is striped over several at a time. */
function periodOf(image: RbdDiffSource): number {
  return image.facts.objectBytes * image.facts.stripeCount;
}

/** Pieces that end at multiples of `bytes`. */
function* cut(ranges: Iterable<Extent>, bytes: number): Generator<Extent> {
  for (const range of ranges) {
    for (let at = range.offset; at < endOf(range);) {
      const end = Math.min(endOf(range), at - (at % bytes) + bytes);
      yield { offset: at, length: end - at };
      at = end;
    }
  }
}

/** Sorted extents widened to objects inside of `all`, and joined where no more than `gapBytes` lie between. */
function join(extents: readonly Extent[], objectBytes: number, gapBytes: number, all: Extent): Extent[] {
  const joined: { offset: number; length: number }[] = [];
  for (const extent of extents) {
    const offset = Math.max(all.offset, extent.offset - (extent.offset % objectBytes));
    const end = Math.min(endOf(all), Math.ceil(endOf(extent) / objectBytes) * objectBytes);
    const last = joined.at(-1);
    if (last !== undefined && offset - endOf(last) <= gapBytes)
      last.length = Math.max(endOf(last), end) - last.offset;
    else joined.push({ offset, length: end - offset });
  }
  return joined;
}

/** Some objects of `all` that are not in `named`, sorted. */
function sample(named: readonly Extent[], objectBytes: number, all: Extent): Extent[] {
  const first = Math.floor(all.offset / objectBytes);
  const end = Math.ceil(endOf(all) / objectBytes);
  const chosen = new Set<number>();
  for (let i = 0; i < sampledObjects; i += 1) chosen.add(randomInt(first, end));
  const isNamed = (object: number) =>
    named.some(
      (extent) => extent.offset < (object + 1) * objectBytes && endOf(extent) > object * objectBytes,
    );
  return [...chosen]
    .filter((object) => !isNamed(object))
    .toSorted((a, b) => a - b)
    .map((object) => {
      const offset = Math.max(all.offset, object * objectBytes);
      return { offset, length: Math.min(endOf(all), (object + 1) * objectBytes) - offset };
    });
}
