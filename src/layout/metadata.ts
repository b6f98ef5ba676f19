/**
 * The `_metadata` document: written and read as a stream. Reading a backup of a million objects costs a table of them
 * (decodeMetadata) or a bit for each (surveyMetadata), and never the text.
 * Followed: `_write_metadata`, `_read_metadata` and `_restore_v1` of cinder/backup/chunkeddriver.py.
 */
import { BackupError } from '../model/errors.ts';
import { decodeDeltaRecord, encodeDeltaRecord } from './delta-record.ts';
import { corruptDocument, createJsonParser, type JsonHandler, type JsonScalar } from './json-parser.ts';
import { createJsonBuilder, type JsonBuilder } from './json-value.ts';
import type { MetadataDocument, MetadataHead } from './metadata-document.ts';
import { objectKey } from './names.ts';
import { createNumberSet, greatestNumber, type NumberSet } from './number-set.ts';
import { createEntryReader } from './object-entries.ts';
import { createObjectTable, namedTwice, sortedList, type ObjectRow } from './object-table.ts';
import { jsonText, pythonJson, pythonString } from './python-json.ts';
import { layoutVersion } from './sha256-file.ts';

/**
 * Objects of one backup that are read at most, with 41 bytes of memory each: 25 TiB of data in objects of 25 MiB as they are made
 * here, 50 TiB of zeros, or of anything that Cinder made, in objects of 50 MiB.
 */
export const maxObjects = 2 ** 20;
/** Bytes of a document that are read at most: `maxObjects` entries as Python writes them, and 64 MiB for the rest. */
export const maxMetadataBytes = maxObjects * 512 + 64 * 1024 * 1024;

/** `volume_meta` is one string: Glance properties of 64 KiB each, escaped, make it the longest. */
const maxStringBytes = 16 * 1024 * 1024;
const maxHeadChars = 4096;
const maxExtraNodes = 100_000;
const pieceChars = 64 * 1024;
const stepBytes = 256 * 1024;

/** The text of the document in pieces of about 64 KiB, byte for byte as Python writes it. */
export function* encodeMetadata(document: MetadataDocument): Generator<Buffer> {
  yield Buffer.from(
    `{\n  "backup_description": ${jsonText(document.backupDescription)},\n` +
      `  "backup_id": ${jsonText(document.backupId)},\n  "backup_name": ${jsonText(document.backupName)},\n` +
      (document.delta === null
        ? ''
        : `  "cinder_delta": ${pythonJson(encodeDeltaRecord(document.delta), 1)},\n`) +
      `  "created_at": ${jsonText(document.createdAt)},\n` +
      (isTruthy(document.extraMetadata)
        ? `  "extra_metadata": ${pythonJson(document.extraMetadata, 1)},\n`
        : ''),
  );
  let piece = '  "objects": [';
  let separator = '\n';
  for (const { key, codec, length, md5, offset } of document.objects) {
    piece +=
      `${separator}    {\n      ${pythonString(key)}: {\n        "compression": "${codec}",\n` +
      `        "length": ${length},\n        "md5": "${md5}",\n        "offset": ${offset}\n      }\n    }`;
    separator = ',\n';
    if (piece.length >= pieceChars) {
      yield Buffer.from(piece);
      piece = '';
    }
  }
  piece += document.objects.length === 0 ? '],\n' : '\n  ],\n';
  yield Buffer.from(
    `${piece}  "parent_id": ${jsonText(document.parentId)},\n  "version": ${jsonText(layoutVersion)},\n` +
      `  "volume_id": ${jsonText(document.volumeId)},\n  "volume_meta": ${jsonText(document.volumeMeta)}\n}`,
  );
}

