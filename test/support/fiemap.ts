/** A kernel that answers FIEMAP from a list of extents. */
import type { LinuxCalls } from '../../src/agent/linux-calls.ts';

export type PhysicalExtent = {
  readonly logical: number;
  readonly physical: number;
  readonly length: number;
  readonly flags: number;
};

/** `extentsOf` is asked anew for every call, so that a file can change between two of them. */
export function fiemapCalls(extentsOf: (fd: number) => readonly PhysicalExtent[]): LinuxCalls {
  return {
    seekData: unavailable,
    seekHole: unavailable,
    punchHole: unavailable,
    discard: unavailable,
    lock: unavailable,
    willNeed: () => {},
    fiemap(fd, request) {
      const start = Number(request.readBigUInt64LE(0));
      const end = start + Number(request.readBigUInt64LE(8));
      const room = request.readUInt32LE(24);
      const found = extentsOf(fd)
        .filter(({ logical, length }) => logical + length > start && logical < end)
        .slice(0, room);
      request.writeUInt32LE(found.length, 20);
      for (const [i, extent] of found.entries()) {
        const at = 32 + i * 56;
        request.writeBigUInt64LE(BigInt(extent.logical), at);
        request.writeBigUInt64LE(BigInt(extent.physical), at + 8);
        request.writeBigUInt64LE(BigInt(extent.length), at + 16);
        request.writeUInt32LE(extent.flags, at + 40);
      }
    },
  };
}

function unavailable(): never {
  throw Object.assign(new Error('EOPNOTSUPP'), { code: 'EOPNOTSUPP' });
}
