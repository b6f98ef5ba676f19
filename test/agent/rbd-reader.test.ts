import { describe, expect, test } from 'vitest';
import type { RbdCalls } from '../../src/agent/rbd-calls.ts';
import { createRbdReader, createRing } from '../../src/agent/rbd-reader.ts';
import { createRandom, patternBytes } from '../support/random-volume.ts';

const MiB = 1024 * 1024;

/** Memory and reads as librbd has them: bytes arrive when they are waited for, not before. */
function slowImage(failAt?: number) {
  const memories: Buffer[] = [];
  const reads = new Map<bigint, { offset: number; length: number; address: bigint }>();
  let next = 1n;
  let most = 0;
  const calls: Pick<RbdCalls, 'allocate' | 'release' | 'startRead' | 'finishRead'> = {
    allocate(bytes) {
      memories.push(Buffer.alloc(bytes, 0xee));
      const memory = memories.at(-1) ?? Buffer.alloc(0);
      return { address: BigInt(memories.length) << 40n, bytes: memory };
    },
    release: () => {},
    startRead(_image, offset, length, address) {
      reads.set(next, { offset, length, address });
      most = Math.max(most, reads.size);
      return next++;
    },
    finishRead(completion) {
      const one = reads.get(completion);
      if (one === undefined) throw new Error(`${completion} is not on its way`);
      reads.delete(completion);
      if (one.offset === failAt) throw Object.assign(new Error('ETIMEDOUT: read'), { code: 'ETIMEDOUT' });
      const memory = memories[Number(one.address >> 40n) - 1];
      patternBytes(one.offset, one.length, 3).copy(
        memory ?? Buffer.alloc(0),
        Number(one.address & 0xffffffffffn),
      );
    },
  };
  return { calls, left: () => reads.size, most: () => most, allocated: () => memories.length };
}

const handle = { kind: 'rbd', image: 1n, cluster: 'ceph', fsid: 'f', thing: 'snapshot s of v' } as const;

describe('reading an image ahead', () => {
  test('gives each read its own bytes, with many of them on their way at once', () => {
    const random = createRandom();
    const image = slowImage();
    const reader = createRbdReader(image.calls);
    let offset = 0;
    const extents = Array.from({ length: 400 }, () => {
      offset += random.between(0, 100) * 512;
      const extent = { offset, length: random.between(1, random.pick([8, 64, 2048])) * 512 };
      offset += extent.length;
      return extent;
    });
    const reads = reader.start(handle, extents);
    for (const { offset: at, length } of extents) {
      const target = Buffer.alloc(length);
      reads.read(target, at);
      expect(target.equals(patternBytes(at, length, 3))).toBe(true);
    }
    reads.close();
    expect(image.left()).toBe(0);
    expect(image.most()).toBeGreaterThan(2);
  });

  test('reads a block that is larger than the usual window', () => {
    const image = slowImage();
    const reads = createRbdReader(image.calls).start(handle, [{ offset: 4 * MiB, length: 4 * MiB }]);
    const target = Buffer.alloc(4 * MiB);
    reads.read(target, 4 * MiB);
    expect(target.equals(patternBytes(4 * MiB, 4 * MiB, 3))).toBe(true);
    reads.close();
  });

  test('says which cluster does not answer, and leaves nothing on its way', () => {
    const image = slowImage(512);
    const reads = createRbdReader(image.calls).start(handle, [
      { offset: 0, length: 512 },
      { offset: 512, length: 512 },
      { offset: 1024, length: 512 },
    ]);
    reads.read(Buffer.alloc(512), 0);
    expect(() => reads.read(Buffer.alloc(512), 512)).toThrow(/cluster ceph does not answer: snapshot s of v/);
    reads.close();
    reads.close();
    expect(image.left()).toBe(0);
  });

  test('uses a window again for the next job', () => {
    const image = slowImage();
    const reader = createRbdReader(image.calls);
    for (let job = 0; job < 5; job += 1) reader.start(handle, [{ offset: 0, length: 512 }]).close();
    expect(image.allocated()).toBe(1);
  });

  test('refuses a read that was not planned', () => {
    const reads = createRbdReader(slowImage().calls).start(handle, [{ offset: 0, length: 512 }]);
    expect(() => reads.read(Buffer.alloc(512), 1024)).toThrow(/planned/);
  });
});

describe('places in a ring', () => {
  test('never overlap, and are found again once the oldest are given back', () => {
    const random = createRandom();
    const ring = createRing(1000);
    const held: { start: number; end: number }[] = [];
    let refused = 0;
    for (let i = 0; i < 5000; i += 1) {
      if (held.length > 0 && random.chance(0.45)) {
        held.shift();
        ring.give();
        continue;
      }
      const length = random.between(1, 400);
      const start = ring.take(length);
      if (start === null) {
        refused += 1;
        expect(held.length).toBeGreaterThan(0);
        continue;
      }
      const end = start + length;
      expect(end).toBeLessThanOrEqual(1000);
      expect(held.some((one) => one.start < end && start < one.end)).toBe(false);
      held.push({ start, end });
    }
    expect(refused).toBeGreaterThan(0);
  });
});
