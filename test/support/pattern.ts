/** Bytes that tell where they belong: each 8 bytes hold their own offset and a generation. */

/** `lengthBytes` bytes of generation `generation`, as they stand at `baseOffset` (a multiple of 8). */
export function patternBytes(lengthBytes: number, generation: number, baseOffset = 0): Buffer {
  const out = Buffer.alloc(Math.ceil(lengthBytes / 8) * 8);
  for (let at = 0; at < out.length; at += 8) {
    out.writeUInt32LE((baseOffset + at) % 2 ** 32, at);
    out.writeUInt32LE((generation * 0x9e3779b1 + 0x5bd1e995) >>> 0, at + 4);
  }
  return out.subarray(0, lengthBytes);
}

/** All pieces of a body in one buffer. */
export async function collect(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of body) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

/** `bytes` in pieces of at most `pieceBytes`, all in one buffer that is overwritten for every piece. */
export async function* inRecycledPieces(bytes: Buffer, pieceBytes: number): AsyncGenerator<Buffer> {
  const shared = Buffer.alloc(pieceBytes);
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    const length = bytes.copy(shared, 0, at, at + pieceBytes);
    yield shared.subarray(0, length);
    shared.fill(0xee);
  }
}
