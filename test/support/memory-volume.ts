/** A volume in memory with snapshots, as a block source and as a restore target. Views die as soon as the contract lets them. */
import { hash } from 'node:crypto';
import { digestBytes } from '../../src/model/digest.ts';
import { endOf, splitExtents, type Extent } from '../../src/model/extent.ts';
import type { BlockSource, ChangeEvent, RestoreTarget } from '../../src/volume/block-source.ts';
import { fillPattern, type Random } from './random-volume.ts';

export type SourceOptions = {
  readonly blockSize: number;
  /** Bytes of one data event at most. */
  readonly frameBytes?: number;
  /** Changes what is sent, after its digests were made. */
  readonly lie?: (offset: number, bytes: Buffer) => void;
  /** Called before every step. */
  readonly step?: (offset: number) => void | Promise<void>;
};

export type MemoryVolume = {
  readonly bytes: Buffer;
  write(extents: readonly Extent[]): void;
  zero(extents: readonly Extent[]): void;
  grow(sizeBytes: number): void;
  /** Takes a snapshot; a source of it finds changes since any earlier one. */
  snapshot(): string;
  contentOf(snapshot: string): Buffer;
  source(snapshot: string, options: SourceOptions): BlockSource;
};

export function createMemoryVolume(sizeBytes: number): MemoryVolume {
  let bytes = Buffer.alloc(sizeBytes);
  let generation = 0;
  const snapshots = new Map<string, Buffer>();

  const contentOf = (snapshot: string): Buffer => {
    const content = snapshots.get(snapshot);
    if (content === undefined) throw new Error(`no snapshot ${snapshot}`);
    return content;
  };

  return {
    get bytes() {
      return bytes;
    },
    write(extents) {
      generation += 1;
      for (const extent of extents) {
        fillPattern(bytes.subarray(extent.offset, endOf(extent)), extent.offset, generation);
      }
    },
    zero(extents) {
      for (const extent of extents) bytes.fill(0, extent.offset, endOf(extent));
    },
    grow(newSize) {
      bytes = Buffer.concat([bytes, Buffer.alloc(newSize - bytes.length)]);
    },
    snapshot() {
      const name = `snapshot ${snapshots.size + 1}`;
      snapshots.set(name, Buffer.from(bytes));
      return name;
    },
    contentOf,
    source: (snapshot, options) => createSource(contentOf(snapshot), contentOf, options),
  };
}

function createSource(
  content: Buffer,
  contentOf: (snapshot: string) => Buffer,
  options: SourceOptions,
): BlockSource {
  const { blockSize, frameBytes = 16 * blockSize, lie, step } = options;
  const lengthBytes = content.length;
  async function* tell(
    ranges: readonly Extent[],
    kind: 'data' | 'digests',
    signal: AbortSignal,
  ): AsyncGenerator<ChangeEvent> {
    const reused = Buffer.alloc(frameBytes);
    const reusedDigests = Buffer.alloc(Math.ceil(frameBytes / blockSize) * digestBytes);
    const counted = { data_bytes: 0, zero_bytes: 0, digests: 0, read_bytes: 0 };
    for (const run of runsOf(content, ranges, blockSize)) {
      for (const { offset, length } of run.isZero ? [run] : splitExtents([run], frameBytes)) {
        await step?.(offset);
        await new Promise(setImmediate);
        signal.throwIfAborted();
        reused.fill(0xee);
        reusedDigests.fill(0xee);
        if (run.isZero) {
          counted.zero_bytes += length;
          yield { kind: 'zero', offset, length };
          continue;
        }
        const bytes = reused.subarray(0, length);
        content.copy(bytes, 0, offset, offset + length);
        const digests = reusedDigests.subarray(0, Math.ceil(length / blockSize) * digestBytes);
        for (let at = 0, to = 0; at < length; at += blockSize, to += digestBytes) {
          hash('sha256', bytes.subarray(at, at + blockSize), 'buffer').copy(digests, to);
        }
        lie?.(offset, bytes);
        counted.read_bytes += length;
        counted.digests += digests.length / digestBytes;
        if (kind === 'data') counted.data_bytes += length;
        yield kind === 'data' ? { kind, offset, length, digests, bytes } : { kind, offset, length, digests };
      }
    }
    yield { kind: 'totals', totals: counted };
  }

  const whole = [{ offset: 0, length: lengthBytes }];
  return {
    lengthBytes,
    blockSize,
    async *delta(previous, signal) {
      const ranges = previous === null ? whole : changedRanges(contentOf(previous.name), content, blockSize);
      const sum = ranges.reduce((total, { length }) => total + length, 0);
      const plan = { method: 'bytes', reason: 'compared', data_bytes: sum, zero_bytes: 0 } as const;
      yield { kind: 'plan', plan };
      yield* tell(ranges, 'data', signal);
    },
    async *digests(signal) {
      const plan = { method: 'all', reason: 'all', data_bytes: null, zero_bytes: null } as const;
      yield { kind: 'plan', plan };
      yield* tell(whole, 'digests', signal);
    },
    async *blocks(ranges, signal) {
      const plan = { method: 'named', reason: 'named', data_bytes: null, zero_bytes: null } as const;
      yield { kind: 'plan', plan };
      yield* tell(ranges, 'data', signal);
    },
  };
}

