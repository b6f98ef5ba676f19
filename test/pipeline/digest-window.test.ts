import { describe, expect, test } from 'vitest';
import { planRestore } from '../../src/layout/chain.ts';
import type { MetadataDocument, ObjectEntry } from '../../src/layout/metadata-document.ts';
import { digestBytes } from '../../src/model/digest.ts';
import { endOf } from '../../src/model/extent.ts';
import { createDigestWindow, windowBytes } from '../../src/pipeline/digest-window.ts';
import { createRandom } from '../support/random-volume.ts';

const blockSize = 512;

/** Not a real digest: 32 bytes that name a block. */
function digestOf(block: number): Buffer {
  const digest = Buffer.alloc(digestBytes, 0x77);
  digest.writeUInt32LE(block, 0);
  return digest;
}

async function* listOf(blocks: number, runDigests = 4096): AsyncGenerator<Buffer> {
  const run = Buffer.alloc(runDigests * digestBytes);
  for (let block = 0; block < blocks; block += runDigests) {
    const count = Math.min(runDigests, blocks - block);
    for (let at = 0; at < count; at += 1) digestOf(block + at).copy(run, at * digestBytes);
    yield run.subarray(0, count * digestBytes);
    run.fill(0xdd);
  }
}

function layerOf(objects: readonly ObjectEntry[]): MetadataDocument {
  return {
    backupId: 'b',
    volumeId: 'v',
    backupName: null,
    backupDescription: null,
    createdAt: '',
    parentId: null,
    objects,
    volumeMeta: null,
    extraMetadata: null,
    delta: null,
  };
}

describe('the window', () => {
  test('gives each object its digests while it slides, in the memory that was reckoned', async () => {
    const random = createRandom();
    for (let round = 0; round < 20; round += 1) {
      const blocks = random.between(1, 60_000);
      const lengthBytes = blocks * blockSize - random.between(0, blockSize - 1);
      const entryOf = (number: number, first: number, count: number): ObjectEntry => ({
        key: `p-${number}`,
        offset: first * blockSize,
        length: Math.min(lengthBytes, (first + count) * blockSize) - first * blockSize,
        md5: '',
        codec: 'none',
      });
      const whole: ObjectEntry[] = [];
      for (let first = 0; first < blocks;) {
        const count = Math.min(blocks - first, random.between(1, 20_000));
        whole.push(entryOf(whole.length + 1, first, count));
        first += count;
      }
      const changed: ObjectEntry[] = [];
      for (let first = 0; first < blocks; first += random.between(200, 9000)) {
        changed.push(entryOf(changed.length + 1, first, Math.min(blocks - first, random.between(1, 150))));
      }
      const plan = planRestore([layerOf(whole), layerOf(changed)], lengthBytes, blockSize);
      const window = createDigestWindow(listOf(blocks, random.pick([1000, 4096])), {
        name: 'l',
        blockSize,
        lengthBytes,
      });
      const bound = windowBytes(plan, blockSize, 0);
      let blocksSeen = 0;
      for (const { segments } of plan) {
        const digests = await window.collect(segments);
        window.releaseBelow(segments[0]?.offset ?? 0);
        expect(window.heldBytes).toBeLessThanOrEqual(bound);
        const expected: number[] = [];
        for (const segment of segments) {
          for (let at = segment.offset; at < endOf(segment); at += blockSize) expected.push(at / blockSize);
        }
        blocksSeen += expected.length;
        expect(digests.equals(Buffer.concat(expected.map(digestOf)))).toBe(true);
      }
      expect(blocksSeen).toBe(blocks);
      await window.finish();
    }
  });

  test.for([99, 101])('over a list of %d digests for 100 blocks is corrupt', async (count) => {
    const window = createDigestWindow(listOf(count), { name: 'the list', blockSize, lengthBytes: 51_200 });
    await expect(window.finish()).rejects.toMatchObject({ code: 'corrupt' });
  });

  test('refuses a segment that ends inside a block', async () => {
    const window = createDigestWindow(listOf(100), { name: 'the list', blockSize, lengthBytes: 51_200 });
    await expect(window.collect([{ offset: 0, length: 700 }])).rejects.toMatchObject({ code: 'corrupt' });
    await window.close();
  });
});
