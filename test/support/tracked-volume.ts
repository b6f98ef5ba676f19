/**
 * A volume file and what it must hold: every sector's generation, 0 for zeros. A copy of that is all that is needed to
 * check a restored volume byte for byte, without keeping copies of volumes.
 */
import { open, type FileHandle } from 'node:fs/promises';
import { endOf, type Extent } from '../../src/model/extent.ts';
import {
  describeSector,
  fillPattern,
  growFile,
  punchHoles,
  writePattern,
  writeZeros,
} from './random-volume.ts';

const sectorBytes = 512;
const pieceBytes = 1024 * 1024;

/** The generation of each sector of 512 bytes; the volume's size is a multiple of that. */
export type Content = { readonly sizeBytes: number; readonly generations: Uint32Array };

/** Extents start and end on multiples of 512. Each change is made in the file and remembered. */
export type TrackedVolume = {
  readonly path: string;
  readonly sizeBytes: number;
  /** What the volume holds now: a copy. */
  content(): Content;
  /** Writes bytes of a generation of their own. */
  write(extents: readonly Extent[]): Promise<void>;
  /** Writes zeros: allocated, but zero. */
  zero(extents: readonly Extent[]): Promise<void>;
  /** Makes holes, as a guest's discard does. */
  punch(extents: readonly Extent[]): Promise<void>;
  /** Grows by a hole. */
  grow(sizeBytes: number): Promise<void>;
};

/** Tracks an existing file of `sizeBytes` zeros. */
export function trackVolume(path: string, sizeBytes: number): TrackedVolume {
  let generations = new Uint32Array(requireSectors(sizeBytes));
  let generation = 0;

  const mark = (extents: readonly Extent[], value: number) => {
    for (const extent of extents) {
      generations.fill(value, requireSectors(extent.offset), requireSectors(endOf(extent)));
    }
  };

  return {
    path,
    get sizeBytes() {
      return generations.length * sectorBytes;
    },
    content: () => ({ sizeBytes: generations.length * sectorBytes, generations: generations.slice() }),
    async write(extents) {
      generation += 1;
      await writePattern(path, extents, generation);
      mark(extents, generation);
    },
    async zero(extents) {
      await writeZeros(path, extents);
      mark(extents, 0);
    },
    async punch(extents) {
      await punchHoles(path, extents);
      mark(extents, 0);
    },
    async grow(grownBytes) {
      await growFile(path, grownBytes);
      const grown = new Uint32Array(requireSectors(grownBytes));
      grown.set(generations);
      generations = grown;
    },
  };
}

function requireSectors(bytes: number): number {
  if (bytes % sectorBytes !== 0) throw new Error(`${bytes} is not a multiple of ${sectorBytes}`);
  return bytes / sectorBytes;
}

/**
 * Throws, naming the first difference, unless the file begins with `content`. It must have just that size, or, where
 * `mayBeLonger`, at least that size.
 */
export async function expectContent(
  path: string,
  content: Content,
  size: 'exact' | 'mayBeLonger' = 'exact',
): Promise<void> {
  const file = await open(path, 'r');
  try {
    const found = (await file.stat()).size;
    if (found < content.sizeBytes || (size === 'exact' && found !== content.sizeBytes)) {
      throw new Error(`${path} has ${found} bytes: it must have ${content.sizeBytes}`);
    }
    const [actual, expected] = [Buffer.allocUnsafeSlow(pieceBytes), Buffer.allocUnsafeSlow(pieceBytes)];
    for (let offset = 0; offset < content.sizeBytes; offset += pieceBytes) {
      const length = Math.min(pieceBytes, content.sizeBytes - offset);
      await readPiece(file, actual.subarray(0, length), offset);
      fillContent(expected.subarray(0, length), content, offset);
      if (!actual.subarray(0, length).equals(expected.subarray(0, length))) {
        throw new Error(`${path}: ${firstDifference(actual, expected, offset)}`);
      }
    }
  } finally {
    await file.close();
  }
}

async function readPiece(file: FileHandle, target: Buffer, offset: number): Promise<void> {
  const { bytesRead } = await file.read(target, 0, target.length, offset);
  if (bytesRead !== target.length)
    throw new Error(`${bytesRead} bytes at ${offset}: it should be ${target.length}`);
}

function fillContent(target: Buffer, content: Content, offset: number): void {
  const first = offset / sectorBytes;
  const count = target.length / sectorBytes;
  for (let from = 0; from < count;) {
    const generation = content.generations[first + from] ?? 0;
    let to = from + 1;
    while (to < count && content.generations[first + to] === generation) to += 1;
    const part = target.subarray(from * sectorBytes, to * sectorBytes);
    if (generation === 0) part.fill(0);
    else fillPattern(part, offset + from * sectorBytes, generation);
    from = to;
  }
}

function firstDifference(actual: Buffer, expected: Buffer, base: number): string {
  let at = 0;
  while (actual[at] === expected[at]) at += 1;
  const from = at - (at % sectorBytes);
  const sectorOf = (bytes: Buffer) => describeSector(bytes.subarray(from, from + sectorBytes));
  return `at byte ${base + at} it has ${sectorOf(actual)}, but must have ${sectorOf(expected)}`;
}
