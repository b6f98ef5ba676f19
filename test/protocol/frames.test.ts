import * as fc from 'fast-check';
import { hash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import {
  createFrameDecoder,
  encodeFrame,
  encodeJsonFrame,
  headerBytes,
  maxPayloadBytes,
  preamble,
  type Frame,
  type FrameDecoder,
} from '../../src/protocol/frames.ts';
import { patternBytes } from '../support/random-volume.ts';

type Seen = Pick<Frame, 'type' | 'offset' | 'length'> & { digests: string; data: string };

function see({ type, offset, length, digests, data }: Frame): Seen {
  return { type, offset, length, digests: digests.toString('hex'), data: data.toString('hex') };
}

function decode(...pieces: readonly Uint8Array[]): { seen: Seen[]; decoder: FrameDecoder } {
  const decoder = createFrameDecoder();
  const seen: Seen[] = [];
  for (const piece of pieces) for (const frame of decoder.push(piece)) seen.push(see(frame));
  return { seen, decoder };
}

/** Whether the data of a frame of one block is what its digest says; so is everything without digests. */
function hasItsDigest({ digests: said, data, type }: Seen): boolean {
  return type !== 'data' || said === '' || hash('sha256', Buffer.from(data, 'hex'), 'hex') === said;
}

/** Where the preamble has its version. */
const versionAt = 6;

const block = patternBytes(1024, 700, 3);
const digest = hash('sha256', block, 'buffer');
const digests = Buffer.concat([digest, hash('sha256', digest, 'buffer')]);

const frames = [
  encodeJsonFrame('plan', { method: 'extents' }, 4096),
  encodeFrame({ type: 'zero', offset: 0, length: 1024 }),
  encodeFrame({ type: 'data', digestCount: 1, offset: 1024, length: 700 }, Buffer.concat([digest, block])),
  encodeFrame({ type: 'idle', offset: 1724, length: 0 }),
  encodeFrame({ type: 'digests', digestCount: 2, offset: 2048, length: 1024 }, digests),
  encodeFrame({ type: 'data', offset: 2 ** 52, length: 5 }, Buffer.from('hello')),
  encodeJsonFrame('totals', { data_bytes: 700 }),
];
const stream = Buffer.concat([preamble, ...frames]);

const expected: Seen[] = [
  {
    type: 'plan',
    offset: 0,
    length: 4096,
    digests: '',
    data: Buffer.from('{"method":"extents"}').toString('hex'),
  },
  { type: 'zero', offset: 0, length: 1024, digests: '', data: '' },
  { type: 'data', offset: 1024, length: 700, digests: digest.toString('hex'), data: block.toString('hex') },
  { type: 'idle', offset: 1724, length: 0, digests: '', data: '' },
  { type: 'digests', offset: 2048, length: 1024, digests: digests.toString('hex'), data: '' },
  { type: 'data', offset: 2 ** 52, length: 5, digests: '', data: Buffer.from('hello').toString('hex') },
  {
    type: 'totals',
    offset: 0,
    length: 0,
    digests: '',
    data: Buffer.from('{"data_bytes":700}').toString('hex'),
  },
];

/** A header whose checksum is right, whatever its fields say. */
function forge(fields: {
  type: number;
  digestCount?: number;
  offset?: bigint;
  length?: bigint;
  payload?: Buffer;
  payloadLength?: number;
}): Buffer {
  const payload = fields.payload ?? Buffer.alloc(0);
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32LE(fields.type, 0);
  header.writeUInt32LE(fields.digestCount ?? 0, 4);
  header.writeBigUInt64LE(fields.offset ?? 0n, 8);
  header.writeBigUInt64LE(fields.length ?? 0n, 16);
  header.writeUInt32LE(fields.payloadLength ?? payload.length, 24);
  const checked = payload.subarray(0, (fields.digestCount ?? 0) * 32 || payload.length);
  header.writeUInt32LE(crc32(checked, crc32(header.subarray(0, 28))), 28);
  return Buffer.concat([preamble, header, payload]);
}

describe('frame encoding', () => {
  test('lays out a header as the description says', () => {
    const frame = encodeFrame(
      { type: 'data', digestCount: 1, offset: 1024, length: 700 },
      Buffer.concat([digest, block]),
    );
    expect(frame.subarray(0, 28).toString('hex')).toBe(
      ['02000000', '01000000', '0004000000000000', 'bc02000000000000', 'dc020000'].join(''),
    );
    expect(frame.readUInt32LE(28)).toBe(crc32(Buffer.concat([frame.subarray(0, 28), digest])));
    expect(frame.length).toBe(32 + 32 + 700);
  });

  test('begins a stream with the preamble', () => {
    expect(preamble.toString('hex')).toBe('43445354524d020a');
  });
});

describe('frame decoding', () => {
  test('gives back every frame of a whole stream', () => {
    const { seen, decoder } = decode(stream);
    expect(seen).toEqual(expected);
    expect(decoder.atBoundary).toBe(true);
  });

  test('gives the same frames at every split point', () => {
    for (let at = 0; at <= stream.length; at += 1) {
      expect(decode(stream.subarray(0, at), stream.subarray(at)).seen).toEqual(expected);
    }
  });

  test('gives the same frames in pieces of any sizes', () => {
    expect(decode(...Array.from(stream, (byte) => Uint8Array.of(byte))).seen).toEqual(expected);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 30, maxLength: 200 }), (sizes) => {
        const pieces: Buffer[] = [];
        let at = 0;
        for (const size of sizes) {
          pieces.push(stream.subarray(at, at + size));
          at += size;
        }
        pieces.push(stream.subarray(at));
        expect(decode(...pieces).seen).toEqual(expected);
      }),
      { numRuns: 50 },
    );
  });

  test('is at a boundary after whole frames only, at every truncation', () => {
    const ends = new Set([0]);
    let end = preamble.length;
    ends.add(end);
    for (const frame of frames) ends.add((end += frame.length));
    for (let at = 0; at <= stream.length; at += 1) {
      const { seen, decoder } = decode(stream.subarray(0, at));
      expect(decoder.atBoundary, `after ${at} bytes`).toBe(ends.has(at));
      expect(seen).toEqual(expected.slice(0, seen.length));
      expect(seen.some(({ type }) => type === 'totals')).toBe(at === stream.length);
    }
  });

  test('leaves no flipped byte that neither it nor a digest notices', () => {
    for (let at = 0; at < stream.length; at += 1) {
      const damaged = Buffer.from(stream);
      damaged[at] = (damaged[at] ?? 0) ^ (1 << (at % 8));
      let whole = false;
      try {
        const { decoder, seen } = decode(damaged);
        const matches = seen.every(hasItsDigest);
        whole = decoder.atBoundary && seen.length === expected.length && matches;
      } catch (error) {
        const code = at === versionAt ? 'version-unsupported' : 'corrupt';
        expect(error).toMatchObject({ code, retryable: false });
      }
      expect(whole, `byte ${at}`).toBe(false);
    }
  });

  test('names both versions where the preamble is that of another one', () => {
    const other = Buffer.from(preamble);
    other[versionAt] = 1;
    expect(() => decode(other)).toThrow(/version 1 of the frames, this one version 2: run the same version/);
  });

  test('refuses a stream without the preamble at once', () => {
    expect(() => decode(Buffer.from('HTTP/1.1 200 OK\r\n'))).toThrow(/preamble/);
  });

  test.each([
    ['an unknown type', { type: 9 }],
    ['a type with reserved bits', { type: 0x0100_0003, length: 5n }],
    ['an offset beyond 2^53', { type: 3, offset: 2n ** 60n, length: 1n }],
    ['an end beyond 2^53', { type: 3, offset: 2n ** 53n - 2n, length: 2n }],
    ['a payload that is too long', { type: 1, payloadLength: maxPayloadBytes + 1 }],
    ['data without its bytes', { type: 2, length: 10n }],
    [
      'data with fewer digests than it counts',
      { type: 2, digestCount: 2, length: 1n, payload: Buffer.alloc(33) },
    ],
    ['digests that are cut', { type: 4, digestCount: 2, length: 1024n, payload: Buffer.alloc(63) }],
    ['zeros with a payload', { type: 3, length: 4n, payload: Buffer.alloc(4) }],
    ['zeros with digests', { type: 3, digestCount: 1, length: 4n }],
    ['idle with a payload', { type: 5, payload: Buffer.alloc(1) }],
    ['a plan with digests', { type: 1, digestCount: 1, payload: Buffer.alloc(32) }],
    ['empty data', { type: 2 }],
    ['empty zeros', { type: 3 }],
    ['empty digests', { type: 4 }],
  ])('refuses %s although the checksum is right', (_title, fields) => {
    expect(() => decode(forge(fields))).toThrow(expect.objectContaining({ code: 'corrupt' }));
  });

  test('does not allocate for a payload before its header is found good', () => {
    const before = process.memoryUsage().arrayBuffers;
    expect(() => decode(forge({ type: 1, payloadLength: 2 ** 32 - 1 }))).toThrow(/more than/);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 * 1024 * 1024);
  });

  test('leaves the bytes of a frame alone when they were exchanged for a spare buffer', () => {
    const decoder = createFrameDecoder();
    const bodies = [1, 2, 3].map((seed) => patternBytes(seed * 5120, 3000 * seed, seed));
    const all = bodies.map((data, n) =>
      encodeFrame({ type: 'data', offset: n * 16384, length: data.length }, data),
    );
    const kept: Buffer[] = [];
    const buffers = new Set<Buffer>();
    for (const { data } of decoder.push(Buffer.concat([preamble, ...all]))) {
      kept.push(data);
      buffers.add(decoder.exchange(Buffer.alloc(10)));
    }
    expect(kept.map((data, n) => data.equals(bodies[n] ?? Buffer.alloc(0)))).toEqual([true, true, true]);
    expect(buffers.size).toBe(3);
  });

  test('takes data of 4 MiB in blocks of 512 bytes', () => {
    const length = 4 * 1024 * 1024;
    const payload = Buffer.concat([Buffer.alloc(8192 * 32, 7), patternBytes(0, length, 1)]);
    const frame = encodeFrame({ type: 'data', digestCount: 8192, offset: 0, length }, payload);
    const decoder = createFrameDecoder();
    const found = [...decoder.push(Buffer.concat([preamble, frame]))];
    expect(found[0]?.data.equals(payload.subarray(8192 * 32))).toBe(true);
  });
});
