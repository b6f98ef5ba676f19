/** All bytes of an open snapshot, read as a stream of the agent reads them: by its reader threads, in frames. */
import type { ReaderPool } from '../../src/agent/reader-pool.ts';
import type { OpenSnapshot } from '../../src/agent/volume-backend.ts';
import type { TypedExtent } from '../../src/model/extent.ts';
import { createFrameDecoder, preamble } from '../../src/protocol/frames.ts';

const blockSize = 4096;

/** `extents` lie on blocks of 4 KiB; what they do not name stays zero. All of the snapshot unless given. */
export async function readAll(
  readers: ReaderPool,
  source: Pick<OpenSnapshot, 'handle' | 'sizeBytes'>,
  extents: Iterable<TypedExtent> = [{ kind: 'data', offset: 0, length: source.sizeBytes }],
): Promise<Buffer> {
  const bytes = Buffer.alloc(source.sizeBytes);
  const decoder = createFrameDecoder();
  const take = (piece: Buffer) => {
    for (const { type, offset, data } of decoder.push(piece)) if (type === 'data') data.copy(bytes, offset);
  };
  take(preamble);
  const request = { handle: source.handle, frames: 'blocks', blockSize, extents } as const;
  for await (const piece of readers.stream(request, new AbortController().signal)) {
    take(piece.bytes);
    piece.release();
  }
  return bytes;
}
