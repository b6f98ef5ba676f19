/**
 * zlib streams by Intel's ISA-L (Debian: libisal2). Structures as in igzip_lib.h of ISA-L 2.30, ABI libisal.so.2.
 *
 * isal_zstream     0 next_in*   8 avail_in   12 total_in   16 next_out*  24 avail_out  28 total_out  32 hufftables*
 *                 40 level     44 level_buf_size  48 level_buf*  56 end_of_stream(2)  58 flush(2)  60 gzip_flag(2)
 *                 62 hist_bits(2)  64 internal state, less than 90 KiB
 * inflate_state    0 next_out*  8 avail_out  12 total_out  16 next_in*   24 read_in(8) 32 avail_in   36 read_in_length
 *                 40 tables    21160 block_state  21164 dict_length  21168 bfinal  21172 crc_flag  ... less than 90 KiB
 */
import type { NativeLibraries } from './native-library.ts';
import { faults, type BodyCodec } from './body-codec.ts';

const stateBytes = 256 * 1024;
const levelBufferBytes = 1024 * 1024;
const igzipZlib = 3;
const blockStateAt = 21160;
const blockFinish = 5;

/** Less than this is small: the higher levels take as long to begin as to compress it. */
export const smallBytes = 256 * 1024;

/** `level` is 0 to 3, `smallLevel` that of small bodies. Undefined where the library is absent. */
export function openIsal(
  native: NativeLibraries,
  level: number,
  smallLevel: number = level,
):
  | {
      readonly deflate: Pick<BodyCodec, 'name' | 'compress'>;
      readonly inflate: Pick<BodyCodec, 'decompress'>;
    }
  | undefined {
  const library = native.open(['libisal.so.2']);
  if (library === undefined) return undefined;
  const deflateInit: (state: Buffer) => void = library.func('void isal_deflate_init(void *stream)');
  const deflate: (state: Buffer) => number = library.func('int isal_deflate(void *stream)');
  const inflateInit: (state: Buffer) => void = library.func('void isal_inflate_init(void *state)');
  const inflate: (state: Buffer) => number = library.func('int isal_inflate(void *state)');
  const state = Buffer.alloc(stateBytes);
  const levelBuffer = Buffer.alloc(levelBufferBytes);

  return {
    deflate: {
      name: `isa-l ${level}`,
      compress(input, output) {
        deflateInit(state);
        state.writeBigUInt64LE(native.addressOf(input), 0);
        state.writeUInt32LE(input.length, 8);
        state.writeBigUInt64LE(native.addressOf(output), 16);
        state.writeUInt32LE(output.length, 24);
        state.writeUInt32LE(input.length < smallBytes ? smallLevel : level, 40);
        state.writeUInt32LE(levelBuffer.length, 44);
        state.writeBigUInt64LE(native.addressOf(levelBuffer), 48);
        state.writeUInt16LE(1, 56);
        state.writeUInt16LE(0, 58);
        state.writeUInt16LE(igzipZlib, 60);
        const result = deflate(state);
        if (result !== 0) throw new Error(`isal_deflate answers ${result}`);
        // No room left means that the end may not have been written.
        return state.readUInt32LE(24) === 0 ? null : state.readUInt32LE(28);
      },
    },
    inflate: {
      decompress(body, output) {
        inflateInit(state);
        state.writeBigUInt64LE(native.addressOf(output), 0);
        state.writeUInt32LE(output.length, 8);
        state.writeBigUInt64LE(native.addressOf(body), 16);
        state.writeUInt32LE(body.length, 32);
        state.writeUInt32LE(igzipZlib, 21172);
        const result = inflate(state);
        if (result < 0) throw faults.damaged('zlib', `isal_inflate answers ${result}`);
        const got = state.readUInt32LE(12);
        if (state.readUInt32LE(blockStateAt) !== blockFinish) {
          throw got === output.length && state.readUInt32LE(32) > 0
            ? faults.long(output.length)
            : faults.early('zlib');
        }
        if (got !== output.length) throw faults.short(output.length, got);
        const left = state.readUInt32LE(32) + Math.floor(state.readInt32LE(36) / 8);
        if (left > 0) throw faults.junk('zlib', left);
      },
    },
  };
}
