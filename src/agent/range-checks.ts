/** What every backend asks of a request for ranges before it looks for them, and how it gives away what it finds. */
import { BackupError, throwIfAborted } from '../model/errors.ts';
import { endOf, type Extent, type TypedExtent } from '../model/extent.ts';
import type { FindRequest, FoundRanges } from './volume-backend.ts';

/** So many extents are held in memory to know their sums before the first byte is read (some 5 MiB). */
const knownExtents = 65_536;
/** Nobody waits longer for the sums. */
const knowWithinMs = 5_000;

type SnapshotFacts = { readonly identity: string; readonly size_bytes: number };

/** Throws `message-invalid` unless the request is for all of the current snapshot. */
export function requireWholeLength(request: FindRequest, currentBytes: number): void {
  if (request.lengthBytes === currentBytes) return;
  throw new BackupError(
    'message-invalid',
    `length is ${request.lengthBytes}, but snapshot ${request.current} has ${currentBytes} bytes: ask for all of it`,
  );
}

/** Throws `delta-unavailable` unless the previous snapshot is the one that is meant, and not larger. */
export function requireFit(request: FindRequest, previous: SnapshotFacts): void {
  if (request.previousIdentity !== null && previous.identity !== request.previousIdentity) {
    throw new BackupError(
      'delta-unavailable',
      `snapshot ${request.previous} of ${request.volume} is not the one the delta is asked against: it was made anew; compare digests or do a full`,
      { details: { expected: request.previousIdentity, found: previous.identity } },
    );
  }
  if (previous.size_bytes > request.lengthBytes) {
    throw new BackupError(
      'delta-unavailable',
      `${request.volume} shrank from ${previous.size_bytes} to ${request.lengthBytes} bytes since snapshot ${request.previous}: do a full`,
    );
  }
}

/** The error for a previous snapshot that is not there. */
export function previousGone(request: FindRequest, cause?: unknown): BackupError {
  return new BackupError(
    'delta-unavailable',
    `the previous snapshot ${request.previous} of ${request.volume} is gone: compare digests or do a full`,
    { cause },
  );
}

/** The first block that is not wholly inside of both snapshots: from there on everything counts as changed. */
export function commonLength(request: FindRequest, previousBytes: number): number {
  const { blockSize, lengthBytes } = request;
  return previousBytes < lengthBytes ? previousBytes - (previousBytes % blockSize) : lengthBytes;
}

/** Extents as they are found, in order: one wait for many of them. */
export type FoundExtents = AsyncGenerator<readonly TypedExtent[]>;

/** Walks to the end and returns all extents, or, where they are many or slow to find, those found and then the rest. */
export async function knowExtents(
  walking: FoundExtents,
  signal: AbortSignal,
): Promise<FoundRanges['extents']> {
  const held: TypedExtent[] = [];
  const late = AbortSignal.timeout(knowWithinMs);
  while (held.length < knownExtents && !late.aborted) {
    throwIfAborted(signal);
    const step = await walking.next();
    if (step.done === true) return held;
    for (const extent of step.value) held.push(extent);
  }
  return followedBy(held, walking);
}

async function* followedBy(held: readonly TypedExtent[], rest: FoundExtents): AsyncGenerator<TypedExtent> {
  yield* held;
  yield* oneByOne(rest);
}

/** The same extents, each by itself. */
export async function* oneByOne(found: FoundExtents): AsyncGenerator<TypedExtent> {
  for await (const some of found) yield* some;
}

/** The parts of what is found that lie in `range`. All of it is gone through, also what is behind. */
export async function* within(range: Extent, found: FoundExtents): FoundExtents {
  for await (const some of found) {
    const inside: TypedExtent[] = [];
    for (const { kind, offset, length } of some) {
      const start = Math.max(offset, range.offset);
      const end = Math.min(offset + length, endOf(range));
      if (start < end) inside.push({ kind, offset: start, length: end - start });
    }
    yield inside;
  }
}

/** The data of what is found inside of `range`, and zeros where there is none: both tile the range. */
export async function* tiled(range: Extent, found: FoundExtents): FoundExtents {
  let at = range.offset;
  for await (const some of found) {
    const tiles: TypedExtent[] = [];
    for (const extent of some) {
      if (extent.kind === 'zero') continue;
      if (extent.offset > at) tiles.push({ kind: 'zero', offset: at, length: extent.offset - at });
      tiles.push(extent);
      at = endOf(extent);
    }
    yield tiles;
  }
  if (at < endOf(range)) yield [{ kind: 'zero', offset: at, length: endOf(range) - at }];
}
