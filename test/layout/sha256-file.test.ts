import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  encodeSha256File,
  readSha256File,
  type Sha256FileExpectations,
} from '../../src/layout/sha256-file.ts';
import { mergeDigests, type ChangedDigests } from '../../src/layout/merge-digests.ts';
import { collect } from '../support/pattern.ts';

const head = {
  backupId: 'd3650713-875d-4b65-aaf6-dd0e7f47849c',
  volumeId: 'e903c8e6-3bdc-4826-bf42-c441ee31e287',
  backupName: 'posix-full',
  backupDescription: null,
  createdAt: '2026-11-22 09:23:39+00:00',
};

/** Digests that name their own block and a generation. */
function digestsOf(blocks: number, generation = 1): Buffer {
  const out = Buffer.alloc(blocks * 32);
  for (let block = 0; block < blocks; block += 1) {
    createHash('sha256')
      .update(`${generation}:${block}`)
      .digest()
      .copy(out, block * 32);
  }
  return out;
}

async function* inRuns(digests: Buffer, sizes: readonly number[]): AsyncGenerator<Buffer> {
  for (let at = 0, n = 0; at < digests.length; n += 1) {
    const end = at + (sizes[n % sizes.length] ?? 1) * 32;
    yield digests.subarray(at, end);
    at = end;
  }
}

async function* inPieces(text: Buffer, step: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < text.length; at += step) yield text.subarray(at, at + step);
}

const encode = (digests: Buffer, sizes: readonly number[] = [4096], from = head) =>
  collect(encodeSha256File(from, 32768, inRuns(digests, sizes)));

async function read(text: Buffer, step: number, more: Partial<Sha256FileExpectations> = {}): Promise<Buffer> {
  const file = await readSha256File(inPieces(text, step), { name: 'prefix_sha256file', ...more });
  return collect(file.digests);
}

const fixture = (name: string) =>
  readFileSync(new URL(`../fixtures/cinder/layout/${name}`, import.meta.url), 'latin1');

describe('writing', () => {
  test("is byte for byte what Cinder's posix driver wrote for 1 GiB, in head, tail and size", async () => {
    const recorded = fixture('posix-full_sha256file.head.txt');
    const cut = recorded.indexOf('\n... ');
    const start = recorded.slice(0, cut);
    const end = recorded.slice(recorded.indexOf('tail: ...\n') + 'tail: ...\n'.length);
    const known = [...start.matchAll(/"([0-9a-f]{64})"/g)].map((match) => Buffer.from(match[1] ?? '', 'hex'));
    const tail = [...end.matchAll(/"([0-9a-f]{64})"/g)].map((match) => Buffer.from(match[1] ?? '', 'hex'));
    const middle = digestsOf(32768 - known.length - tail.length);
    const text = (await encode(Buffer.concat([...known, middle, ...tail]))).toString('latin1');
    expect(known.length).toBeGreaterThan(20);
    expect(text.length).toBe(2359578);
    expect(text.slice(0, start.lastIndexOf('\n'))).toBe(start.slice(0, start.lastIndexOf('\n')));
    const wholeLines = end.slice(end.indexOf('\n'));
    expect(text.endsWith(wholeLines)).toBe(true);
  });

  for (const blocks of [0, 1, 2, 4095, 4096, 4097, 9000]) {
    test(`is what json.dumps writes for ${blocks} hashes`, async () => {
      const digests = digestsOf(blocks);
      const document = {
        version: '1.0.0',
        backup_id: head.backupId,
        volume_id: head.volumeId,
        backup_name: 'Grüße "1"',
        backup_description: null,
        created_at: head.createdAt,
        chunk_size: 32768,
        sha256s: Array.from({ length: blocks }, (_, n) => digests.toString('hex', n * 32, n * 32 + 32)),
      };
      const program =
        'import json,sys; sys.stdout.write(json.dumps(json.load(sys.stdin), sort_keys=True, indent=2))';
      const run = spawnSync('python3', ['-c', program], {
        input: JSON.stringify(document),
        maxBuffer: 1e8,
      });
      const text = await encode(digests, [1, 5000, 3], { ...head, backupName: 'Grüße "1"' });
      expect(text.equals(run.stdout)).toBe(true);
    });
  }
});

const good = () => ({
  version: '1.0.0',
  backup_id: head.backupId,
  volume_id: head.volumeId,
  chunk_size: 32768,
  sha256s: ['ab'.repeat(32), 'cd'.repeat(32)] as unknown,
});

