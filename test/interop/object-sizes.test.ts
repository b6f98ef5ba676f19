/** Both object sizes that Cinder's drivers have by default, on a sparse volume larger than either. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startCinderPeer, type CinderPeer } from '../support/cinder-peer.ts';
import { startEngine, type Engine } from '../support/engine.ts';
import { createMixedChain, type Side } from './mixed-chain.ts';

const KiB = 1024;
const swiftBytes = 52_428_800;
const posixBytes = 61_035 * 32_768;
const sizeBytes = 2560 * KiB * KiB;

let peer: CinderPeer;
beforeAll(() => {
  peer = startCinderPeer();
});
afterAll(async () => {
  await peer[Symbol.asyncDispose]();
});

/** Around the edges of objects of both sizes, and at the very end. */
const edges = [0, swiftBytes - 64 * KiB, 7 * swiftBytes, posixBytes - 512, sizeBytes - 96 * KiB].map(
  (offset) => ({
    offset,
    length: 96 * KiB,
  }),
);

it.each([
  { objectBytes: swiftBytes, order: ['ours', 'cinder', 'ours'] },
  { objectBytes: swiftBytes, order: ['cinder', 'ours', 'cinder'] },
  { objectBytes: posixBytes, order: ['ours', 'cinder', 'ours'] },
  { objectBytes: posixBytes, order: ['cinder', 'ours', 'cinder'] },
] satisfies readonly { objectBytes: number; order: Side[] }[])(
  'objects of $objectBytes bytes go both ways ($order)',
  async ({ objectBytes, order }) => {
    await using engine: Engine = await startEngine({ codec: 'zstd', objectBytes });
    const volume = await engine.addVolume(sizeBytes);
    const options = { backup_file_size: objectBytes, backup_compression_algorithm: 'zstd' };
    const dirt = [...edges, { offset: 1024 * KiB * KiB, length: 512 * KiB }];
    const chain = createMixedChain({ engine, peer, volume, options, dirt });
    await volume.file.write(edges);
    for (const [turn, side] of order.entries()) {
      await volume.file.write([
        { offset: posixBytes - 32 * KiB * (turn + 1), length: 48 * KiB },
        { offset: swiftBytes * (turn + 2) - 512, length: 1024 },
      ]);
      await volume.file.zero([{ offset: turn * 8 * KiB, length: 4 * KiB }]);
      await chain.add(side);
    }
    await chain.expectNewestRestores();
    await chain.expectEveryLayerVerifies();
    expect(chain.layers).toHaveLength(order.length);
  },
);
