import { spawnSync } from 'node:child_process';
import { inflateSync, zstdCompressSync, zstdDecompressSync, deflateSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { BodyFault, type BodyCodec } from '../../../src/pipeline/codecs/body-codec.ts';
import { openIsal, smallBytes } from '../../../src/pipeline/codecs/deflate-isal.ts';
import { openLibdeflate } from '../../../src/pipeline/codecs/deflate-libdeflate.ts';
import { openBzip2 } from '../../../src/pipeline/codecs/native-bzip2.ts';
import { loadNativeLibraries } from '../../../src/pipeline/codecs/native-library.ts';
import { openZstd } from '../../../src/pipeline/codecs/native-zstd.ts';
import { nodeDeflate, nodeZstd } from '../../../src/pipeline/codecs/node-zlib.ts';
import { compresses, openCodecs } from '../../../src/pipeline/codecs/open-codecs.ts';
import { openWasmBzip2 } from '../../../src/pipeline/codecs/wasm-bzip2.ts';
import { createRandom, patternBytes } from '../../support/random-volume.ts';

const native = await loadNativeLibraries();
const isal = native === undefined ? undefined : openIsal(native, 2, 1);
const node = nodeDeflate(1);

/** Every implementation of a format that this machine has; what one lacks is Node's. */
const implementations: readonly (readonly [string, 'zlib' | 'zstd' | 'bz2', BodyCodec | undefined])[] = [
  ['node zlib', 'zlib', node],
  ['isa-l', 'zlib', isal && { ...node, ...isal.deflate, ...isal.inflate }],
  ['libdeflate', 'zlib', native && { ...node, ...openLibdeflate(native, 1) }],
  ['node zstd', 'zstd', nodeZstd(1)],
  ['libzstd', 'zstd', native && openZstd(native, 1)],
  ['libbz2', 'bz2', native && openBzip2(native)],
  ['bzip2-wasm', 'bz2', await openWasmBzip2()],
];

function shared(bytes: Buffer): Buffer {
  const out = Buffer.from(new SharedArrayBuffer(bytes.length));
  bytes.copy(out);
  return out;
}

const hasPython = spawnSync('/usr/bin/python3', ['-c', 'import zlib, bz2']).status === 0;

/** What an independent reader makes of a body: Node for zlib and zstd, Python for bz2. */
function readByOthers(format: 'zlib' | 'zstd' | 'bz2', body: Buffer): Buffer {
  if (format === 'zlib') return inflateSync(body);
  if (format === 'zstd') return zstdDecompressSync(body);
  return python('bz2.decompress', body);
}

function python(call: string, input: Buffer): Buffer {
  const program = `import sys, zlib, bz2; sys.stdout.buffer.write(${call}(sys.stdin.buffer.read()))`;
  const { stdout, status, stderr } = spawnSync('/usr/bin/python3', ['-c', program], {
    input,
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status !== 0) throw new Error(stderr.toString());
  return stdout;
}

/** Node's zlib with the last byte of some bodies wrong. */
const breaking = (isBroken: (lengthBytes: number) => boolean): Pick<BodyCodec, 'compress'> => ({
  compress(input, output) {
    const written = node.compress(input, output);
    if (written !== null && isBroken(input.length)) output[written - 1] = 1 ^ (output[written - 1] ?? 0);
    return written;
  },
});

test('a compressor is trusted only if bodies of both of its levels are read by others', () => {
  expect(compresses(breaking(() => false))).toBe(true);
  expect(compresses(breaking((lengthBytes) => lengthBytes >= smallBytes))).toBe(false);
  expect(compresses(breaking((lengthBytes) => lengthBytes < smallBytes))).toBe(false);
});

for (const [name, format, codec] of implementations) {
  describe.skipIf(codec === undefined)(name, () => {
    const get = (): BodyCodec => {
      if (codec === undefined) throw new Error(`${name} is not installed`);
      return codec;
    };

    test('what it compresses in shared memory, it and others decompress', () => {
      const random = createRandom();
      for (const length of [1, 512, 4096, random.between(5000, 2_000_000)]) {
        const bytes = shared(patternBytes(0, length, 3));
        const room = shared(Buffer.alloc(length * 2 + 1000));
        const written = get().compress(bytes, room);
        expect(written).not.toBeNull();
        const body = room.subarray(0, written ?? 0);
        const back = shared(Buffer.alloc(length, 0xaa));
        get().decompress(body, back);
        expect(back.equals(bytes)).toBe(true);
        if (format !== 'bz2' || hasPython) expect(readByOthers(format, body).equals(bytes)).toBe(true);
      }
    });

    test('a result that does not fit is null, and the memory behind it is left alone', () => {
      const bytes = shared(createRandom().bytes(100_000));
      const out = Buffer.alloc(200_000, 0x55);
      expect(get().compress(bytes, out.subarray(0, 99_999))).toBeNull();
      expect(out.subarray(99_999).every((byte) => byte === 0x55)).toBe(true);
      const small = shared(patternBytes(0, 1_000_000, 1));
      expect(get().compress(small, out.subarray(0, 1000))).toBeNull();
      expect(out.subarray(99_999).every((byte) => byte === 0x55)).toBe(true);
    });

    test('a body that is cut, spoiled, or of another length is a fault', () => {
      const random = createRandom();
      const bytes = patternBytes(0, 300_000, 1);
      const room = Buffer.alloc(400_000);
      const body = Buffer.from(room.subarray(0, get().compress(bytes, room) ?? 0));
      const out = Buffer.alloc(300_000);
      const spoiled = Buffer.from(body);
      const at = random.between(20, body.length - 20);
      spoiled[at] = (spoiled[at] ?? 0) ^ 0xff;
      expect(() => get().decompress(body.subarray(0, body.length - 3), out)).toThrow(BodyFault);
      expect(() => get().decompress(body, out.subarray(0, 299_000))).toThrow(BodyFault);
      expect(() => get().decompress(body, Buffer.alloc(300_001))).toThrow(BodyFault);
      expect(() => get().decompress(Buffer.alloc(0), out)).toThrow(BodyFault);
      // zstd frames carry no checksum: a spoiled byte may decompress, to other bytes.
      const read = () => {
        get().decompress(spoiled, out);
        if (!out.equals(bytes)) throw new BodyFault('other bytes');
      };
      expect(read).toThrow(BodyFault);
    });

    // The package has one call for a whole body, and reads no further than its end.
    if (name === 'bzip2-wasm') return;

    test('bytes after the end are a fault, whole and in pieces', async () => {
      const bytes = patternBytes(0, 300_000, 1);
      const room = Buffer.alloc(400_000);
      const body = room.subarray(0, get().compress(bytes, room) ?? 0);
      const junk = Buffer.concat([body, Buffer.from('abc')]);
      expect(() => get().decompress(junk, Buffer.alloc(300_000))).toThrow(BodyFault);
      const twice = Buffer.concat([body, body]);
      expect(() => get().decompress(twice, Buffer.alloc(300_000))).toThrow(BodyFault);
      await expect(readPieces(get(), junk, 1000)).rejects.toThrow(BodyFault);
      await expect(readPieces(get(), twice, 1000)).rejects.toThrow(BodyFault);
    });

    test('a body in pieces whose memory is reused gives the same bytes', async () => {
      const bytes = patternBytes(0, 1_000_000, 1);
      const room = Buffer.alloc(1_500_000);
      const body = Buffer.from(room.subarray(0, get().compress(bytes, room) ?? 0));
      expect((await readPieces(get(), body, 77_777)).equals(bytes)).toBe(true);
      const short = room.subarray(0, get().compress(bytes.subarray(0, 5000), room) ?? 0);
      expect((await readPieces(get(), Buffer.from(short), 1)).equals(bytes.subarray(0, 5000))).toBe(true);
      await expect(readPieces(get(), body.subarray(0, body.length - 2), 5000)).rejects.toThrow(BodyFault);
      const spoiled = Buffer.from(body);
      spoiled.fill(0xff, 5000, 5100);
      await expect(
        readPieces(get(), spoiled, 5000).then((read) => {
          if (!read.equals(bytes)) throw new BodyFault('other bytes');
        }),
      ).rejects.toThrow(BodyFault);
    });
  });
}

/** Every piece stands in the same memory, which is overwritten when the next is asked for. */
async function readPieces(codec: BodyCodec, body: Buffer, size: number): Promise<Buffer> {
  async function* pieces() {
    const memory = Buffer.alloc(size);
    for (let at = 0; at < body.length; at += size) {
      const length = body.copy(memory, 0, at, at + size);
      yield memory.subarray(0, length);
      memory.fill(0);
    }
  }
  const read: Buffer[] = [];
  for await (const piece of codec.decompressStream(pieces())) read.push(Buffer.from(piece));
  return Buffer.concat(read);
}

describe('the choice', () => {
  test('what Python and Node wrote is read in every format', async () => {
    const codecs = await openCodecs('balanced');
    const bytes = patternBytes(0, 500_000, 9);
    const back = Buffer.alloc(bytes.length);
    const bodies = [
      ['zlib', deflateSync(bytes, { level: 6 })],
      ['zstd', zstdCompressSync(bytes)],
      ...(hasPython ? [['bz2', python('bz2.compress', bytes)] as const] : []),
    ] as const;
    for (const [format, body] of bodies) {
      back.fill(0);
      codecs[format].decompress(body, back);
      expect(back.equals(bytes)).toBe(true);
    }
  });

  test.for(['speed', 'balanced', 'size'] as const)(
    'zlib at effort %s stores at most 1.2 times what Cinder stores of text and noise',
    async (effort) => {
      const codecs = await openCodecs(effort);
      const bytes = patternBytes(0, 4_000_000, 2);
      const written = codecs.zlib.compress(bytes, Buffer.alloc(bytes.length));
      expect((written ?? bytes.length) / deflateSync(bytes, { level: 6 }).length).toBeLessThan(1.2);
    },
  );
});
