/**
 * A JSON parser that is fed in pieces and tells a handler what it meets (RFC 8259, as Python's `json` reads it
 * but for NaN and Infinity). It holds the current token only, so memory does not depend on the document.
 */
import { isUtf8 } from 'node:buffer';
import { BackupError } from '../model/errors.ts';

export type JsonScalar = string | number | boolean | null;

export type JsonHandler = {
  open(kind: 'object' | 'array'): void;
  close(): void;
  key(name: string): void;
  value(value: JsonScalar): void;
  /**
   * Asked between two elements of an array, where `piece[at]` is a comma: may consume whole elements, each with
   * the comma before it, and returns the offset after them (`at` if it wants none).
   */
  bulk?(piece: Buffer, at: number): number;
};

export type JsonParser = {
  /** Parses a piece of any size; nothing of it is kept. Throws `corrupt`. */
  push(piece: Buffer): void;
  /** Throws `corrupt` unless the document is whole. */
  end(): void;
};

export type JsonLimits = { readonly maxDepth: number; readonly maxStringBytes: number };

/** The error of a document that is not what Cinder or we wrote; `name` is that of the object. */
export function corruptDocument(name: string, what: string, cause?: unknown): BackupError {
  return new BackupError(
    'corrupt',
    `object ${name}: ${what}; it was damaged or replaced: put back the original, or delete this backup and do a full one`,
    { cause, details: { object: name } },
  );
}

const states = {
  value: 0,
  valueOrEnd: 1,
  keyOrEnd: 2,
  key: 3,
  colon: 4,
  afterValue: 5,
  string: 6,
  word: 7,
  done: 8,
} as const;
type State = (typeof states)[keyof typeof states];

const words = new Map<string, JsonScalar>([
  ['true', true],
  ['false', false],
  ['null', null],
]);
const numberPattern = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const maxWordBytes = 64;

const quote = 0x22;
const comma = 0x2c;
const backslash = 0x5c;

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

/** Bytes that a number, `true`, `false` or `null` may hold. */
function isWord(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    (byte >= 0x41 && byte <= 0x5a) ||
    byte === 0x2d ||
    byte === 0x2b ||
    byte === 0x2e
  );
}

