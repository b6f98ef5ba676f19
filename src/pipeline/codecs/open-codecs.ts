/** Which library does which format in this thread. */
import { deflateSync, inflateSync } from 'node:zlib';
import type { Codec } from '../../model/codec.ts';
import type { BodyCodec } from './body-codec.ts';
import { openIsal, smallBytes } from './deflate-isal.ts';
import { openLibdeflate } from './deflate-libdeflate.ts';
import { openBzip2 } from './native-bzip2.ts';
import { loadNativeLibraries, type NativeLibraries } from './native-library.ts';
import { openZstd } from './native-zstd.ts';
import { nodeDeflate, nodeZstd } from './node-zlib.ts';

/** What zlib is to favour. */
export type DeflateEffort = 'speed' | 'balanced' | 'size';

export type BodyCodecs = Readonly<Record<Exclude<Codec, 'none'>, BodyCodec>>;

/**
 * Levels of each library. Against zlib 6, which Cinder uses, on 50 MiB each of programs, libraries, documents and Python
 * sources: ISA-L 1 stores 1.04 to 1.16 times as much at about 11 times the speed, ISA-L 2 1.04 to 1.14 times, libdeflate 1
 * 1.01 to 1.08 times at 4 times the speed, libdeflate 6 0.96 to 0.99 times at 1.7 times the speed. Against zstd 3, which
 * Cinder uses, zstd 1 stores 1.09 to 1.42 times as much, zstd 2 1.04 to 1.13 times. Of bodies of 32 KiB ISA-L 2 makes 1 % less than
 * ISA-L 1, and takes an eighth longer.
 */
const levels = {
  speed: { isal: 1, smallIsal: 1, libdeflate: 1, zlib: 1, zstd: 1 },
  balanced: { isal: 2, smallIsal: 1, libdeflate: 1, zlib: 1, zstd: 2 },
  size: { isal: null, smallIsal: null, libdeflate: 6, zlib: 6, zstd: 3 },
} as const satisfies Record<DeflateEffort, unknown>;

export async function openCodecs(effort: DeflateEffort): Promise<BodyCodecs> {
  const native = await loadNativeLibraries();
  return {
    zlib: openZlib(native, effort),
    zstd: (native && openZstd(native, levels[effort].zstd)) ?? nodeZstd(levels[effort].zstd),
    bz2: (native && openBzip2(native)) ?? (await (await import('./wasm-bzip2.ts')).openWasmBzip2()),
  };
}

/** The fastest pair of libraries that this system has; each is tried against Node's zlib before it is trusted. */
function openZlib(native: NativeLibraries | undefined, effort: DeflateEffort): BodyCodec {
  const level = levels[effort];
  const node = nodeDeflate(level.zlib);
  if (native === undefined) return node;
  const isal = openIsal(native, level.isal ?? 1, level.smallIsal ?? 1);
  const libdeflate = openLibdeflate(native, level.libdeflate);
  const compressors = level.isal === null ? [libdeflate] : [isal?.deflate, libdeflate];
  const compressor = compressors.find((one) => one !== undefined && compresses(one)) ?? node;
  const decompressor =
    [libdeflate, isal?.inflate].find((one) => one !== undefined && decompresses(one)) ?? node;
  return {
    name: compressor.name,
    compress: compressor.compress,
    decompress: decompressor.decompress,
    decompressStream: node.decompressStream,
  };
}

/** Bodies of both levels that a library may use. */
const sampleBytes = [100_000, 2 * smallBytes];

function sample(lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE((at * 2_654_435_761) % 40_009, at);
  return bytes;
}

/** Whether Node's zlib reads what it makes, of every length that it treats alike. */
export function compresses(one: Pick<BodyCodec, 'compress'>): boolean {
  return sampleBytes.every((lengthBytes) => {
    const bytes = sample(lengthBytes);
    const body = Buffer.alloc(bytes.length);
    try {
      const length = one.compress(bytes, body);
      return length !== null && inflateSync(body.subarray(0, length)).equals(bytes);
    } catch {
      return false;
    }
  });
}

function decompresses(one: Pick<BodyCodec, 'decompress'>): boolean {
  return sampleBytes.every((lengthBytes) => {
    const bytes = sample(lengthBytes);
    const output = Buffer.alloc(bytes.length);
    try {
      one.decompress(deflateSync(bytes), output);
      return output.equals(bytes);
    } catch {
      return false;
    }
  });
}
