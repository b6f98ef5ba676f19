/**
 * The `objects` list of a `_metadata` document: one-key maps of a name to
 * `{"compression", "length", "md5", "offset"}`, as events of the JSON parser.
 */
import { codecOf, type Codec } from '../model/codec.ts';
import { corruptDocument, type JsonScalar } from './json-parser.ts';
import { objectKey, objectNumber } from './names.ts';
import type { ObjectRow } from './object-table.ts';

/** Depths of the document, counted before the bracket: the list, a map of one key, its description. */
const listDepth = 1;
const mapDepth = 2;
const fieldsDepth = 3;
const insideFields = 4;

type Draft = { number: number; offset: number; length: number; md5: string; codec: Codec | undefined };

export type EntryReader = {
  /** `depth` is that before the bracket. */
  open(kind: 'object' | 'array', depth: number): void;
  /** `depth` is that after the bracket. */
  close(depth: number): void;
  key(name: string, depth: number): void;
  value(value: JsonScalar, depth: number): void;
  /** Takes whole entries as Python writes them, each with the comma before it, from `piece[at]` on; returns the offset after them. */
  bulk(piece: Buffer, at: number): number;
};

/** An entry as Python writes it is shorter than this, whatever its numbers. */
const longestEntryBytes = 4096;

/** A comma and an entry as `json.dumps(sort_keys=True, indent=2)` writes it. */
function entryPattern(prefix: string): RegExp {
  const name = prefix.replaceAll(/[^\w/-]/g, String.raw`\$&`);
  return new RegExp(
    String.raw`,\n {4}\{\n {6}"${name}-(\d{5}|[1-9]\d{5,7})": \{\n {8}"compression": "(none|zlib|bz2|zstd)",\n {8}` +
      String.raw`"length": ([1-9]\d{0,14}),\n {8}"md5": "([0-9a-f]{32})",\n {8}"offset": (0|[1-9]\d{0,14})\n {6}\}\n {4}\}`,
    'y',
  );
}

const md5Pattern = /^[0-9a-fA-F]{32}$/;

/** Hands every entry on as it ends; `take` may throw. */
export function createEntryReader(name: string, prefix: string, take: (row: ObjectRow) => void): EntryReader {
  let count = 0;
  let draft: Draft = { number: 0, offset: -1, length: -1, md5: '', codec: undefined };
  let field = '';
  let seenFields = new Set<string>();
  const pattern = entryPattern(prefix);
  /** False once an entry was written otherwise: nothing more is tried of that document. */
  let isCanonical = /^[\x21-\x7e]+$/.test(prefix) && !/["\\]/.test(prefix);

  const which = () => (draft.number === 0 ? `entry ${count}` : objectKey(prefix, draft.number));
  const fail = (what: string): Error => corruptDocument(name, what);

  const takeField = (value: JsonScalar): void => {
    if (field === 'offset' || field === 'length') {
      const minimum = field === 'length' ? 1 : 0;
      if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < minimum) {
        throw fail(`${field} of ${which()} is ${shown(value)}, not a number of bytes`);
      }
      draft[field] = value;
    } else if (field === 'md5') {
      if (typeof value !== 'string' || !md5Pattern.test(value)) {
        throw fail(`md5 of ${which()} is ${shown(value)}, not 32 hex digits`);
      }
      draft.md5 = value.toLowerCase();
    } else if (field === 'compression') {
      draft.codec = typeof value === 'string' ? codecOf(value) : undefined;
      if (draft.codec === undefined) {
        throw fail(`compression of ${which()} is ${shown(value)}, not one of none, zlib, bz2 and zstd`);
      }
    }
  };

  const finishEntry = (): void => {
    const { number, offset, length, md5, codec } = draft;
    if (number === 0) throw fail(`entry ${count} of its objects is empty`);
    if (offset < 0 || length < 0 || md5 === '' || codec === undefined) {
      throw fail(`offset, length, md5 or compression of ${which()} is missing`);
    }
    if (!Number.isSafeInteger(offset + length)) throw fail(`${which()} ends beyond 2^53 bytes`);
    take({ number, offset, length, md5, codec });
    count += 1;
  };

  return {
    open(kind, depth) {
      if (depth === listDepth && kind !== 'array') throw fail('objects is not a list');
      if ((depth === mapDepth || depth === fieldsDepth) && kind !== 'object') {
        throw fail(`entry ${count} of its objects is not a map of one name to its description`);
      }
      if (depth === mapDepth) draft = { number: 0, offset: -1, length: -1, md5: '', codec: undefined };
      if (depth === fieldsDepth) seenFields = new Set();
      if (depth === insideFields && isField(field))
        throw fail(`${field} of ${which()} is not of the right type`);
    },
    close(depth) {
      if (depth === mapDepth) finishEntry();
    },
    key(text, depth) {
      if (depth === fieldsDepth) {
        if (draft.number !== 0) throw fail(`entry ${count} of its objects has more than one name`);
        const number = objectNumber(prefix, text);
        if (number === undefined) {
          throw fail(
            `${shown(text)} is not the name of an object of this backup (${prefix}-00001 and so on)`,
          );
        }
        draft.number = number;
      } else if (depth === insideFields) {
        if (seenFields.has(text)) throw fail(`${text} of ${which()} stands in it twice`);
        if (isField(text)) seenFields.add(text);
        field = text;
      }
    },
    value(value, depth) {
      if (depth === insideFields) takeField(value);
      else if (depth <= fieldsDepth) throw fail(`entry ${count} of its objects is not a map`);
    },
    bulk(piece, at) {
      if (!isCanonical) return at;
      const text = piece.toString('latin1', at);
      let done = 0;
      for (;;) {
        pattern.lastIndex = done;
        const found = pattern.exec(text);
        const number = Number(found?.[1] ?? 0);
        const codec = codecOf(found?.[2] ?? '');
        if (found === null || number === 0 || codec === undefined) break;
        take({ number, offset: Number(found[5]), length: Number(found[3]), md5: found[4] ?? '', codec });
        count += 1;
        done = pattern.lastIndex;
      }
      isCanonical = text.length - done < longestEntryBytes || text[done] !== ',';
      return at + done;
    },
  };
}

function isField(field: string): boolean {
  return field === 'offset' || field === 'length' || field === 'md5' || field === 'compression';
}

function shown(value: JsonScalar): string {
  return JSON.stringify(typeof value === 'string' ? value.slice(0, 120) : value);
}
