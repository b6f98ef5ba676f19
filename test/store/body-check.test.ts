import { createHash } from 'node:crypto';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { BackupError } from '../../src/model/errors.ts';
import {
  checkedBody,
  md5Check,
  md5Of,
  multipartCheck,
  noCheck,
  partsCheck,
  type BodyCheck,
} from '../../src/store/body-check.ts';
import { collect, patternBytes } from '../support/pattern.ts';

const live = new AbortController().signal;
const md5 = (bytes: Buffer) => createHash('md5').update(bytes).digest('hex');
const bytes = patternBytes(10_000, 1);

function changed(at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeUInt8(copy.readUInt8(at) ^ 1, at);
  return copy;
}

function verdict(check: BodyCheck, body: Buffer, cuts: readonly number[] = []): string | null {
  let from = 0;
  for (const cut of [...cuts.toSorted((a, b) => a - b), body.length]) {
    check.update(body.subarray(from, cut));
    from = cut;
  }
  return check.finish();
}

describe('the check of a body', () => {
  const parts = [4000, 1, 5999].map((sizeBytes, at, sizes) => {
    const start = sizes.slice(0, at).reduce((sum, size) => sum + size, 0);
    return { sizeBytes, md5: md5(bytes.subarray(start, start + sizeBytes)) };
  });
  const partDigests = [0, 1, 2].map((at) =>
    createHash('md5')
      .update(bytes.subarray(at * 4096, (at + 1) * 4096))
      .digest(),
  );
  const etag = `${md5(Buffer.concat(partDigests))}-3`;

  test('agrees with the right bytes however they are cut, and with no others', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(10_000), { maxLength: 8 }), fc.nat(9999), (cuts, at) => {
        for (const make of [
          () => md5Check(md5(bytes)),
          () => partsCheck(parts),
          () => multipartCheck(etag, 4096),
        ]) {
          expect(verdict(make(), bytes, cuts)).toBeNull();
          expect(verdict(make(), changed(at), cuts)).toContain('MD5');
        }
      }),
      { numRuns: 60 },
    );
  });

  test('names the segment that is wrong', () => {
    expect(verdict(partsCheck(parts), changed(4000))).toContain('segment 2');
    expect(verdict(partsCheck(parts.slice(0, 2)), bytes)).toContain('longer than its segments');
    expect(verdict(partsCheck(parts), bytes.subarray(0, 4001))).toContain('2 segments instead of 3');
  });

  test('of an empty object holds', () => {
    expect(verdict(md5Check(md5(Buffer.alloc(0))), Buffer.alloc(0))).toBeNull();
    expect(verdict(partsCheck([]), Buffer.alloc(0))).toBeNull();
  });
});

test('the MD5 of a body is that of its bytes, and ends when the signal aborts', async () => {
  const large = patternBytes(2_500_000, 2);
  expect(await md5Of(large, live)).toBe(md5(large));
  await expect(md5Of(large, AbortSignal.abort(new Error('enough')))).rejects.toMatchObject({
    code: 'cancelled',
  });
});

const cut = () => new BackupError('store-unavailable', 'the connection was cut');
async function* pieces(from: number, to: number, failure?: BackupError): AsyncGenerator<Buffer> {
  for (let at = from; at < to; at += 1000)
    yield await Promise.resolve(bytes.subarray(at, Math.min(to, at + 1000)));
  if (failure !== undefined) throw failure;
}
const lines: string[] = [];
const patience = {
  retryPolicy: { attempts: 1, firstDelayMs: 10, maxDelayMs: 40 },
  log: createLogger({ level: 'warn', destination: { write: (line: string) => void lines.push(line) } }),
  signal: live,
};
const open = (
  first: AsyncIterable<Buffer>,
  reopen: (offset: number) => AsyncIterable<Buffer>,
  check = md5Check(md5(bytes)),
  changes: Partial<typeof patience> = {},
) =>
  checkedBody({
    ...patience,
    ...changes,
    what: 'object x',
    sizeBytes: bytes.length,
    check,
    first,
    reopen: async (at) => await Promise.resolve(reopen(at)),
  });

const reopen = () => {
  throw new Error('there is nothing to continue');
};

describe('a checked body', () => {
  test('is continued at the byte where it was cut, as often as something came', async () => {
    const offsets: number[] = [];
    const body = open(pieces(0, 2500, cut()), (offset) => {
      offsets.push(offset);
      return pieces(offset, Math.min(bytes.length, offset + 2500), offset < 7500 ? cut() : undefined);
    });
    expect((await collect(body)).equals(bytes)).toBe(true);
    expect(offsets).toEqual([2500, 5000, 7500]);
  });

  test('that brings little each time is continued after waits that grow, with one warning', async () => {
    lines.length = 0;
    const body = open(pieces(0, 1000, cut()), (offset) =>
      pieces(offset, offset + 1000, offset < 5000 ? cut() : undefined),
    );
    const short = async () => {
      for await (const piece of body) expect(piece).toHaveLength(1000);
    };
    const started = performance.now();
    await expect(short()).rejects.toMatchObject({ code: 'corrupt' });
    // Half of 10, 20, 40, 40 and 40 ms at least.
    expect(performance.now() - started).toBeGreaterThan(74);
    expect(lines).toHaveLength(1);
  });

  test('whose signal aborts in such a wait is cancelled', async () => {
    const controller = new AbortController();
    const changes = {
      retryPolicy: { attempts: 1, firstDelayMs: 3_600_000, maxDelayMs: 3_600_000 },
      signal: controller.signal,
    };
    const body = open(pieces(0, 1000, cut()), reopen, noCheck, changes);
    setTimeout(() => controller.abort(new Error('enough')), 20);
    await expect(collect(body)).rejects.toMatchObject({ code: 'cancelled' });
  });

  test('that brings nothing more goes on to the caller as unavailable', async () => {
    const offsets: number[] = [];
    const body = open(pieces(0, 2500, cut()), (offset) => {
      offsets.push(offset);
      return pieces(offset, offset, cut());
    });
    await expect(collect(body)).rejects.toMatchObject({ code: 'store-unavailable' });
    expect(offsets).toEqual([2500]);
  });

  test('that fails for another reason is not continued', async () => {
    const body = open(pieces(0, 2500, new BackupError('store-denied', 'no')), () =>
      pieces(2500, bytes.length),
    );
    await expect(collect(body)).rejects.toMatchObject({ code: 'store-denied' });
  });

  test.each([
    [11_000, 'fewer'],
    [9000, 'more'],
  ])('of 10000 bytes where %i were announced is corrupt for having %s', async (sizeBytes, word) => {
    const body = checkedBody({
      ...patience,
      what: 'object x',
      sizeBytes,
      check: noCheck,
      first: pieces(0, 10_000),
      reopen: async () => await Promise.resolve(reopen()),
    });
    await expect(collect(body)).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining(word),
    });
  });

  test('with a wrong MD5 is corrupt, after the last byte', async () => {
    const body = open(pieces(0, bytes.length), () => pieces(0, 0), md5Check(md5(changed(7))));
    const seen: Buffer[] = [];
    await expect(
      (async () => {
        for await (const piece of body) seen.push(piece);
      })(),
    ).rejects.toMatchObject({ code: 'corrupt' });
    expect(Buffer.concat(seen).length).toBe(bytes.length);
  });
});
