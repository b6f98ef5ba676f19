import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { takeFrames } from '../../src/agent/frame-intake.ts';
import { createPageBuffers, type PageBuffers } from '../../src/agent/page-buffers.ts';
import type { WriteTarget } from '../../src/agent/volume-backend.ts';
import { encodeFrame, encodeJsonFrame, preamble } from '../../src/protocol/frames.ts';
import { patternBytes } from '../support/random-volume.ts';

const { signal } = new AbortController();
const longMs = 600_000;

function targetThat(write: WriteTarget['write']): WriteTarget {
  return { sizeBytes: 4096, write, zero: async () => {}, flush: async () => {}, close: async () => {} };
}

/** Knows how many buffers are out. */
function countedBuffers(): PageBuffers & { readonly out: () => number } {
  const buffers = createPageBuffers();
  let out = 0;
  return {
    out: () => out,
    take() {
      out += 1;
      return buffers.take();
    },
    give(buffer) {
      out -= 1;
      buffers.give(buffer);
    },
  };
}

const frame = (offset: number) =>
  encodeFrame({ type: 'data', offset, length: 512 }, patternBytes(offset, 512, 2));
const totals = encodeJsonFrame('totals', { data_bytes: 512, zero_bytes: 0, digests: 0, read_bytes: 0 });

async function* bodyOf(...pieces: readonly Buffer[]): AsyncGenerator<Buffer> {
  yield* pieces;
}

async function* silentAfter(...pieces: readonly Buffer[]): AsyncGenerator<Buffer> {
  yield* pieces;
  await new Promise<never>(() => {});
}

describe('a sender', () => {
  test('that falls silent is given up', async () => {
    const body = silentAfter(preamble, frame(0));
    const taking = takeFrames(
      body,
      targetThat(async () => {}),
      createPageBuffers(),
      signal,
      20,
    );
    await expect(taking).rejects.toMatchObject({
      code: 'cancelled',
      message: expect.stringMatching(/nothing has come from the sender for 0\.02 s/),
    });
  });

  test('that waits for slow writes is not silent', async () => {
    const slow = targetThat(async () => {
      await sleep(50);
    });
    const offsets = [0, 512, 1024, 1536, 2048, 2560];
    const sums = { data_bytes: 512 * offsets.length, zero_bytes: 0 };
    const end = encodeJsonFrame('totals', { ...sums, digests: 0, read_bytes: 0 });
    const pieces = bodyOf(preamble, ...offsets.map(frame), end);
    expect(await takeFrames(pieces, slow, createPageBuffers(), signal, 20)).toEqual(sums);
  });
});

const zeros = [0, 512, 1024, 1536].map((offset) => encodeFrame({ type: 'zero', offset, length: 512 }));

test.each([
  ['ends', [preamble, frame(0), totals], null],
  ['is cut', [preamble, frame(0)], null],
  ['fails in a write', [preamble, frame(0), frame(512), frame(1024), totals], 'write'],
  ['fails while a write waits for its turn', [preamble, ...zeros, frame(2048), totals], 'zero'],
])('every buffer comes back from a stream that %s', async (_title, pieces, failing) => {
  const buffers = countedBuffers();
  const fail = async (call: 'write' | 'zero') => {
    await setImmediate();
    if (failing === call) throw new Error('no room');
  };
  const target = { ...targetThat(() => fail('write')), zero: () => fail('zero') };
  await Promise.allSettled([takeFrames(bodyOf(...pieces), target, buffers, signal, longMs)]);
  expect(buffers.out()).toBe(0);
});
