/**
 * Volumes whose bytes know where they belong: every 512 bytes begin with their own offset and generation,
 * so that a block at the wrong place, of the wrong time, or of zeros can never compare equal.
 * Half of each 4 KiB is pseudo-random and half text, so they compress about as real volumes do.
 */
import { execFile } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { open, stat, truncate, type FileHandle } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { Extent } from '../../src/model/extent.ts';

export type Random = {
  readonly seed: number;
  /** 0 to 2^32 - 1. */
  next(): number;
  /** An integer from `minimum` to `maximum`, both included. */
  between(minimum: number, maximum: number): number;
  chance(probability: number): boolean;
  pick<T>(items: readonly T[]): T;
  bytes(lengthBytes: number): Buffer;
};

/** A generator of the given seed; without one, of TEST_SEED or of a fresh seed. The seed is printed. */
export function createRandom(given?: number): Random {
  const seed = given ?? Number(process.env['TEST_SEED'] ?? randomInt(2 ** 32 - 1));
  console.info(`seed ${seed} (repeat with TEST_SEED=${seed})`);
  let state = seed >>> 0;
  // mulberry32: every seed, 0 included, gives the full period of 2^32.
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const between = (minimum: number, maximum: number) =>
    minimum + Math.floor((next() / 2 ** 32) * (maximum - minimum + 1));
  return {
    seed,
    next,
    between,
    chance: (probability) => next() / 2 ** 32 < probability,
    pick(items) {
      const item = items[between(0, items.length - 1)];
      if (item === undefined) throw new Error('nothing to pick from');
      return item;
    },
    bytes(lengthBytes) {
      const out = Buffer.allocUnsafe(lengthBytes);
      for (let at = 0; at < lengthBytes; at += 1) out[at] = next();
      return out;
    },
  };
}

/** A seed that found a difference to another program comes to these when the difference is mended. */
const fixedSeeds = [1, 20_261_126, 4_009_021_117];

/**
 * The seeds of a test that compares us with another program, for `createRandom`: that program may have corners that nobody
 * has looked into. Under CI=true they are always the same, so that no change fails by what it has not touched; elsewhere
 * there is one, TEST_SEED or a fresh one: that is how differences are found.
 */
export function comparisonSeeds(): readonly number[] {
  const given = process.env['TEST_SEED'];
  if (given !== undefined) return [Number(given)];
  return process.env['CI'] === 'true' ? fixedSeeds : [randomInt(2 ** 32 - 1)];
}

const sectorBytes = 512;
const sectorWords = sectorBytes / 4;
const textBytes = 64 * 1024;
const text = makeText();

/** Words in a skewed order, as prose and configuration have: zlib takes it to about a third. */
function makeText(): Uint32Array {
  const words =
    'the volume of backup a block to and is in offset chain object snapshot store restore parent digest error host=node-17 enabled=true 2026-11-04T10:22:31Z /var/lib/cinder INFO WARNING chunk length queue reply'.split(
      ' ',
    );
  const out = Buffer.alloc(textBytes + sectorBytes);
  let state = 0x2545f491;
  for (let at = 0; at < out.length;) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const skewed = (state / 2 ** 32) ** 2;
    at += out.write(
      `${words[Math.floor(skewed * words.length)]}${state % 11 === 0 ? '\n' : ' '}`,
      at,
      'latin1',
    );
  }
  return new Uint32Array(out.buffer, out.byteOffset, out.length / 4);
}

/**
 * Fills `target` with what a volume holds at `offset` (a multiple of 512) in `generation`. The length may be any;
 * a short last sector is the beginning of a whole one.
 */
export function fillPattern(target: Buffer, offset: number, generation: number): void {
  if (offset % sectorBytes !== 0) throw new Error(`offset ${offset} is not a multiple of ${sectorBytes}`);
  const whole = target.length - (target.length % sectorBytes);
  const aligned = target.byteOffset % 4 === 0;
  const words = aligned
    ? new Uint32Array(target.buffer, target.byteOffset, whole / 4)
    : new Uint32Array(whole / 4);
  for (let at = 0; at < words.length; at += sectorWords) fillSector(words, at, offset + at * 4, generation);
  if (!aligned) Buffer.from(words.buffer, 0, whole).copy(target);
  if (whole < target.length) {
    const last = new Uint32Array(sectorWords);
    fillSector(last, 0, offset + whole, generation);
    Buffer.from(last.buffer).copy(target, whole);
  }
}

function fillSector(words: Uint32Array, at: number, offset: number, generation: number): void {
  const sector = offset / sectorBytes;
  const key = Math.imul(sector, 0x9e3779b1) ^ Math.imul(generation + 1, 0x85ebca6b);
  if (sector % 8 < 4) {
    let state = key === 0 ? 1 : key;
    for (let word = 4; word < sectorWords; word += 1) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      words[at + word] = state;
    }
  } else {
    const from = (key >>> 0) % (textBytes / 4);
    words.set(text.subarray(from, from + sectorWords - 4), at + 4);
  }
  words[at] = offset % 2 ** 32;
  words[at + 1] = Math.floor(offset / 2 ** 32);
  words[at + 2] = generation;
  words[at + 3] = 0x5ec70123;
}

/** What a volume holds at `offset` in `generation`, in a new buffer. */
export function patternBytes(offset: number, lengthBytes: number, generation: number): Buffer {
  const out = Buffer.allocUnsafeSlow(lengthBytes);
  fillPattern(out, offset, generation);
  return out;
}

