/**
 * The objects of a backup in columns: 41 bytes for each, where an object of its own would cost 200. Blocks of 1024 rows, so that
 * growing copies nothing and a short list stays short.
 */
import type { Codec } from '../model/codec.ts';
import type { BackupError } from '../model/errors.ts';
import { corruptDocument } from './json-parser.ts';
import type { ObjectEntry, ObjectList } from './metadata-document.ts';
import { objectKey } from './names.ts';

const firstRows = 16;
const blockRows = 1024;
const md5Bytes = 16;
const codecs: readonly Codec[] = ['none', 'zlib', 'bz2', 'zstd'];

/** One row: `md5` is 32 hex digits. */
export type ObjectRow = {
  readonly number: number;
  readonly offset: number;
  readonly length: number;
  readonly md5: string;
  readonly codec: Codec;
};

export type ObjectTable = {
  readonly length: number;
  push(row: ObjectRow): void;
  readonly numberAt: (index: number) => number;
  readonly offsetAt: (index: number) => number;
  readonly endAt: (index: number) => number;
  /** The rows, in the order of `order` (row numbers) if that is given. The table is not changed any more. */
  toList(order: Uint32Array | null): ObjectList;
};

type Block = {
  readonly numbers: Float64Array;
  readonly offsets: Float64Array;
  readonly lengths: Float64Array;
  readonly md5s: Buffer;
  readonly codecs: Uint8Array;
};

/** `takeRoom` is called for each row before it is kept; it throws where there is no more memory. */
export function createObjectTable(prefix: string, takeRoom: () => void): ObjectTable {
  const blocks: Block[] = [];
  let length = 0;

  const blockOf = (index: number): Block | undefined => blocks[Math.floor(index / blockRows)];
  const offsetAt = (index: number): number => blockOf(index)?.offsets[index % blockRows] ?? 0;
  const lengthAt = (index: number): number => blockOf(index)?.lengths[index % blockRows] ?? 0;
  const numberAt = (index: number): number => blockOf(index)?.numbers[index % blockRows] ?? 0;

  const entryAt = (index: number): ObjectEntry | undefined => {
    const block = blockOf(index);
    if (block === undefined || index < 0 || index >= length) return undefined;
    const row = index % blockRows;
    return {
      key: objectKey(prefix, numberAt(index)),
      offset: offsetAt(index),
      length: lengthAt(index),
      md5: block.md5s.toString('hex', row * md5Bytes, (row + 1) * md5Bytes),
      codec: codecs[block.codecs[row] ?? 0] ?? 'none',
    };
  };

  /** The block that has room for one more row. */
  const open = (): Block => {
    const last = blocks.at(-1);
    const rows = last?.codecs.length ?? 0;
    if (last !== undefined && length < (blocks.length - 1) * blockRows + rows) return last;
    const isFull = last === undefined || rows === blockRows;
    const block = isFull ? allocate(blocks.length === 0 ? firstRows : blockRows) : enlarge(last);
    blocks[isFull ? blocks.length : blocks.length - 1] = block;
    return block;
  };

  return {
    get length() {
      return length;
    },
    push({ number, offset, length: bytes, md5, codec }) {
      takeRoom();
      const block = open();
      const row = length % blockRows;
      block.numbers[row] = number;
      block.offsets[row] = offset;
      block.lengths[row] = bytes;
      block.md5s.write(md5, row * md5Bytes, 'hex');
      block.codecs[row] = codecs.indexOf(codec);
      length += 1;
    },
    numberAt,
    offsetAt,
    endAt: (index) => offsetAt(index) + lengthAt(index),
    toList(order) {
      const at = (index: number) => {
        const row = index < 0 ? index + length : index;
        return entryAt(order === null ? row : (order[row] ?? length));
      };
      return {
        length,
        at,
        *[Symbol.iterator]() {
          for (let index = 0; index < length; index += 1) {
            const entry = at(index);
            if (entry !== undefined) yield entry;
          }
        },
      };
    },
  };
}

function allocate(rows: number): Block {
  return {
    numbers: new Float64Array(rows),
    offsets: new Float64Array(rows),
    lengths: new Float64Array(rows),
    md5s: Buffer.alloc(rows * md5Bytes),
    codecs: new Uint8Array(rows),
  };
}

/** The rows of a block in one of four times the size. */
function enlarge(block: Block): Block {
  const larger = allocate(Math.min(blockRows, block.codecs.length * 4));
  larger.numbers.set(block.numbers);
  larger.offsets.set(block.offsets);
  larger.lengths.set(block.lengths);
  larger.md5s.set(block.md5s);
  larger.codecs.set(block.codecs);
  return larger;
}

/**
 * The rows of the document `name` by offset, then by number. Throws `corrupt` for a number that stands in it twice, and for rows
 * that overlap where their order is not that of their numbers.
 */
export function sortedList(table: ObjectTable, name: string, prefix: string): ObjectList {
  const { length, numberAt } = table;
  let inOrder = true;
  let sorted = true;
  for (let at = 1; at < length; at += 1) {
    inOrder &&= numberAt(at) > numberAt(at - 1);
    sorted &&= compareRows(table, at - 1, at) < 0;
  }
  if (!inOrder) requireDistinct(table, name, prefix);
  if (sorted && inOrder) return table.toList(null);
  const order = Uint32Array.from({ length }, (_, at) => at);
  if (!sorted) order.sort((a, b) => compareRows(table, a, b));
  if (!inOrder) requireApart(table, order, name, prefix);
  return table.toList(order);
}

function requireApart(
  { length, numberAt, offsetAt, endAt }: ObjectTable,
  order: Uint32Array,
  name: string,
  prefix: string,
): void {
  for (let at = 1; at < length; at += 1) {
    const [before = 0, after = 0] = [order[at - 1], order[at]];
    if (endAt(before) <= offsetAt(after)) continue;
    const [first, second] = [objectKey(prefix, numberAt(before)), objectKey(prefix, numberAt(after))];
    throw corruptDocument(
      name,
      `${first} and ${second} overlap, and their order is not that of their numbers`,
    );
  }
}

function compareRows({ offsetAt, numberAt }: ObjectTable, a: number, b: number): number {
  return offsetAt(a) - offsetAt(b) || numberAt(a) - numberAt(b);
}

function requireDistinct({ length, numberAt }: ObjectTable, name: string, prefix: string): void {
  const numbers = Float64Array.from({ length }, (_, at) => numberAt(at)).toSorted();
  for (let at = 1; at < length; at += 1) {
    const number = numbers[at] ?? 0;
    if (number === numbers[at - 1]) throw namedTwice(name, objectKey(prefix, number));
  }
}

export function namedTwice(name: string, key: string): BackupError {
  return corruptDocument(name, `${key} stands in it twice`);
}