function changedRanges(before: Buffer, now: Buffer, blockSize: number): Extent[] {
  const ranges: Extent[] = [];
  for (let offset = 0; offset < now.length; offset += blockSize) {
    const block = now.subarray(offset, offset + blockSize);
    if (block.equals(before.subarray(offset, offset + blockSize))) continue;
    const last = ranges.at(-1);
    if (last !== undefined && endOf(last) === offset) {
      ranges[ranges.length - 1] = { offset: last.offset, length: last.length + block.length };
    } else ranges.push({ offset, length: block.length });
  }
  return ranges;
}

/** The ranges cut into runs of zero blocks and of others. */
function* runsOf(
  content: Buffer,
  ranges: readonly Extent[],
  blockSize: number,
): Generator<Extent & { readonly isZero: boolean }> {
  type Run = Extent & { readonly isZero: boolean };
  for (const range of ranges) {
    let held: Run | undefined;
    for (const { offset, length } of splitExtents([range], blockSize)) {
      const isZero = content.subarray(offset, offset + length).every((byte) => byte === 0);
      if (held?.isZero === isZero) held = { isZero, offset: held.offset, length: held.length + length };
      else {
        if (held !== undefined) yield held;
        held = { offset, length, isZero };
      }
    }
    if (held !== undefined) yield held;
  }
}

export type MemoryTarget = RestoreTarget & {
  readonly bytes: Buffer;
  readonly state: 'open' | 'finished' | 'aborted';
  /** Bytes written as data and as zeros. */
  readonly written: { readonly data: number; readonly zero: number };
};

/** A target that begins full of other bytes and refuses to be written twice at one place. */
export function createMemoryTarget(sizeBytes: number, random: Random): MemoryTarget {
  const bytes = Buffer.alloc(sizeBytes, random.between(1, 255));
  const taken = new Uint8Array(Math.ceil(sizeBytes / 512));
  const written = { data: 0, zero: 0 };
  let state: MemoryTarget['state'] = 'open';
  const take = (offset: number, length: number) => {
    if (state !== 'open') throw new Error(`a write at ${offset} after the target was ${state}`);
    if (offset < 0 || offset + length > sizeBytes) throw new Error(`a write beyond the end, at ${offset}`);
    for (let sector = offset / 512; sector < (offset + length) / 512; sector += 1) {
      if (taken[sector] !== 0) throw new Error(`sector ${sector} is written twice`);
      taken[sector] = 1;
    }
  };
  return {
    bytes,
    get state() {
      return state;
    },
    written,
    async writeData(offset, data) {
      take(offset, data.length);
      await new Promise(setImmediate);
      written.data += data.copy(bytes, offset);
    },
    async writeZero(offset, length) {
      take(offset, length);
      await new Promise(setImmediate);
      bytes.fill(0, offset, offset + length);
      written.zero += length;
    },
    async finish() {
      await new Promise(setImmediate);
      state = 'finished';
    },
    async abort() {
      await new Promise(setImmediate);
      state = 'aborted';
    },
  };
}