/** Says which place and generation a sector claims, for messages: "offset 512 generation 3", "zeros", "other bytes". */
export function describeSector(sector: Buffer): string {
  if (sector.length >= 16 && sector.readUInt32LE(12) === 0x5ec70123) {
    const offset = sector.readUInt32LE(0) + sector.readUInt32LE(4) * 2 ** 32;
    return `the bytes of offset ${offset} generation ${sector.readUInt32LE(8)}`;
  }
  return sector.every((byte) => byte === 0) ? 'zeros' : 'other bytes';
}

/** Makes a sparse file of `sizeBytes`, and writes the extents (all of it unless given) in `generation`. */
export async function makeVolumeFile(
  path: string,
  options: { readonly sizeBytes: number; readonly generation?: number; readonly extents?: readonly Extent[] },
): Promise<void> {
  const file = await open(path, 'wx');
  try {
    await file.truncate(options.sizeBytes);
    const extents = options.extents ?? [{ offset: 0, length: options.sizeBytes }];
    for (const extent of extents) await writeExtent(file, extent, options.generation ?? 1);
  } finally {
    await file.close();
  }
}

/** Overwrites the extents (offsets are multiples of 512) of an existing volume file with the bytes of `generation`. */
export async function writePattern(
  path: string,
  extents: readonly Extent[],
  generation: number,
): Promise<void> {
  const file = await open(path, 'r+');
  try {
    for (const extent of extents) await writeExtent(file, extent, generation);
  } finally {
    await file.close();
  }
}

async function writeExtent(file: FileHandle, extent: Extent, generation: number): Promise<void> {
  const piece = Buffer.allocUnsafeSlow(Math.min(extent.length, 1024 * 1024));
  for (let done = 0; done < extent.length; done += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, extent.length - done));
    fillPattern(part, extent.offset + done, generation);
    await file.write(part, 0, part.length, extent.offset + done);
  }
}

/** Overwrites the extents with written zeros: allocated, but zero. */
export async function writeZeros(path: string, extents: readonly Extent[]): Promise<void> {
  const file = await open(path, 'r+');
  try {
    for (const extent of extents) {
      const zeros = Buffer.alloc(Math.min(extent.length, 1024 * 1024));
      for (let done = 0; done < extent.length; done += zeros.length) {
        await file.write(zeros, 0, Math.min(zeros.length, extent.length - done), extent.offset + done);
      }
    }
  } finally {
    await file.close();
  }
}

/** Turns the extents into holes, as a guest's discard does (fallocate of util-linux). */
export async function punchHoles(path: string, extents: readonly Extent[]): Promise<void> {
  for (const { offset, length } of extents) {
    await promisify(execFile)('fallocate', [
      '--punch-hole',
      '--offset',
      `${offset}`,
      '--length',
      `${length}`,
      path,
    ]);
  }
}

/** Grows a volume file by a hole; throws if it would shrink. */
export async function growFile(path: string, sizeBytes: number): Promise<void> {
  const { size } = await stat(path);
  if (sizeBytes < size) throw new Error(`${path} has ${size} bytes: it cannot grow to ${sizeBytes}`);
  await truncate(path, sizeBytes);
}

/** `count` different blocks of `blockBytes`, sorted: what a guest's small writes touch. The last block may be short. */
export function scatteredBlocks(
  random: Random,
  options: { readonly sizeBytes: number; readonly blockBytes: number; readonly count: number },
): Extent[] {
  const blocks = Math.ceil(options.sizeBytes / options.blockBytes);
  const chosen = new Set<number>();
  while (chosen.size < Math.min(options.count, blocks)) chosen.add(random.between(0, blocks - 1));
  return [...chosen]
    .toSorted((a, b) => a - b)
    .map((block) => {
      const offset = block * options.blockBytes;
      return { offset, length: Math.min(options.blockBytes, options.sizeBytes - offset) };
    });
}

/** Throws, naming the first difference, unless both files hold the same bytes and length. */
export async function expectSameBytes(pathA: string, pathB: string): Promise<void> {
  const [a, b] = [await open(pathA, 'r'), await open(pathB, 'r')];
  try {
    const sizes = [(await a.stat()).size, (await b.stat()).size];
    if (sizes[0] !== sizes[1]) {
      throw new Error(`${pathA} has ${sizes[0]} bytes, ${pathB} has ${sizes[1]}`);
    }
    const [left, right] = [Buffer.allocUnsafeSlow(1024 * 1024), Buffer.allocUnsafeSlow(1024 * 1024)];
    for (let offset = 0; ;) {
      const readLeft = await readFull(a, left, offset);
      const readRight = await readFull(b, right, offset);
      const [partLeft, partRight] = [left.subarray(0, readLeft), right.subarray(0, readRight)];
      if (!partLeft.equals(partRight)) throw new Error(difference(pathA, partLeft, pathB, partRight, offset));
      if (readLeft < left.length) return;
      offset += readLeft;
    }
  } finally {
    await a.close();
    await b.close();
  }
}

async function readFull(file: FileHandle, target: Buffer, offset: number): Promise<number> {
  let done = 0;
  while (done < target.length) {
    const { bytesRead } = await file.read(target, done, target.length - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

function difference(pathA: string, a: Buffer, pathB: string, b: Buffer, base: number): string {
  let at = 0;
  while (a[at] === b[at]) at += 1;
  const from = at - (at % sectorBytes);
  const sectorOf = (bytes: Buffer) => describeSector(bytes.subarray(from, from + sectorBytes));
  return (
    `first difference at byte ${base + at} (sector at ${base + from}): ` +
    `${pathA} has ${sectorOf(a)}, ${pathB} has ${sectorOf(b)}`
  );
}
