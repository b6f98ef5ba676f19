/**
 * The lines of a `_sha256file` between two of its elements, as Python writes them, 72 bytes each:
 *
 *   offset size
 *        0    7  comma, line feed, 4 spaces, quote
 *        7   64  lower-case hex (upper case is read too)
 *       71    1  quote
 */
import { digestBytes } from '../model/digest.ts';

export const lineBytes = 72;
const lineHead = Buffer.from(',\n    "', 'latin1');
const hexOffset = lineHead.length;
const quote = 0x22;

/** Value of a hex digit, or 0xff. */
const nibbles = new Uint8Array(256).fill(0xff);
/** Two hex digits of a byte as they lie in memory, little-endian. */
const pairs = new Uint16Array(256);
for (let value = 0; value < 256; value += 1) {
  const text = value.toString(16).padStart(2, '0');
  pairs[value] = text.charCodeAt(0) | (text.charCodeAt(1) << 8);
  if (value < 16) {
    nibbles[value.toString(16).charCodeAt(0)] = value;
    nibbles[value.toString(16).toUpperCase().charCodeAt(0)] = value;
  }
}

/** Writes the digest of the 64 hex digits at `text[at]` to `out[to]`; false if one is not a hex digit. */
export function decodeDigest(text: Uint8Array, at: number, out: Uint8Array, to: number): boolean {
  let bad = 0;
  for (let n = 0; n < digestBytes; n += 1) {
    const high = nibbles[text[at + 2 * n] ?? 0] ?? 0xff;
    const low = nibbles[text[at + 2 * n + 1] ?? 0] ?? 0xff;
    bad |= high | low;
    out[to + n] = (high << 4) | low;
  }
  return bad < 16;
}

/** Decodes whole canonical lines from `piece[at]` on into `out` at `to`. Returns how many; stops at the first that differs. */
export function decodeLines(piece: Uint8Array, at: number, out: Uint8Array, to: number): number {
  const most = Math.min(
    Math.floor((piece.length - at) / lineBytes),
    Math.floor((out.length - to) / digestBytes),
  );
  let line = at;
  for (let count = 0; count < most; count += 1, line += lineBytes) {
    for (let n = 0; n < hexOffset; n += 1) if (piece[line + n] !== lineHead[n]) return count;
    if (piece[line + lineBytes - 1] !== quote) return count;
    if (!decodeDigest(piece, line + hexOffset, out, to + count * digestBytes)) return count;
  }
  return most;
}

/** A buffer of lines that is filled again and again. */
export type LineBuffer = {
  readonly capacity: number;
  /** Writes the digests of `digests` from number `from` on as lines number `line` and following. */
  write(line: number, digests: Buffer, from: number, count: number): void;
  /** The first `lines` lines. */
  text(lines: number): Buffer;
};

export function createLineBuffer(capacity: number): LineBuffer {
  // One byte in front, so that the hex digits lie on even addresses and are written in pairs.
  const memory = new ArrayBuffer(capacity * lineBytes + 2);
  const bytes = Buffer.from(memory, 1, capacity * lineBytes);
  const units = new Uint16Array(memory);
  for (let line = 0; line < capacity; line += 1) {
    lineHead.copy(bytes, line * lineBytes);
    bytes[line * lineBytes + lineBytes - 1] = quote;
  }
  return {
    capacity,
    write(line, digests, from, count) {
      let source = from * digestBytes;
      for (let n = 0; n < count; n += 1) {
        let unit = ((line + n) * lineBytes + hexOffset + 1) / 2;
        for (const end = source + digestBytes; source < end; source += 1, unit += 1) {
          units[unit] = pairs[digests[source] ?? 0] ?? 0;
        }
      }
    },
    text: (lines) => bytes.subarray(0, lines * lineBytes),
  };
}
