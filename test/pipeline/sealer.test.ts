import { hash } from 'node:crypto';
import { inflateSync, zstdDecompressSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startSealThreads } from '../../src/pipeline/seal-threads.ts';
import { createSealer, type SealJob, type Sealer } from '../../src/pipeline/sealer.ts';
import { createRandom, patternBytes } from '../support/random-volume.ts';

const blockSize = 4096;
let sealer: Sealer;

beforeAll(async () => {
  sealer = await createSealer({ threads: 2 });
});
afterAll(() => sealer.close());

function digestsOf(bytes: Buffer): Buffer {
  const digests: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += blockSize) {
    digests.push(hash('sha256', bytes.subarray(at, at + blockSize), 'buffer'));
  }
  return Buffer.concat(digests);
}

/** A slab of objects one behind the other. */
function jobOf(parts: readonly Buffer[], codec: SealJob['codec']): SealJob {
  const total = parts.reduce((sum, { length }) => sum + length, 0);
  const slab = new SharedArrayBuffer(total);
  const objects = [];
  let start = 0;
  for (const part of parts) {
    part.copy(Buffer.from(slab), start);
    objects.push({ start, length: part.length, offset: 1_000_000 * blockSize + start });
    start += part.length;
  }
  const digests = Buffer.concat(parts.map(digestsOf));
  return {
    codec,
    blockSize,
    slab,
    out: codec === 'none' ? null : new SharedArrayBuffer(total),
    objects,
    digests,
  };
}

describe('sealing', () => {
  test('several objects of a slab come back in order, each with its MD5 and a body of its own', async () => {
    const parts = [
      patternBytes(0, 40_960, 1),
      patternBytes(409_600, 4096, 2),
      patternBytes(819_200, 10_000, 3),
    ];
    const sealed = await sealer.seal(jobOf(parts, 'zlib'));
    expect(sealed.map(({ codec }) => codec)).toEqual(['zlib', 'zlib', 'zlib']);
    expect(sealed.map(({ body }) => inflateSync(body))).toEqual(parts);
    expect(sealed.map(({ md5 }) => md5)).toEqual(parts.map((part) => hash('md5', part, 'hex')));
  });

  test('bodies of long objects begin on a page as long as the slab has room for that', async () => {
    const random = createRandom();
    const noise = (lengthBytes: number) => Buffer.from(random.bytes(lengthBytes));
    const long = 256 * 1024;
    const parts = [patternBytes(0, 4096, 1), patternBytes(0, long, 2), noise(4096), noise(long), noise(long)];
    const sealed = await sealer.seal(jobOf(parts, 'zlib'));
    const starts = sealed.map(({ body }) => body.byteOffset);
    expect([starts[1], starts[3]].map((at = 1) => at % 4096)).toEqual([0, 0]);
    for (const [n, { body, codec }] of sealed.entries()) {
      expect((codec === 'none' ? body : inflateSync(body)).equals(parts[n] ?? Buffer.alloc(0))).toBe(true);
    }
    const full = [noise(4095), noise(long), noise(long)];
    const kept = await sealer.seal(jobOf(full, 'zlib'));
    expect(kept.map(({ body }) => body.equals(full.shift() ?? Buffer.alloc(0)))).toEqual([true, true, true]);
  });

  test.for(['zlib', 'zstd', 'bz2'] as const)(
    'an object that %s does not make smaller stays as it is',
    async (codec) => {
      const random = createRandom();
      const parts = [random.bytes(20_480), patternBytes(0, 20_480, 1), random.bytes(512)];
      const sealed = await sealer.seal(jobOf(parts, codec));
      expect(sealed.map((each) => each.codec)).toEqual(['none', codec, 'none']);
      expect(sealed[0]?.body.equals(parts[0] ?? Buffer.alloc(0))).toBe(true);
      expect(sealed[2]?.body.equals(parts[2] ?? Buffer.alloc(0))).toBe(true);
    },
  );

  test('with codec none the bodies are the slab itself', async () => {
    const parts = [patternBytes(0, 8192, 1), patternBytes(8192, 8192, 1)];
    const job = jobOf(parts, 'none');
    const sealed = await sealer.seal(job);
    expect(sealed.map(({ body }) => body)).toEqual(parts);
    expect(sealed.every(({ body }) => body.buffer === job.slab)).toBe(true);
  });

  test('bytes that differ from their digest are corrupt, with the offset in the volume', async () => {
    const parts = [patternBytes(0, 40_960, 1), patternBytes(0, 40_960, 2)];
    const job = jobOf(parts, 'zlib');
    Buffer.from(job.slab)[40_960 + 8192 + 5] = 0xfe;
    const offset = 1_000_000 * blockSize + 40_960 + 8192;
    await expect(sealer.seal(job)).rejects.toMatchObject({ code: 'corrupt', details: { offset } });
    expect(await sealer.seal(jobOf(parts, 'zlib'))).toHaveLength(2);
  });
});

