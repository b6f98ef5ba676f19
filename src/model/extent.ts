/**
 * Extents: half-open byte ranges of a volume. Offsets and lengths are safe integers of bytes.
 * All functions are pure; sequences are sorted by offset and do not overlap.
 */
import { BackupError } from './errors.ts';

export type Extent = { readonly offset: number; readonly length: number };

/** An extent whose content is known to be all zeros (`zero`), or has to be read (`data`). */
export type TypedExtent = Extent & { readonly kind: 'data' | 'zero' };

export function endOf(extent: Extent): number {
  return extent.offset + extent.length;
}

/** The number of blocks of `blockSize` bytes that cover `lengthBytes`; the last may be short. */
export function blockCount(lengthBytes: number, blockSize: number): number {
  return Math.ceil(lengthBytes / blockSize);
}

/** Throws `message-invalid` unless `value` is a safe integer of at least `minimum`. */
export function requireInteger(name: string, value: number, minimum = 0): number {
  if (!Number.isSafeInteger(value) || value < minimum) {
    throw new BackupError(
      'message-invalid',
      `${name} is ${value}: it must be an integer of at least ${minimum}`,
    );
  }
  return value;
}

/**
 * Widens sorted extents to whole blocks, cuts them at `lengthBytes`, and joins those that touch after it.
 * A block that is only partly zero is data. `mergeGapBytes` also joins data extents over a gap of at most
 * that many bytes; the gap then counts as data.
 *
 * Widened data never reaches into a shrunk zero extent (every block of that lies wholly inside zeros), so
 * only two data extents can overlap here.
 */
export function* toBlockExtents(
  extents: Iterable<TypedExtent>,
  blockSize: number,
  lengthBytes: number,
  mergeGapBytes = 0,
): Generator<TypedExtent> {
  const widener = createBlockWidener(blockSize, lengthBytes, mergeGapBytes);
  for (const extent of extents) yield* widener.push(extent);
  yield* widener.end();
}

/** `toBlockExtents` for extents that come one at a time: each push gives what can no longer change, `end` the rest. */
export type BlockWidener = {
  push(extent: TypedExtent): TypedExtent[];
  end(): TypedExtent[];
};

/** Data that grows beyond `holdBytes` is given away in parts rather than held until its end is known. */
export function createBlockWidener(
  blockSize: number,
  lengthBytes: number,
  mergeGapBytes = 0,
  holdBytes = Infinity,
): BlockWidener {
  let held: TypedExtent | undefined;

  /** All but the last block of long data: only that can still overlap with what follows. */
  const settled = (): TypedExtent[] => {
    if (held?.kind !== 'data' || held.length <= holdBytes + blockSize) return [];
    const { offset } = held;
    const lastBlock = (blockCount(endOf(held), blockSize) - 1) * blockSize;
    held = { kind: 'data', offset: lastBlock, length: endOf(held) - lastBlock };
    return [{ kind: 'data', offset, length: lastBlock - offset }];
  };

  return {
    push(extent) {
      const ready: TypedExtent[] = [];
      for (const piece of splitZeroEdges(extent, blockSize, lengthBytes)) {
        const gap = held === undefined ? 0 : piece.offset - endOf(held);
        if (held?.kind === piece.kind && gap <= (piece.kind === 'data' ? mergeGapBytes : 0)) {
          held = { ...held, length: Math.max(endOf(held), endOf(piece)) - held.offset };
        } else {
          if (held !== undefined) ready.push(held);
          held = piece;
        }
        ready.push(...settled());
      }
      return ready;
    },
    end() {
      const ready = held === undefined ? [] : [held];
      held = undefined;
      return ready;
    },
  };
}

/** Data widened to whole blocks; a zero extent whose edges lie inside a block gives those blocks to data. */
function* splitZeroEdges(
  extent: TypedExtent,
  blockSize: number,
  lengthBytes: number,
): Generator<TypedExtent> {
  const down = (offset: number) => offset - (offset % blockSize);
  const up = (offset: number) => Math.min(lengthBytes, blockCount(offset, blockSize) * blockSize);
  const start = extent.offset;
  const end = Math.min(endOf(extent), lengthBytes);
  if (start >= end) return;
  const innerStart = up(start);
  const innerEnd = end === lengthBytes ? lengthBytes : down(end);
  if (extent.kind === 'data' || innerStart >= innerEnd) {
    yield { kind: 'data', offset: down(start), length: up(end) - down(start) };
    return;
  }
  if (down(start) < innerStart) yield { kind: 'data', offset: down(start), length: innerStart - down(start) };
  yield { kind: 'zero', offset: innerStart, length: innerEnd - innerStart };
  if (innerEnd < up(end)) yield { kind: 'data', offset: innerEnd, length: up(end) - innerEnd };
}

/** Cuts sorted extents so that nothing lies below `startOffset`. */
export function* fromOffset<E extends Extent>(extents: Iterable<E>, startOffset: number): Generator<E> {
  for (const extent of extents) {
    if (endOf(extent) <= startOffset) continue;
    if (extent.offset >= startOffset) yield extent;
    else yield { ...extent, offset: startOffset, length: endOf(extent) - startOffset };
  }
}

/** Cuts every extent into pieces of at most `maxLength` bytes. */
export function* splitExtents<E extends Extent>(extents: Iterable<E>, maxLength: number): Generator<E> {
  for (const extent of extents) {
    for (let done = 0; done < extent.length; done += maxLength) {
      yield { ...extent, offset: extent.offset + done, length: Math.min(maxLength, extent.length - done) };
    }
  }
}

/** The sum of lengths, in bytes. */
export function totalLength(extents: Iterable<Extent>): number {
  let sum = 0;
  for (const extent of extents) sum += extent.length;
  return sum;
}