describe('reading', () => {
  for (const step of [1, 71, 72, 73, 65_536, 10_000_000]) {
    test(`gives back the digests from pieces of ${step} bytes`, async () => {
      const digests = digestsOf(step === 1 ? 300 : 9000);
      const text = await encode(digests);
      const blocks = digests.length / 32;
      expect((await read(text, step, { blocks, blockSize: 32768, ...head })).equals(digests)).toBe(true);
    });
  }

  test('never yields more than 4096 digests at once, even from one piece of compact text', async () => {
    const digests = digestsOf(20_000);
    const compact = Buffer.from(JSON.stringify(JSON.parse((await encode(digests)).toString('latin1'))));
    const file = await readSha256File(inPieces(compact, compact.length), { name: 'x' });
    const sizes: number[] = [];
    for await (const run of file.digests) sizes.push(run.length / 32);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(4096);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(20_000);
  });

  test('accepts any order of keys, any white space, unknown keys and upper-case hex', async () => {
    const digests = digestsOf(700);
    const hex = Array.from({ length: 700 }, (_, n) => digests.toString('hex', n * 32, n * 32 + 32));
    const text = JSON.stringify(
      {
        future: { nested: [1, { sha256s: ['no'] }] },
        sha256s: hex.map((digest, n) => (n % 2 === 0 ? digest.toUpperCase() : digest)),
        volume_id: head.volumeId,
        version: '1.0.0',
        chunk_size: 32768,
        backup_id: head.backupId,
      },
      null,
      '\t',
    );
    for (const step of [13, 100_000]) {
      const file = await readSha256File(inPieces(Buffer.from(text), step), { name: 'x', blockSize: 32768 });
      expect(file.blockSize).toBe(step === 13 ? null : 32768);
      expect((await collect(file.digests)).equals(digests)).toBe(true);
      expect(file.blockSizeAtEnd()).toBe(32768);
    }
  });

  test('knows the block size before the first digest of a document of Python', async () => {
    const file = await readSha256File(inPieces(await encode(digestsOf(10)), 50), { name: 'x' });
    expect(file.blockSize).toBe(32768);
    await file.close();
  });

  test('releases the body when its reader leaves early, and when it is closed unread', async () => {
    const text = await encode(digestsOf(9000));
    let released = 0;
    async function* body(): AsyncGenerator<Buffer> {
      try {
        yield* inPieces(text, 1000);
      } finally {
        released += 1;
      }
    }
    const file = await readSha256File(body(), { name: 'x' });
    for await (const run of file.digests) {
      expect(run.length).toBeGreaterThan(0);
      break;
    }
    expect(released).toBe(1);
    const unread = await readSha256File(body(), { name: 'x' });
    await unread.close();
    expect(released).toBe(2);
  });

  test('finds a single changed character in any of the digests', async () => {
    const text = await encode(digestsOf(50));
    for (let at = text.indexOf('sha256s') + 12, n = 0; n < 50; at += 72, n += 1) {
      const broken = Buffer.from(text);
      broken[at + 20] = 'g'.charCodeAt(0);
      await expect(read(broken, 100_000)).rejects.toMatchObject({ code: 'corrupt' });
    }
  });

  test('finds any changed byte of a line', async () => {
    const text = await encode(digestsOf(5));
    const line = text.indexOf('sha256s') + 11 + 2 * 72;
    for (let at = line; at < line + 72; at += 1) {
      const broken = Buffer.from(text);
      broken[at] = 'x'.charCodeAt(0);
      await expect(read(broken, 100_000), `byte ${at - line}`).rejects.toMatchObject({ code: 'corrupt' });
    }
  });

  test('a document that is cut anywhere is corrupt', async () => {
    const text = await encode(digestsOf(3));
    for (let length = 0; length < text.length; length += 1) {
      await expect(read(text.subarray(0, length), 64)).rejects.toMatchObject({ code: 'corrupt' });
    }
  });

  const bad: readonly [string, () => unknown][] = [
    ['a list instead of an object', () => ['ab'.repeat(32)]],
    ['a bare string', () => 'ab'.repeat(32)],
    ['a short hash', () => ({ ...good(), sha256s: ['ab'.repeat(31)] })],
    ['a long hash', () => ({ ...good(), sha256s: ['ab'.repeat(33)] })],
    ['a long hash behind others', () => ({ ...good(), sha256s: ['ab'.repeat(32), 'ab'.repeat(33)] })],
    ['a hash that is no hex', () => ({ ...good(), sha256s: ['zz'.repeat(32)] })],
    ['a hash of wide characters', () => ({ ...good(), sha256s: ['š'.repeat(64)] })],
    ['a number among the hashes', () => ({ ...good(), sha256s: ['ab'.repeat(32), 5] })],
    ['null among the hashes', () => ({ ...good(), sha256s: [null] })],
    ['a list among the hashes', () => ({ ...good(), sha256s: [['ab'.repeat(32)]] })],
    ['an object among the hashes', () => ({ ...good(), sha256s: [{}] })],
    ['hashes that are an object', () => ({ ...good(), sha256s: { a: 'ab'.repeat(32) } })],
    ['hashes that are a string', () => ({ ...good(), sha256s: 'ab' })],
    ['a block size of zero', () => ({ ...good(), chunk_size: 0 })],
    ['a block size that is a string', () => ({ ...good(), chunk_size: '32768' })],
    ['a block size that is a fraction', () => ({ ...good(), chunk_size: 0.5 })],
    ['a block size that is an object', () => ({ ...good(), chunk_size: {} })],
    ['no hashes at all', () => ({ ...good(), sha256s: undefined })],
    ['no block size', () => ({ ...good(), chunk_size: undefined })],
    ['no version', () => ({ ...good(), version: undefined })],
    ['a version that is a list', () => ({ ...good(), version: [] })],
    ['a gigantic name', () => ({ backup_name: 'x'.repeat(100_000), ...good() })],
    ['too few hashes', () => ({ ...good(), sha256s: ['ab'.repeat(32)] })],
    ['too many hashes', () => ({ ...good(), sha256s: Array(3).fill('ab'.repeat(32)) })],
    ['another block size', () => ({ ...good(), chunk_size: 4096 })],
    ['another backup', () => ({ ...good(), backup_id: 'other' })],
    ['another volume', () => ({ ...good(), volume_id: 'other' })],
  ];
  for (const [what, document] of bad) {
    test(`${what} is corrupt`, async () => {
      const text = Buffer.from(JSON.stringify(document(), null, 2));
      const expected = { ...head, blocks: 2, blockSize: 32768 };
      for (const step of [11, 100_000]) {
        await expect(read(text, step, expected)).rejects.toMatchObject({
          code: 'corrupt',
          message: expect.stringContaining('prefix_sha256file'),
        });
      }
    });
  }

  test('a key that stands in it twice is corrupt', async () => {
    const text = JSON.stringify(good()).replace('"chunk_size"', '"chunk_size": 1, "chunk_size"');
    await expect(read(Buffer.from(text), 10)).rejects.toThrow(/twice/);
  });

  test('another version is version-unsupported', async () => {
    const text = Buffer.from(JSON.stringify({ ...good(), version: '2.0.0' }));
    await expect(read(text, 10)).rejects.toMatchObject({ code: 'version-unsupported' });
  });

  test('junk behind the end is corrupt', async () => {
    const text = Buffer.concat([await encode(digestsOf(2)), Buffer.from('\n{}')]);
    await expect(read(text, 10)).rejects.toMatchObject({ code: 'corrupt' });
  });
});

