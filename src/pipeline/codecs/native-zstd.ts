/** zstd frames by the system's libzstd (Debian: libzstd1). One-shot frames carry their content size, which Python needs. */
import type { NativeLibraries } from './native-library.ts';
import { faults, type BodyCodec } from './body-codec.ts';
import { nodeZstd } from './node-zlib.ts';

/** Undefined where the library is absent. */
export function openZstd(native: NativeLibraries, level: number): BodyCodec | undefined {
  const library = native.open(['libzstd.so.1']);
  if (library === undefined) return undefined;
  const newCompression: () => unknown = library.func('void *ZSTD_createCCtx()');
  const newDecompression: () => unknown = library.func('void *ZSTD_createDCtx()');
  const compress: (
    c: unknown,
    to: Buffer,
    room: number,
    from: Buffer,
    size: number,
    level: number,
  ) => unknown = library.func(
    'size_t ZSTD_compressCCtx(void *c, void *to, size_t room, const void *from, size_t size, int level)',
  );
  const decompress: (d: unknown, to: Buffer, room: number, from: Buffer, size: number) => unknown =
    library.func('size_t ZSTD_decompressDCtx(void *d, void *to, size_t room, const void *from, size_t size)');
  const frameSize: (from: Buffer, size: number) => unknown = library.func(
    'size_t ZSTD_findFrameCompressedSize(const void *from, size_t size)',
  );
  const isError: (result: unknown) => number = library.func('uint32_t ZSTD_isError(size_t result)');
  const errorName: (result: unknown) => string = library.func('const char *ZSTD_getErrorName(size_t result)');
  const compression = newCompression();
  const decompression = newDecompression();
  const tooSmall = 'Destination buffer is too small';

  return {
    name: `libzstd ${level}`,
    compress(input, output) {
      const result = compress(compression, output, output.length, input, input.length, level);
      if (isError(result) === 0) return Number(result);
      if (errorName(result) === tooSmall) return null;
      throw new Error(`ZSTD_compressCCtx answers "${errorName(result)}"`);
    },
    decompress(body, output) {
      const frame = frameSize(body, body.length);
      if (isError(frame) !== 0) throw faults.damaged('zstd', errorName(frame));
      const result = decompress(decompression, output, output.length, body, Number(frame));
      if (isError(result) !== 0) {
        const name = errorName(result);
        throw name === tooSmall ? faults.long(output.length) : faults.damaged('zstd', name);
      }
      if (Number(result) !== output.length) throw faults.short(output.length, Number(result));
      const left = body.length - Number(frame);
      if (left > 0) throw faults.junk('zstd', left);
    },
    decompressStream: nodeZstd(level).decompressStream,
  };
}
