/**
 * bz2 streams by the system's libbz2 (Debian: libbz2-1.0, which dpkg itself needs); see bzlib.h.
 *
 * bz_stream   0 next_in*  8 avail_in  12 total_in (8)  24 next_out*  32 avail_out  36 total_out (8)  48 state*
 *            56 bzalloc*  64 bzfree*  72 opaque*
 */
import type { NativeLibraries } from './native-library.ts';
import { faults, type BodyCodec } from './body-codec.ts';

/** What Python's bz2.compress uses: blocks of 900 kB. */
const level = 9;
const streamChunkBytes = 1024 * 1024;
const done = { ok: 0, streamEnd: 4, outputFull: -8 } as const;

/** Undefined where the library is absent. */
export function openBzip2(native: NativeLibraries): BodyCodec | undefined {
  const library = native.open(['libbz2.so.1.0', 'libbz2.so.1']);
  if (library === undefined) return undefined;
  const compress: (
    to: Buffer,
    room: Buffer,
    from: Buffer,
    size: number,
    level: number,
    verbosity: number,
    work: number,
  ) => number = library.func(
    'int BZ2_bzBuffToBuffCompress(void *to, void *room, void *from, uint32_t size, int level, int verbosity, int work)',
  );
  const start: (stream: Buffer, verbosity: number, small: number) => number = library.func(
    'int BZ2_bzDecompressInit(void *stream, int verbosity, int small)',
  );
  const step: (stream: Buffer) => number = library.func('int BZ2_bzDecompress(void *stream)');
  const stop: (stream: Buffer) => number = library.func('int BZ2_bzDecompressEnd(void *stream)');

  const open = (): Buffer => {
    const stream = Buffer.alloc(128);
    const result = start(stream, 0, 0);
    if (result !== done.ok) throw new Error(`BZ2_bzDecompressInit answers ${result}`);
    return stream;
  };
  const point = (stream: Buffer, at: 0 | 24, bytes: Buffer) => {
    stream.writeBigUInt64LE(native.addressOf(bytes), at);
    stream.writeUInt32LE(bytes.length, at + 8);
  };

  return {
    name: `libbz2 ${level}`,
    compress(input, output) {
      const room = Buffer.alloc(128);
      room.writeUInt32LE(output.length, 0);
      const result = compress(output, room, input, input.length, level, 0, 0);
      if (result === done.outputFull) return null;
      if (result !== done.ok) throw new Error(`BZ2_bzBuffToBuffCompress answers ${result}`);
      return room.readUInt32LE(0);
    },
    decompress(body, output) {
      const stream = open();
      try {
        point(stream, 0, body);
        point(stream, 24, output);
        let result: number = done.ok;
        for (
          let left = -1;
          result === done.ok && left !== stream.readUInt32LE(8) + stream.readUInt32LE(32);
        ) {
          left = stream.readUInt32LE(8) + stream.readUInt32LE(32);
          result = step(stream);
        }
        const unread = stream.readUInt32LE(8);
        const missing = stream.readUInt32LE(32);
        if (result < 0) throw faults.damaged('bz2', `libbz2 answers ${result}`);
        if (result !== done.streamEnd) {
          throw missing === 0 ? faults.long(output.length) : faults.early('bz2');
        }
        if (missing > 0) throw faults.short(output.length, output.length - missing);
        if (unread > 0) throw faults.junk('bz2', unread);
      } finally {
        stop(stream);
      }
    },
    async *decompressStream(pieces) {
      const stream = open();
      const chunk = Buffer.allocUnsafeSlow(streamChunkBytes);
      let result: number = done.ok;
      try {
        for await (const piece of pieces) {
          if (result === done.streamEnd && piece.length > 0) throw faults.junk('bz2', piece.length);
          point(stream, 0, piece);
          for (let full = true; full && result === done.ok;) {
            point(stream, 24, chunk);
            result = step(stream);
            if (result < 0) throw faults.damaged('bz2', `libbz2 answers ${result}`);
            const made = chunk.length - stream.readUInt32LE(32);
            full = made === chunk.length;
            if (made > 0) yield chunk.subarray(0, made);
          }
          const unread = stream.readUInt32LE(8);
          if (result === done.streamEnd && unread > 0) throw faults.junk('bz2', unread);
        }
        if (result !== done.streamEnd) throw faults.early('bz2');
      } finally {
        stop(stream);
      }
    },
  };
}
