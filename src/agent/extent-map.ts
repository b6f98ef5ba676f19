/**
 * Physical extents of a file (linux/fiemap.h), and what differs between the maps of two reflinked files.
 *
 * A request is a header of 32 bytes and room for extents of 56 bytes, native byte order:
 *   header: start u64, length u64, flags u32, mapped u32, count u32, reserved u32
 *   extent: logical u64, physical u64, length u64, reserved 16 bytes, flags u32, reserved 12 bytes
 */
import type { Extent } from '../model/extent.ts';
import type { LinuxCalls } from './linux-calls.ts';

const headerBytes = 32;
const extentBytes = 56;
/** Write dirty pages first, so that nothing is delayed or hidden in the page cache. */
const flagSync = 0x1;

const last = 0x1;
const unwritten = 0x800;
/** unknown, delayed allocation, encoded, encrypted, not aligned, inline, tail: the address proves nothing. */
const unproven = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400;

/** Mapped bytes; `shift` = physical minus logical address, or null where the address proves nothing. */
export type MappedExtent = {
  readonly offset: number;
  readonly end: number;
  readonly shift: number | null;
};

/** Extents of [from, until), sorted; what lies between them is a hole or unwritten and reads as zeros. */
export type ExtentMap = {
  readonly extents: readonly MappedExtent[];
  readonly from: number;
  readonly until: number;
};

/**
 * Maps a file from `from` on, as far as `maxExtents` reach but not beyond `end`. Throws errno errors
 * (EOPNOTSUPP and ENOTTY where the file system has no such map).
 */
export function readExtentMap(
  calls: LinuxCalls,
  fd: number,
  from: number,
  end: number,
  maxExtents: number,
): ExtentMap {
  const request = Buffer.alloc(headerBytes + maxExtents * extentBytes);
  request.writeBigUInt64LE(BigInt(from), 0);
  request.writeBigUInt64LE(BigInt(end - from), 8);
  request.writeUInt32LE(flagSync, 16);
  request.writeUInt32LE(maxExtents, 24);
  calls.fiemap(fd, request);
  return parseExtentMap(request, from, end, maxExtents);
}

/** Reads an answered request: pure. Numbers are little-endian, as on every machine that this runs on. */
export function parseExtentMap(answer: Buffer, from: number, end: number, maxExtents: number): ExtentMap {
  const mapped = answer.readUInt32LE(20);
  const extents: MappedExtent[] = [];
  let complete = mapped < maxExtents;
  let reached = from;
  for (let i = 0; i < mapped; i += 1) {
    const at = headerBytes + i * extentBytes;
    const logical = readUint64(answer, at);
    const physical = readUint64(answer, at + 8);
    const flags = answer.readUInt32LE(at + 40);
    if ((flags & last) !== 0) complete = true;
    const offset = Math.max(from, logical);
    const until = Math.min(end, logical + readUint64(answer, at + 16));
    reached = Math.max(reached, until);
    if ((flags & unwritten) !== 0 || offset >= until) continue;
    const shift = physical - logical;
    const proven = (flags & unproven) === 0 && physical > 0 && Number.isSafeInteger(physical);
    extents.push({ offset, end: until, shift: proven ? shift : null });
  }
  return { extents, from, until: complete ? end : Math.min(reached, end) };
}

/** A number from 2^53 on is rounded, and no safe integer. */
function readUint64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000;
}

/** True if both maps name the same places over [from, until). */
export function sameMap(a: ExtentMap, b: ExtentMap): boolean {
  return (
    a.until === b.until &&
    a.extents.length === b.extents.length &&
    a.extents.every((extent, i) => {
      const other = b.extents[i];
      return other?.offset === extent.offset && other.end === extent.end && other.shift === extent.shift;
    })
  );
}

/** `unsure`: both files have bytes, and their addresses prove nothing: compare the bytes. */
export type MapDifference = Extent & { readonly kind: 'data' | 'zero' | 'unsure' };

/**
 * What changed from `previous` to `current` over the range that both maps cover: data where the current file has
 * bytes elsewhere than the previous one, zeros where it has a hole and the previous one has not.
 */
export function diffExtentMaps(previous: ExtentMap, current: ExtentMap): MapDifference[] {
  const until = Math.min(previous.until, current.until);
  const changed: MapDifference[] = [];
  const add = (kind: MapDifference['kind'], offset: number, end: number) => {
    const before = changed.at(-1);
    if (before !== undefined && before.kind === kind && before.offset + before.length === offset) {
      changed[changed.length - 1] = { kind, offset: before.offset, length: end - before.offset };
    } else changed.push({ kind, offset, length: end - offset });
  };
  let p = 0;
  let c = 0;
  for (let at = current.from; at < until;) {
    while ((previous.extents[p]?.end ?? Infinity) <= at) p += 1;
    while ((current.extents[c]?.end ?? Infinity) <= at) c += 1;
    const old = covering(previous.extents[p], at);
    const now = covering(current.extents[c], at);
    const next = Math.min(until, boundary(previous.extents[p], at), boundary(current.extents[c], at));
    const kind = difference(old, now);
    if (kind !== null) add(kind, at, next);
    at = next;
  }
  return changed;
}

function difference(
  old: MappedExtent | undefined,
  now: MappedExtent | undefined,
): MapDifference['kind'] | null {
  if (now === undefined) return old === undefined ? null : 'zero';
  if (old === undefined) return 'data';
  if (old.shift === null || now.shift === null) return 'unsure';
  return old.shift === now.shift ? null : 'data';
}

function covering(extent: MappedExtent | undefined, at: number): MappedExtent | undefined {
  return extent !== undefined && extent.offset <= at ? extent : undefined;
}

/** Where the state next changes after `at`: the begin of an extent that is still ahead, or the end of this one. */
function boundary(extent: MappedExtent | undefined, at: number): number {
  if (extent === undefined) return Infinity;
  return extent.offset > at ? extent.offset : extent.end;
}