/** Python leaves `extra_metadata` out when it is false in its sense. */
function isTruthy(value: unknown): boolean {
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

/**
 * Reads a document whose object is called `name` and whose backup has the prefix `prefix`. Unknown keys are passed over. Objects
 * come sorted by offset. `takeRoom` is called for each before it is kept. Throws `corrupt` for anything that is not a whole,
 * consistent document, `limit-exceeded` for one beyond `maxMetadataBytes` or `maxObjects`, `version-unsupported`, and what
 * `body` and `takeRoom` throw.
 */
export async function decodeMetadata(
  body: AsyncIterable<Buffer>,
  name: string,
  prefix: string,
  takeRoom: () => void = () => undefined,
): Promise<MetadataDocument> {
  const table = createObjectTable(prefix, takeRoom);
  const head = await readDocument(body, name, prefix, (row) => {
    if (table.length >= maxObjects) throw tooLarge(name, `${maxObjects} objects`);
    table.push(row);
  });
  return { ...head, objects: sortedList(table, name, prefix) };
}

/** A document whose objects were read and forgotten. */
export type MetadataSurvey = {
  readonly head: MetadataHead;
  readonly numbers: NumberSet;
  readonly objectCount: number;
  /** Where the last byte of any object ends. */
  readonly endBytes: number;
};

/** The same with a bit of memory for each object. Throws `limit-exceeded` also for objects that do not stand in order. */
export async function surveyMetadata(
  body: AsyncIterable<Buffer>,
  name: string,
  prefix: string,
): Promise<MetadataSurvey> {
  const numbers = createNumberSet(greatestNumber);
  let endBytes = 0;
  let previous = 0;
  let inOrder = true;
  let overlap = false;
  const head = await readDocument(body, name, prefix, (row) => {
    const { number, offset, length } = row;
    if (numbers.size >= maxObjects) throw tooLarge(name, `${maxObjects} objects`);
    if (number > greatestNumber) throw tooLarge(name, `${greatestNumber} numbers of objects`);
    if (!numbers.add(number)) throw namedTwice(name, objectKey(prefix, number));
    inOrder &&= number > previous;
    overlap ||= offset < endBytes;
    previous = number;
    endBytes = Math.max(endBytes, offset + length);
  });
  if (!inOrder && overlap) {
    throw new BackupError(
      'limit-exceeded',
      `object ${name} does not list its objects in order: only lists in order are checked without holding them`,
    );
  }
  return { head, numbers, objectCount: numbers.size, endBytes };
}

/** Parses a document; every object goes to `take`. */
async function readDocument(
  body: AsyncIterable<Buffer>,
  name: string,
  prefix: string,
  take: (row: ObjectRow) => void,
): Promise<MetadataHead> {
  const collector = createCollector(name, prefix, take);
  const parser = createJsonParser(name, { maxDepth: 64, maxStringBytes }, collector.handler);
  let bytes = 0;
  for await (const piece of body) {
    bytes += piece.length;
    if (bytes > maxMetadataBytes) throw tooLarge(name, `${maxMetadataBytes} bytes`);
    for (let at = 0; at < piece.length; at += stepBytes) parser.push(piece.subarray(at, at + stepBytes));
  }
  parser.end();
  return collector.finish();
}

function tooLarge(name: string, what: string): BackupError {
  return new BackupError(
    'limit-exceeded',
    `object ${name} is larger than ${what}, which is the most that is read of a backup's metadata; restore this backup with Cinder's own driver`,
  );
}

/** Keys whose value is one string or null, and may be absent unless they are in `required`. */
const textKeys = ['backup_id', 'volume_id', 'backup_name', 'backup_description', 'created_at', 'parent_id'];
const knownKeys = new Set([
  ...textKeys,
  'version',
  'objects',
  'volume_meta',
  'extra_metadata',
  'cinder_delta',
]);
const required = ['version', 'backup_id', 'volume_id', 'objects'];

type Collector = { readonly handler: JsonHandler; finish(): MetadataHead };

function createCollector(name: string, prefix: string, take: (row: ObjectRow) => void): Collector {
  const texts = new Map<string, string | null>();
  const values = new Map<string, unknown>();
  const seen = new Set<string>();
  const entries = createEntryReader(name, prefix, take);
  let builder: JsonBuilder | undefined;
  let depth = 0;
  let key = '';

  const fail = (what: string): BackupError => corruptDocument(name, what);

  const scalar = (value: JsonScalar): void => {
    if (!knownKeys.has(key)) return;
    if (key === 'version') {
      if (value === layoutVersion) return;
      throw new BackupError(
        'version-unsupported',
        `object ${name} has version ${JSON.stringify(value)}: only ${layoutVersion} can be read`,
      );
    }
    if (key === 'objects') throw fail('objects is not a list');
    if (key === 'extra_metadata' || key === 'cinder_delta') {
      values.set(key, value);
      return;
    }
    if (typeof value !== 'string' && value !== null) throw fail(`${key} is not a string`);
    if (key !== 'volume_meta' && value !== null && value.length > maxHeadChars) {
      throw fail(`${key} is longer than ${maxHeadChars} characters`);
    }
    texts.set(key, value);
  };

  const openInner = (kind: 'object' | 'array'): void => {
    if (key === 'extra_metadata' || key === 'cinder_delta') {
      builder ??= createJsonBuilder(maxExtraNodes, maxStringBytes, () =>
        tooLarge(name, `${maxExtraNodes} values in ${key}`),
      );
      builder.open(kind);
    } else if (key === 'objects') entries.open(kind, depth);
    else if (depth === 1 && knownKeys.has(key)) throw fail(`${key} is not a string`);
  };

  const handler: JsonHandler = {
    open(kind) {
      if (depth > 0) openInner(kind);
      else if (kind !== 'object') throw fail('it is not a JSON object');
      depth += 1;
    },
    close() {
      depth -= 1;
      if (builder !== undefined) {
        builder.close();
        if (depth > 1) return;
        values.set(key, builder.result);
        builder = undefined;
      } else if (key === 'objects' && depth > 0) entries.close(depth);
    },
    key(text) {
      if (builder !== undefined) builder.key(text);
      else if (depth > 1) {
        if (key === 'objects') entries.key(text, depth);
      } else {
        if (knownKeys.has(text) && seen.has(text)) throw fail(`${text} stands in it twice`);
        if (knownKeys.has(text)) seen.add(text);
        key = text;
      }
    },
    value(value) {
      if (depth === 0) throw fail('it is not a JSON object');
      if (builder !== undefined) builder.value(value);
      else if (depth === 1) scalar(value);
      else if (key === 'objects') entries.value(value, depth);
    },
    bulk: (piece, at) => (key === 'objects' && depth === 2 ? entries.bulk(piece, at) : at),
  };

  return {
    handler,
    finish() {
      for (const field of required) if (!seen.has(field)) throw fail(`${field} is missing`);
      const id = (field: string): string => {
        const value = texts.get(field);
        if (value === undefined || value === null || value === '') throw fail(`${field} is empty`);
        return value;
      };
      return {
        backupId: id('backup_id'),
        volumeId: id('volume_id'),
        backupName: texts.get('backup_name') ?? null,
        backupDescription: texts.get('backup_description') ?? null,
        createdAt: texts.get('created_at') ?? '',
        parentId: texts.get('parent_id') ?? null,
        volumeMeta: texts.get('volume_meta') ?? null,
        extraMetadata: values.get('extra_metadata') ?? null,
        delta: decodeDeltaRecord(values.get('cinder_delta')),
      };
    },
  };
}
