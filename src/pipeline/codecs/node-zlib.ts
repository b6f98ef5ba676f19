/** zlib and zstd by Node itself: whole bodies where the system has no library, and both formats in pieces. */
import type { Duplex } from 'node:stream';
import {
  constants,
  createInflate,
  createZstdDecompress,
  deflateSync,
  inflateSync,
  zstdCompressSync,
  zstdDecompressSync,
} from 'node:zlib';
import { BodyFault, faults, type BodyCodec } from './body-codec.ts';

const streamChunkBytes = 1024 * 1024;
const minChunkBytes = 64;

export function nodeDeflate(level: number): BodyCodec {
  return {
    name: `zlib ${level}`,
    compress: (input, output) =>
      placed(output, () =>
        deflateSync(input, {
          level,
          memLevel: 9,
          chunkSize: chunkFor(output),
          maxOutputLength: output.length,
        }),
      ),
    decompress(body, output) {
      const result = whole('zlib', output.length, () =>
        inflateSync(body, { info: true, chunkSize: chunkFor(output), maxOutputLength: output.length }),
      );
      fill('zlib', result, body, output);
    },
    decompressStream: (pieces) => streamed('zlib', pieces, createInflate({ chunkSize: streamChunkBytes })),
  };
}

export function nodeZstd(level: number): BodyCodec {
  return {
    name: `node zstd ${level}`,
    compress: (input, output) =>
      placed(output, () =>
        zstdCompressSync(input, {
          params: { [constants.ZSTD_c_compressionLevel]: level },
          pledgedSrcSize: input.length,
          chunkSize: chunkFor(output),
          maxOutputLength: output.length,
        }),
      ),
    decompress(body, output) {
      const result = whole('zstd', output.length, () =>
        zstdDecompressSync(body, { info: true, chunkSize: chunkFor(output), maxOutputLength: output.length }),
      );
      fill('zstd', result, body, output);
    },
    decompressStream: (pieces) =>
      streamed('zstd', pieces, createZstdDecompress({ chunkSize: streamChunkBytes })),
  };
}

/** One chunk that holds the whole result spares Node's joining of many; its pages are only touched as far as used. */
function chunkFor(output: Buffer): number {
  return Math.max(minChunkBytes, output.length + 1);
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
}

function placed(output: Buffer, compress: () => Buffer): number | null {
  try {
    const body = compress();
    body.copy(output);
    return body.length;
  } catch (error) {
    if (codeOf(error) === 'ERR_BUFFER_TOO_LARGE') return null;
    throw error;
  }
}

function whole(format: string, expected: number, decompress: () => unknown): unknown {
  try {
    return decompress();
  } catch (error) {
    throw faultOf(format, error, expected);
  }
}

function faultOf(format: string, error: unknown, expected: number | null): unknown {
  if (!(error instanceof Error) || error instanceof BodyFault) return error;
  const code = codeOf(error);
  if (code === 'ERR_BUFFER_TOO_LARGE' && expected !== null) return faults.long(expected);
  if (code === 'Z_BUF_ERROR') return faults.early(format);
  if (code.startsWith('Z_') || code.startsWith('ZSTD_')) return faults.damaged(format, error.message);
  return error;
}

/** Takes what the `info` option of Node's functions gives, which its types leave out. */
function fill(format: string, result: unknown, body: Buffer, output: Buffer): void {
  const { buffer, engine } = result as { buffer: Buffer; engine: { bytesWritten: number } };
  if (buffer.length !== output.length) throw faults.short(output.length, buffer.length);
  if (engine.bytesWritten < body.length) throw faults.junk(format, body.length - engine.bytesWritten);
  buffer.copy(output);
}

/** A piece is handed on and waited for before the next is asked for: its memory may be reused then. */
async function* streamed(
  format: string,
  pieces: AsyncIterable<Buffer>,
  engine: Duplex & { readonly bytesWritten: number },
): AsyncGenerator<Buffer> {
  let fed = 0;
  // A write in flight is never answered once the stream has failed.
  const closed = new Promise<void>((resolve) => engine.once('close', resolve));
  const write = (piece: Buffer) =>
    new Promise<void>((resolve) => {
      engine.write(piece, () => resolve());
    });
  const feed = async () => {
    try {
      for await (const piece of pieces) {
        fed += piece.length;
        await Promise.race([write(piece), closed]);
        if (engine.destroyed) return;
      }
      engine.end();
    } catch (error) {
      engine.destroy(error instanceof Error ? error : new Error(String(error)));
    }
  };
  engine.on('error', () => undefined);
  const feeding = feed();
  try {
    for await (const piece of engine) yield piece;
    await feeding;
    if (engine.bytesWritten < fed) throw faults.junk(format, fed - engine.bytesWritten);
  } catch (error) {
    throw faultOf(format, error, null);
  } finally {
    engine.destroy();
    await feeding;
  }
}
