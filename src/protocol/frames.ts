/**
 * Frames of the agent protocol's binary streams: one direction, one stream per HTTP body.
 * The prose description stands in openapi/agent-stream.md; keep both alike.
 *
 * A stream is a preamble of 8 bytes, `CDSTRM` 0x02 0x0a, then frames. All integers are little-endian.
 *
 *   offset size  field
 *        0    1  type: 1 plan, 2 data, 3 zero, 4 digests, 5 idle, 6 totals, 7 error
 *        1    1  reserved, 0
 *        2    2  reserved, 0
 *        4    4  digest count: SHA-256 digests at the head of the payload, 32 bytes each
 *        8    8  offset: first byte of the volume that the frame is about
 *       16    8  length: bytes of the volume that the frame is about
 *       24    4  payload length: bytes that follow the header
 *       28    4  CRC-32 (zlib's) of the first 28 bytes of the header and then of the digests, or, in a frame
 *                without digests, of the payload
 *
 *   plan     payload: JSON `streamPlan`; offset 0, length = length of the snapshot that is looked at
 *   data     payload: digests of the blocks, then `length` bytes; into a volume the digest count is 0
 *   zero     no payload; the bytes are zeros
 *   digests  payload: one digest for each block of the range
 *   idle     no payload; the sender is still working, offset = how far it has got
 *   totals   payload: JSON `streamTotals`; the last frame of a whole stream
 *   error    payload: JSON `streamError`; the last frame of a failed stream
 *
 * Bytes that come with their digests are not in the checksum, which took a twentieth of a full backup's processor time: whoever uses
 * them compares them with the digests, which are.
 *
 * Data, zero and digests frames do not overlap. From the agent they are sorted by offset, start on a block boundary and
 * end on one or at the end of the snapshot; into a volume they may come in any order.
 */
import { crc32 } from 'node:zlib';
import { BackupError } from '../model/errors.ts';
import { digestBytes } from '../model/digest.ts';

/** The content type of a frame stream, in both directions. */
export const streamContentType = 'application/vnd.cinder-delta.stream';

export const preamble = Buffer.from('CDSTRM\u0002\n', 'latin1');
/** Where the preamble has its version. */
const versionAt = 6;
export const headerBytes = 32;

/** No frame's payload is longer: 4 MiB of data and the digests of 512-byte blocks. */
export const maxPayloadBytes = 4 * 1024 * 1024 + 8192 * digestBytes;

/** The usual length of a data frame's data, in bytes (at least one block). */
export const dataFrameBytes = 1024 * 1024;

export const frameTypes = { plan: 1, data: 2, zero: 3, digests: 4, idle: 5, totals: 6, error: 7 } as const;
export type FrameType = keyof typeof frameTypes;

const typeNames = new Map<number, FrameType>(
  Object.entries(frameTypes).map(([name, number]) => [number, name as FrameType]),
);

export type FrameHeader = {
  readonly type: FrameType;
  readonly digestCount: number;
  readonly offset: number;
  readonly length: number;
  readonly payloadLength: number;
};

/**
 * A decoded frame. `digests` and `data` are views that the decoder overwrites when it is asked for the next frame. Of `data` beside
 * `digests` nothing has been proven: its user compares the two.
 */
export type Frame = {
  readonly type: FrameType;
  readonly offset: number;
  readonly length: number;
  /** 32 * n bytes; empty unless the frame carries digests. */
  readonly digests: Buffer;
  /** The payload after the digests: volume bytes, or JSON. */
  readonly data: Buffer;
};

/**
 * Writes a header of 32 bytes at `at`, with the checksum over it and `payload` (for data frames digests and data, contiguous), which
 * must already be whole.
 */
export function writeHeader(
  target: Buffer,
  at: number,
  frame: { type: FrameType; digestCount?: number; offset: number; length: number },
  payload: Buffer,
): void {
  target.writeUInt32LE(frameTypes[frame.type], at);
  target.writeUInt32LE(frame.digestCount ?? 0, at + 4);
  target.writeBigUInt64LE(BigInt(frame.offset), at + 8);
  target.writeBigUInt64LE(BigInt(frame.length), at + 16);
  target.writeUInt32LE(payload.length, at + 24);
  target.writeUInt32LE(checksum(target.subarray(at, at + 28), frame.digestCount ?? 0, payload), at + 28);
}

function checksum(head: Buffer, digestCount: number, payload: Buffer): number {
  const crc = crc32(head);
  const checked = digestCount === 0 ? payload : payload.subarray(0, digestCount * digestBytes);
  return checked.length === 0 ? crc : crc32(checked, crc);
}

/** One whole frame in a new buffer. */
export function encodeFrame(
  frame: { type: FrameType; digestCount?: number; offset: number; length: number },
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const out = Buffer.allocUnsafe(headerBytes + payload.length);
  payload.copy(out, headerBytes);
  writeHeader(out, 0, frame, payload);
  return out;
}

/** A frame whose payload is JSON. */
export function encodeJsonFrame(type: 'plan' | 'totals' | 'error', document: unknown, length = 0): Buffer {
  return encodeFrame({ type, offset: 0, length }, Buffer.from(JSON.stringify(document), 'utf8'));
}