export function createJsonParser(name: string, limits: JsonLimits, handler: JsonHandler): JsonParser {
  /** 1 for an object, 0 for an array, by depth. */
  const stack = new Uint8Array(limits.maxDepth);
  let token = Buffer.allocUnsafe(256);
  let tokenBytes = 0;
  let depth = 0;
  let state: State = states.value;
  let consumed = 0;
  let stringIsKey = false;
  let inEscape = false;
  let hasEscape = false;
  let allBits = 0;

  const fail = (what: string, at: number): BackupError =>
    corruptDocument(name, `byte ${consumed + at} is not valid JSON: ${what}`);

  const append = (piece: Buffer, start: number, end: number, maxBytes: number): void => {
    const wanted = tokenBytes + end - start;
    if (wanted > maxBytes) throw fail(`a value is longer than ${maxBytes} bytes`, start);
    if (wanted > token.length) {
      const larger = Buffer.allocUnsafe(Math.max(wanted, Math.min(maxBytes, token.length * 2)));
      token.copy(larger, 0, 0, tokenBytes);
      token = larger;
    }
    piece.copy(token, tokenBytes, start, end);
    tokenBytes = wanted;
  };

  const finishString = (raw: Buffer, at: number): string => {
    if (allBits < 0x80 && !hasEscape) return raw.toString('latin1');
    if (!isUtf8(raw)) throw fail('a string is not UTF-8', at);
    const text = raw.toString('utf8');
    if (!hasEscape) return text;
    try {
      const decoded: unknown = JSON.parse(`"${text}"`);
      if (typeof decoded === 'string') return decoded;
    } catch (error) {
      throw corruptDocument(name, `a string before byte ${consumed + at} has a bad escape`, error);
    }
    throw fail('a string has a bad escape', at);
  };

  const afterValue = (): void => {
    state = depth === 0 ? states.done : states.afterValue;
  };

  const open = (isObject: boolean, at: number): void => {
    if (depth >= limits.maxDepth) throw fail(`it nests deeper than ${limits.maxDepth} levels`, at);
    stack[depth] = isObject ? 1 : 0;
    depth += 1;
    state = isObject ? states.keyOrEnd : states.valueOrEnd;
    handler.open(isObject ? 'object' : 'array');
  };

  const close = (isObject: boolean, at: number): void => {
    if (depth === 0 || (stack[depth - 1] === 1) !== isObject) throw fail('a bracket does not match', at);
    depth -= 1;
    afterValue();
    handler.close();
  };

  const startString = (isKey: boolean): void => {
    state = states.string;
    stringIsKey = isKey;
    tokenBytes = 0;
    inEscape = false;
    hasEscape = false;
    allBits = 0;
  };

  /** Reads on in a string from `start`; returns the offset after it, or the end of the piece. */
  const takeString = (piece: Buffer, start: number): number => {
    let at = start;
    for (; at < piece.length; at += 1) {
      const byte = piece[at] ?? 0;
      if (inEscape) inEscape = false;
      else if (byte === quote) break;
      else if (byte === backslash) {
        inEscape = true;
        hasEscape = true;
      }
      if (byte < 0x20) throw fail('a string holds a control character', at);
      allBits |= byte;
    }
    const whole = at < piece.length;
    const inPiece = whole && tokenBytes === 0;
    if (!inPiece) append(piece, start, at, limits.maxStringBytes);
    else if (at - start > limits.maxStringBytes) {
      throw fail(`a string is longer than ${limits.maxStringBytes} bytes`, start);
    }
    if (!whole) return at;
    const text = finishString(inPiece ? piece.subarray(start, at) : token.subarray(0, tokenBytes), at);
    if (stringIsKey) {
      state = states.colon;
      handler.key(text);
    } else {
      afterValue();
      handler.value(text);
    }
    return at + 1;
  };

  const finishWord = (at: number): void => {
    const text = token.toString('latin1', 0, tokenBytes);
    const word = words.get(text);
    if (word !== undefined) {
      afterValue();
      handler.value(word);
      return;
    }
    const number = numberPattern.test(text) ? Number(text) : Number.NaN;
    if (!Number.isFinite(number)) throw fail(`${JSON.stringify(text)} is not a value`, at);
    afterValue();
    handler.value(number);
  };

  const takeWord = (piece: Buffer, start: number): number => {
    let at = start;
    while (at < piece.length && isWord(piece[at] ?? 0)) at += 1;
    append(piece, start, at, maxWordBytes);
    if (at < piece.length) finishWord(at);
    return at;
  };

  const startValue = (byte: number, at: number): boolean => {
    if (byte === quote) startString(false);
    else if (byte === 0x7b) open(true, at);
    else if (byte === 0x5b) open(false, at);
    else if (isWord(byte)) {
      state = states.word;
      tokenBytes = 0;
      return false;
    } else throw fail('a value is missing', at);
    return true;
  };

  /** Takes one byte of structure; false if the byte belongs to the token that has just begun. */
  const takeStructure = (byte: number, at: number): boolean => {
    if (state === states.valueOrEnd && byte === 0x5d) close(false, at);
    else if (state === states.value || state === states.valueOrEnd) return startValue(byte, at);
    else if (state === states.keyOrEnd && byte === 0x7d) close(true, at);
    else if (state === states.key || state === states.keyOrEnd) {
      if (byte !== quote) throw fail('a key is missing', at);
      startString(true);
    } else if (state === states.colon) {
      if (byte !== 0x3a) throw fail('a colon is missing', at);
      state = states.value;
    } else if (state === states.afterValue) {
      if (byte === comma) state = stack[depth - 1] === 1 ? states.key : states.value;
      else if (byte === 0x7d || byte === 0x5d) close(byte === 0x7d, at);
      else throw fail('a comma or a bracket is missing', at);
    } else throw fail('something follows the end of the document', at);
    return true;
  };

  return {
    push(piece) {
      let at = 0;
      while (at < piece.length) {
        if (state === states.string) at = takeString(piece, at);
        else if (state === states.word) at = takeWord(piece, at);
        else {
          const byte = piece[at] ?? 0;
          if (isSpace(byte)) {
            at += 1;
            continue;
          }
          if (byte === comma && state === states.afterValue && stack[depth - 1] === 0) {
            const after = handler.bulk?.(piece, at) ?? at;
            if (after > at) {
              at = after;
              continue;
            }
          }
          if (takeStructure(byte, at)) at += 1;
        }
      }
      consumed += piece.length;
    },
    end() {
      if (state === states.word && depth === 0) finishWord(0);
      if (state !== states.done)
        throw corruptDocument(name, `it ends after ${consumed} bytes, in mid-document`);
    },
  };
}
