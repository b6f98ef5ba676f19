/** Checks of stream requests that a schema cannot express, and what they make of extents. Pure. */
import { BackupError } from '../model/errors.ts';
import {
  createBlockWidener,
  fromOffset,
  toBlockExtents,
  type BlockWidener,
  type TypedExtent,
} from '../model/extent.ts';
import type { FoundRanges } from './volume-backend.ts';

export type StreamShape = {
  readonly length: number;
  readonly block_size: number;
  readonly start_offset: number;
  /** What the snapshot to be read has to be; null: any of that name. */
  readonly current_identity: string | null;
};

/** Throws `message-invalid` unless the stream may start where it is asked to. */
export function requireStartOffset(shape: StreamShape): void {
  const { length, block_size, start_offset } = shape;
  if (start_offset % block_size !== 0 && start_offset !== length) {
    throw new BackupError(
      'message-invalid',
      `start_offset ${start_offset} is not a multiple of the block size ${block_size}`,
    );
  }
  if (start_offset > length) {
    throw new BackupError('message-invalid', `start_offset ${start_offset} lies behind the length ${length}`);
  }
}

/** Throws `state-invalid` unless the snapshot is the one that the stream is asked of. */
export function requireIdentity(shape: StreamShape, snapshot: string, identity: string): void {
  if (shape.current_identity === null || shape.current_identity === identity) return;
  throw new BackupError(
    'state-invalid',
    `snapshot ${snapshot} is not the one that is asked for: it was made anew; start the backup again`,
    { details: { expected: shape.current_identity, found: identity } },
  );
}

/** Throws `message-invalid` unless the stream is asked for the whole snapshot. */
export function requireLength(shape: StreamShape, snapshot: string, sizeBytes: number): void {
  if (shape.length === sizeBytes) return;
  throw new BackupError(
    'message-invalid',
    `length is ${shape.length}, but snapshot ${snapshot} has ${sizeBytes} bytes: ask for all of it`,
  );
}

/**
 * The named ranges as data extents from `start_offset` on. Throws `message-invalid` unless they are sorted, do not
 * overlap, lie inside the length, and start and end on block boundaries (or at the end).
 */
export function namedExtents(
  shape: StreamShape,
  ranges: readonly (readonly [number, number])[],
): readonly TypedExtent[] {
  const { length, block_size } = shape;
  let end = 0;
  const extents = ranges.map(([offset, size], at): TypedExtent => {
    const wrong = (what: string) =>
      new BackupError('message-invalid', `ranges[${at}] (${size} bytes at ${offset}) ${what}`);
    if (offset < end) throw wrong('overlaps the one before, or is not sorted');
    if (size > length - offset) throw wrong(`reaches over the end at ${length}`);
    end = offset + size;
    if (offset % block_size !== 0) throw wrong(`does not start on a block of ${block_size}`);
    if (end % block_size !== 0 && end !== length) throw wrong(`does not end on a block of ${block_size}`);
    return { kind: 'data', offset, length: size };
  });
  return [...fromOffset(extents, shape.start_offset)];
}

/** Long data goes to the readers while its end is still being looked for. */
const holdBytes = 4 * 1024 * 1024;

/** Extents that are all known and can be gone through again, or come as they are found. */
export type BlockExtents = Iterable<TypedExtent> | AsyncIterable<TypedExtent>;

/** Found extents on block boundaries, from `start_offset` on; those of an array are made when they are gone through. */
export function wholeBlocks(
  extents: FoundRanges['extents'],
  { block_size, length, start_offset }: StreamShape,
  mergeGapBytes: number,
): BlockExtents {
  if (Symbol.asyncIterator in extents) {
    const widener = createBlockWidener(block_size, length, mergeGapBytes, holdBytes);
    return widened(extents, widener, start_offset);
  }
  return {
    [Symbol.iterator]: () =>
      fromOffset(toBlockExtents(extents, block_size, length, mergeGapBytes), start_offset),
  };
}

async function* widened(
  extents: AsyncIterable<TypedExtent>,
  widener: BlockWidener,
  startOffset: number,
): AsyncGenerator<TypedExtent> {
  for await (const extent of extents) yield* fromOffset(widener.push(extent), startOffset);
  yield* fromOffset(widener.end(), startOffset);
}

/** The sums of extents that are all known, or null. */
export function plannedBytes(extents: BlockExtents): {
  data_bytes: number | null;
  zero_bytes: number | null;
} {
  if (Symbol.asyncIterator in extents) return { data_bytes: null, zero_bytes: null };
  const sums = { data: 0, zero: 0 };
  for (const { kind, length } of extents) sums[kind] += length;
  return { data_bytes: sums.data, zero_bytes: sums.zero };
}