describe('zeros', () => {
  test('are sealed once for each length and codec, never as they are', async () => {
    const [first, second] = [sealer.sealZeros(1_000_000, 'zlib'), sealer.sealZeros(1_000_000, 'zlib')];
    expect(first).toBe(second);
    const zlib = await first;
    expect(inflateSync(zlib.body).equals(Buffer.alloc(1_000_000))).toBe(true);
    expect(zlib.md5).toBe(hash('md5', Buffer.alloc(1_000_000), 'hex'));
    const none = await sealer.sealZeros(1_000_000, 'none');
    expect([none.codec, none.body.length]).toEqual(['zlib', zlib.body.length]);
    const zstd = await sealer.sealZeros(512, 'zstd');
    expect(zstdDecompressSync(zstd.body).equals(Buffer.alloc(512))).toBe(true);
    expect((await sealer.sealZeros(50_000_000, 'bz2')).body.length).toBeLessThan(1000);
  });

  test('of many lengths are forgotten again, oldest first', async () => {
    const first = sealer.sealZeros(512, 'zlib');
    await first;
    for (let count = 2; count < 300; count += 1) await sealer.sealZeros(count * 512, 'zlib');
    expect(sealer.sealZeros(512, 'zlib')).not.toBe(first);
    expect(sealer.sealZeros(299 * 512, 'zlib')).toBe(sealer.sealZeros(299 * 512, 'zlib'));
  });
});

describe('threads', () => {
  test('say which deflate is in force', () => {
    expect(sealer.deflate).toMatch(/^(?:isa-l|libdeflate|zlib) \d+$/);
    expect(sealer.threads).toBe(2);
  });

  test('one that dies fails its task as a bug and is replaced', async () => {
    const program = `
      import { parentPort } from 'node:worker_threads';
      parentPort.on('message', (task) => {
        if (task.length === 13) process.exit(13);
        parentPort.postMessage({ kind: 'done', result: task.length });
      });
      parentPort.postMessage({ kind: 'ready', deflate: 'none' });`;
    const entry = new URL(`data:text/javascript,${encodeURIComponent(program)}`);
    const threads = await startSealThreads(2, { effort: 'speed' }, { entry });
    const run = (length: number) => threads.run({ kind: 'zeros', length, codec: 'zlib' });
    const deaths = await Promise.allSettled([13, 1, 13, 2, 3, 13, 4].map(run));
    expect(deaths.map((each) => (each.status === 'fulfilled' ? each.value : each.reason.code))).toEqual([
      'bug',
      1,
      'bug',
      2,
      3,
      'bug',
      4,
    ]);
    await threads.close();
    await expect(run(1)).rejects.toMatchObject({ code: 'cancelled' });
  });

  test('objects that come in pieces, and have to wait for them, leave a thread to the other tasks', async () => {
    const three = await createSealer({ threads: 3 });
    const bytes = patternBytes(0, 10 * blockSize, 1);
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    const unsealing = Array.from({ length: three.threads }, () =>
      three.unsealStream({
        codec: 'none',
        length: bytes.length,
        md5: hash('md5', bytes, 'hex'),
        blockSize,
        segments: [{ offset: 0, length: bytes.length }],
        digests: digestsOf(bytes),
        slab: new SharedArrayBuffer(65_536),
        pieces: (async function* () {
          await gate;
          yield bytes;
        })(),
        take: null,
        signal: new AbortController().signal,
      }),
    );
    // The second begins when all that were asked for before it could have begun.
    for (const blocks of [123, 124]) expect((await three.sealZeros(blocks * 512, 'zstd')).codec).toBe('zstd');
    open();
    expect(await Promise.all(unsealing)).toEqual([[], [], []]);
    await three.close();
  });

  test('closing waits for tasks that run', async () => {
    const other = await createSealer({ threads: 1, zlibEffort: 'size' });
    const running = [other.sealZeros(30_000_000, 'zlib'), other.sealZeros(20_000_000, 'zlib')];
    await other.close();
    expect((await Promise.all(running)).map(({ codec }) => codec)).toEqual(['zlib', 'zlib']);
  });

  test('that cannot start fail as a bug', async () => {
    const entry = new URL(`data:text/javascript,${encodeURIComponent('throw new Error("no")')}`);
    await expect(startSealThreads(1, { effort: 'speed' }, { entry })).rejects.toMatchObject({ code: 'bug' });
  });
});
