/** zlib streams by libdeflate (Debian: libdeflate0), ABI libdeflate.so.0; see libdeflate.h. */
import type { NativeLibraries } from './native-library.ts';
import { faults, type BodyCodec } from './body-codec.ts';

/** libdeflate_result */
const success = 0;
const shortOutput = 2;
const insufficientSpace = 3;

/** `level` is 1 to 12. Undefined where the library is absent. */
export function openLibdeflate(
  native: NativeLibraries,
  level: number,
): Omit<BodyCodec, 'decompressStream'> | undefined {
  const library = native.open(['libdeflate.so.0']);
  if (library === undefined) return undefined;
  const newCompressor: (level: number) => unknown = library.func(
    'void *libdeflate_alloc_compressor(int level)',
  );
  const newDecompressor: () => unknown = library.func('void *libdeflate_alloc_decompressor()');
  const zlibCompress: (c: unknown, input: Buffer, size: number, output: Buffer, room: number) => number =
    library.func(
      'size_t libdeflate_zlib_compress(void *c, const void *in, size_t n, void *out, size_t room)',
    );
  const zlibDecompress: (
    d: unknown,
    body: Buffer,
    size: number,
    output: Buffer,
    room: number,
    consumed: Buffer,
    produced: Buffer,
  ) => number = library.func(
    'int libdeflate_zlib_decompress_ex(void *d, const void *in, size_t n, void *out, size_t room, void *used, void *made)',
  );
  const compressor = newCompressor(level);
  const decompressor = newDecompressor();
  const consumed = Buffer.alloc(128);
  const produced = Buffer.alloc(128);

  return {
    name: `libdeflate ${level}`,
    compress(input, output) {
      const written = zlibCompress(compressor, input, input.length, output, output.length);
      return written === 0 ? null : written;
    },
    decompress(body, output) {
      const result = zlibDecompress(
        decompressor,
        body,
        body.length,
        output,
        output.length,
        consumed,
        produced,
      );
      if (result === insufficientSpace) throw faults.long(output.length);
      if (result !== success && result !== shortOutput)
        throw faults.damaged('zlib', `libdeflate answers ${result}`);
      const got = Number(produced.readBigUInt64LE(0));
      if (got !== output.length) throw faults.short(output.length, got);
      const left = body.length - Number(consumed.readBigUInt64LE(0));
      if (left > 0) throw faults.junk('zlib', left);
    },
  };
}