const openList = async (text: Buffer) => {
  const body = { closed: false };
  async function* pieces(): AsyncGenerator<Buffer> {
    try {
      yield* inPieces(text, 1000);
    } finally {
      body.closed = true;
    }
  }
  const file = await readSha256File(pieces(), { name: 'list' });
  expect(body.closed).toBe(false);
  return { body, file, iterator: file.digests[Symbol.asyncIterator]() };
};
const hundred = async () => encode(digestsOf(100));

async function* failAtOnce(): AsyncGenerator<ChangedDigests> {
  yield* [];
  throw new Error('no changes');
}

describe('the body', () => {
  test('is released when the digests are left before the first was read', async () => {
    const { body, iterator } = await openList(await hundred());
    await iterator.return?.();
    expect(body.closed).toBe(true);
  });

  test('is released when the digests are left in the middle, and at their end', async () => {
    const middle = await openList(await hundred());
    await middle.iterator.next();
    await middle.iterator.return?.();
    expect(middle.body.closed).toBe(true);
    const end = await openList(await hundred());
    expect((await collect(end.file.digests)).equals(digestsOf(100))).toBe(true);
    expect(end.body.closed).toBe(true);
  });

  test('is released when the document turns out to be damaged', async () => {
    const { body, file } = await openList((await hundred()).subarray(0, 6000));
    await expect(collect(file.digests)).rejects.toMatchObject({ code: 'corrupt' });
    expect(body.closed).toBe(true);
  });

  test('is released by those that merge the digests when their changes fail at once', async () => {
    const { body, file } = await openList(await hundred());
    await expect(collect(mergeDigests(file.digests, failAtOnce(), 100))).rejects.toThrow('no changes');
    expect(body.closed).toBe(true);
  });
});