function readHeader(bytes: Buffer): FrameHeader {
  const type = typeNames.get(bytes.readUInt32LE(0));
  const digestCount = bytes.readUInt32LE(4);
  const offset = Number(bytes.readBigUInt64LE(8));
  const length = Number(bytes.readBigUInt64LE(16));
  const payloadLength = bytes.readUInt32LE(24);
  if (type === undefined) throw corruptFrame(`unknown frame type ${bytes.readUInt32LE(0)}`);
  if (
    !Number.isSafeInteger(offset) ||
    !Number.isSafeInteger(length) ||
    !Number.isSafeInteger(offset + length)
  ) {
    throw corruptFrame(`offset or length of a ${type} frame is beyond 2^53`);
  }
  if (payloadLength > maxPayloadBytes) {
    throw corruptFrame(`payload of a ${type} frame is ${payloadLength} bytes, more than ${maxPayloadBytes}`);
  }
  const expected =
    type === 'data'
      ? digestCount * digestBytes + length
      : type === 'digests'
        ? digestCount * digestBytes
        : type === 'zero' || type === 'idle'
          ? 0
          : payloadLength;
  if (payloadLength !== expected || (type !== 'data' && type !== 'digests' && digestCount !== 0)) {
    throw corruptFrame(
      `payload of a ${type} frame is ${payloadLength} bytes, its header asks for ${expected}`,
    );
  }
  if ((type === 'data' || type === 'zero' || type === 'digests') && length === 0) {
    throw corruptFrame(`empty ${type} frame at offset ${offset}`);
  }
  return { type, digestCount, offset, length, payloadLength };
}

function corruptFrame(what: string): BackupError {
  return new BackupError('corrupt', `agent stream: ${what}; check the network path and the agent's version`);
}

/** What stands before and behind the version is that of every version. */
function requirePreamble(seen: Buffer): void {
  if (seen.equals(preamble)) return;
  const around = (bytes: Buffer) =>
    Buffer.concat([bytes.subarray(0, versionAt), bytes.subarray(versionAt + 1)]);
  if (!around(seen).equals(around(preamble))) {
    throw corruptFrame('it does not start with the preamble: this is not an agent');
  }
  const [version, known] = [seen.readUInt8(versionAt), preamble.readUInt8(versionAt)];
  throw new BackupError(
    'version-unsupported',
    `agent stream: the other side speaks version ${version} of the frames, this one version ${known}: run the same version of cinder-delta as service and as agent`,
  );
}

export type FrameDecoder = {
  /** Frames that became whole with `bytes`, one at a time; each must be used before the next is asked for. */
  push(bytes: Uint8Array): Generator<Frame>;
  /**
   * Leaves the bytes of the frame that was given last to whoever asks: the decoder goes on with `spare`, of any length, and returns
   * the buffer that they lie in, to be a spare one when they have been used.
   */
  exchange(spare: Buffer): Buffer;
  /** True between frames (and before the first byte of the preamble). */
  readonly atBoundary: boolean;
};

/** Room for the payload of a data frame of the usual length. */
export const payloadBufferBytes = dataFrameBytes + 64 * 1024;

/**
 * Decodes a stream that is fed in pieces of any size, into `first` as long as payloads fit. Throws `version-unsupported` for a preamble
 * of another version, and `corrupt` on anything else that is not a well-formed frame.
 */
export function createFrameDecoder(first: Buffer = Buffer.allocUnsafeSlow(payloadBufferBytes)): FrameDecoder {
  const head = Buffer.alloc(headerBytes);
  let payload = first;
  let seen = 0;
  let wanted = preamble.length;
  let stage: 'preamble' | 'header' | 'payload' = 'preamble';
  let header: FrameHeader | undefined;

  const finish = (whole: FrameHeader): Frame => {
    const body = payload.subarray(0, whole.payloadLength);
    if (checksum(head.subarray(0, 28), whole.digestCount, body) !== head.readUInt32LE(28)) {
      throw corruptFrame(`checksum of the ${whole.type} frame at offset ${whole.offset} differs`);
    }
    const cut = whole.digestCount * digestBytes;
    return {
      type: whole.type,
      offset: whole.offset,
      length: whole.length,
      digests: body.subarray(0, cut),
      data: body.subarray(cut),
    };
  };

  return {
    get atBoundary() {
      return seen === 0 && stage !== 'payload';
    },
    exchange(spare) {
      const given = payload;
      payload = spare;
      return given;
    },
    *push(bytes) {
      let at = 0;
      while (at < bytes.length) {
        const take = Math.min(wanted - seen, bytes.length - at);
        const target = stage === 'payload' ? payload : head;
        target.set(bytes.subarray(at, at + take), seen);
        at += take;
        seen += take;
        if (seen < wanted) return;
        seen = 0;
        if (stage === 'preamble') {
          requirePreamble(head.subarray(0, preamble.length));
          stage = 'header';
          wanted = headerBytes;
          continue;
        }
        if (stage === 'header') {
          header = readHeader(head);
          if (header.payloadLength > 0) {
            if (header.payloadLength > payload.length) payload = Buffer.allocUnsafeSlow(header.payloadLength);
            stage = 'payload';
            wanted = header.payloadLength;
            continue;
          }
        }
        stage = 'header';
        wanted = headerBytes;
        if (header !== undefined) yield finish(header);
      }
    },
  };
}
