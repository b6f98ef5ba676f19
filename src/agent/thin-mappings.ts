/**
 * Reads what the tools of thin provisioning write: the differences of two thin devices (thin_delta(8)) and the mapped blocks
 * of one (thin_dump(8)). Lines in, extents in bytes out, in order.
 *
 * Invariant: what is not understood, and what ends before its end, is an error. A line that was passed over would be a change
 * that no backup has.
 */
import { BackupError } from '../model/errors.ts';
import { endOf, type TypedExtent } from '../model/extent.ts';
import type { FoundExtents } from './range-checks.ts';

const sectorBytes = 512;

const superblock = /^<superblock [^>]*\bdata_block_size="(\d{1,9})"[^>]*>$/;
const range = (element: string, begin: string) =>
  new RegExp(`^<${element} ${begin}="(\\d{1,15})"[^>]* length="(\\d{1,15})"[^>]*/>$`);

/** Blocks that only the first device maps read as zeros in the second. */
const differences = [
  [range('different', 'begin'), 'data'],
  [range('right_only', 'begin'), 'data'],
  [range('left_only', 'begin'), 'zero'],
  [range('same', 'begin'), null],
] as const;

const manyMapped = range('range_mapping', 'origin_begin');
const oneMapped = /^<single_mapping origin_block="(\d{1,15})"[^>]*\/>$/;
const frame = /^<(?:diff|device) [^>]*>$|^<\/(?:diff|device)>$/;

/** Lines as they are read, some at a time. */
export type Lines = AsyncIterable<readonly string[]>;

/** `kind` null: nothing changed there. */
type Meaning = { readonly kind: TypedExtent['kind'] | null; readonly begin: number; readonly length: number };

/** What differs in the second of two devices. Throws `agent-failed` for anything that is not the whole of thin_delta's output. */
export function readDifferences(lines: Lines): FoundExtents {
  return read(lines, 'thin_delta', (line) => {
    for (const [pattern, kind] of differences) {
      const found = pattern.exec(line);
      if (found !== null) return { kind, ...numbersOf(found[1], found[2]) };
    }
    return undefined;
  });
}

/** The mapped blocks of a device, as data; what is between them reads as zeros. Throws as `readDifferences`. */
export function readMapped(lines: Lines): FoundExtents {
  return read(lines, 'thin_dump', (line) => {
    const many = manyMapped.exec(line);
    if (many !== null) return { kind: 'data', ...numbersOf(many[1], many[2]) };
    const one = oneMapped.exec(line);
    return one === null ? undefined : { kind: 'data', ...numbersOf(one[1], '1') };
  });
}

async function* read(
  lines: Lines,
  tool: string,
  meaningOf: (line: string) => Meaning | undefined,
): FoundExtents {
  let blockBytes: number | undefined;
  let ended = false;
  let inner = 0;
  let at = 0;
  /** The extent that a line tells of, if it tells of one. */
  const take = (line: string): TypedExtent | undefined => {
    if (ended) throw unknown(tool, line);
    if (blockBytes === undefined) {
      blockBytes = Number(superblock.exec(line)?.[1] ?? 0) * sectorBytes;
      if (blockBytes === 0) throw unknown(tool, line);
      return undefined;
    }
    if (line === '</superblock>') ended = true;
    else if (frame.test(line)) inner += 1;
    else {
      const meaning = inner === 1 ? meaningOf(line) : undefined;
      if (meaning === undefined) throw unknown(tool, line);
      const { begin, kind, length } = meaning;
      const extent = { offset: begin * blockBytes, length: length * blockBytes };
      if (extent.offset < at || !Number.isSafeInteger(endOf(extent))) throw unknown(tool, line);
      at = endOf(extent);
      return kind === null ? undefined : { kind, ...extent };
    }
    return undefined;
  };
  for await (const some of lines) {
    const extents = some
      .map((line) => line.trim())
      .filter((line) => line !== '')
      .flatMap((line) => take(line) ?? []);
    if (extents.length > 0) yield extents;
  }
  if (!ended || inner !== 2) {
    throw new BackupError('agent-failed', `the output of ${tool} ends early: is there room in /tmp?`);
  }
}

function numbersOf(begin = '', length = ''): { begin: number; length: number } {
  return { begin: Number(begin), length: Number(length) };
}

function unknown(tool: string, line: string): BackupError {
  return new BackupError(
    'agent-failed',
    `${tool} of this host writes ${JSON.stringify(line.slice(0, 100))}, which is not known: tell its version to whoever maintains this agent`,
  );
}
