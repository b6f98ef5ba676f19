/** The bytes of an object on their way: MD5 before a put, checks and continuation during a get. */
import { createHash, type Hash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { jitteredBackoffMs, type RetryPolicy } from '../async/backoff.ts';
import type { Logger } from '../log.ts';
import { BackupError, isBackupError, throwIfAborted } from '../model/errors.ts';
import { pause } from './retry-call.ts';

const hashSliceBytes = 1_048_576;

/** The MD5 of `body` as lower-case hex; other work gets its turn after every MiB. */
export async function md5Of(body: Uint8Array, signal: AbortSignal): Promise<string> {
  return (await digestInTurns('md5', body, signal)).toString('hex');
}

/** The digest of `body`; other work gets its turn after every MiB. */
export async function digestInTurns(
  algorithm: 'md5' | 'sha256',
  body: Uint8Array,
  signal: AbortSignal,
): Promise<Buffer> {
  const hash = createHash(algorithm);
  for (let at = 0; at < body.length; at += hashSliceBytes) {
    if (at > 0) await nextTurn();
    throwIfAborted(signal);
    hash.update(body.subarray(at, at + hashSliceBytes));
  }
  return hash.digest();
}

/** Sees every byte of a body in order; `finish` says what is wrong, or null. */
export type BodyCheck = { update(piece: Buffer): void; finish(): string | null };

/** For objects whose ETag tells nothing about their bytes. */
export const noCheck: BodyCheck = { update: () => undefined, finish: () => null };

/** The whole body has this MD5. */
export function md5Check(md5: string): BodyCheck {
  const hash = createHash('md5');
  return {
    update: (piece) => void hash.update(piece),
    finish: () => mismatch('the object', hash.digest('hex'), md5),
  };
}

/** The body is these parts, one after the other, each with its MD5: a static large object of Swift. */
export function partsCheck(
  parts: readonly { readonly sizeBytes: number; readonly md5: string }[],
): BodyCheck {
  let problem: string | null = null;
  const cutter = createPartHasher(
    (at) => parts[at]?.sizeBytes ?? Infinity,
    (digest, at) => {
      const part = parts[at];
      problem ??=
        part === undefined
          ? 'it is longer than its segments'
          : mismatch(`segment ${at + 1}`, digest.toString('hex'), part.md5);
    },
  );
  return {
    update: (piece) => cutter.update(piece),
    finish() {
      const seen = cutter.finish();
      return problem ?? (seen === parts.length ? null : `it has ${seen} segments instead of ${parts.length}`);
    },
  };
}

/** The body was uploaded in parts of `partBytes`; `etag` is the MD5 of their MD5s, `-`, and their number: a multipart object of S3. */
export function multipartCheck(etag: string, partBytes: number): BodyCheck {
  const whole = createHash('md5');
  const cutter = createPartHasher(
    () => partBytes,
    (digest) => void whole.update(digest),
  );
  return {
    update: (piece) => cutter.update(piece),
    finish() {
      const count = cutter.finish();
      return mismatch('the object', `${whole.digest('hex')}-${count}`, etag);
    },
  };
}

function createPartHasher(sizeOf: (at: number) => number, done: (md5: Buffer, at: number) => void) {
  let hash: Hash = createHash('md5');
  let at = 0;
  let room = sizeOf(0);
  let filled = 0;
  const close = () => {
    done(hash.digest(), at);
    at += 1;
    hash = createHash('md5');
    room = sizeOf(at);
    filled = 0;
  };
  return {
    update(piece: Buffer): void {
      for (let start = 0; start < piece.length;) {
        const take = Math.min(room, piece.length - start);
        hash.update(piece.subarray(start, start + take));
        start += take;
        room -= take;
        filled += take;
        if (room === 0) close();
      }
    },
    /** Closes the last, shorter part; returns how many there were. */
    finish(): number {
      if (filled > 0) close();
      return at;
    },
  };
}

function mismatch(what: string, found: string, wanted: string): string | null {
  return found === wanted ? null : `the MD5 of ${what} is ${found}, and the store says ${wanted}`;
}

export type CheckedSource = {
  /** For messages: `object K in container C`. */
  readonly what: string;
  readonly sizeBytes: number;
  readonly check: BodyCheck;
  readonly first: AsyncIterable<Buffer>;
  /** Opens the same version of the object again, from `offset` on. */
  reopen(offset: number): Promise<AsyncIterable<Buffer>>;
  /** Its waits come between cuts; its number of attempts does not count. */
  readonly retryPolicy: RetryPolicy;
  readonly log: Logger;
  /** Ends a wait. */
  readonly signal: AbortSignal;
};

/** A connection that brought so much was no failure: a server that gives up on a slow reader has filled its buffers before. */
const worthwhileBytes = 1_048_576;

/**
 * The body of an object, checked. A connection that is cut (the server gave up on a slow reader, say) is continued where
 * it ended, as long as each connection brings something; else its `store-unavailable` goes on to the caller. The waits before
 * that grow while connections bring little. The first cut of a body is logged.
 * Throws `corrupt` after the last byte if length or MD5 are wrong: nobody may trust the bytes before the loop has ended.
 */
export async function* checkedBody(source: CheckedSource): AsyncGenerator<Buffer> {
  let offset = 0;
  let body = source.first;
  let isTold = false;
  let failures = 0;
  for (let openedAt = 0; ; openedAt = offset) {
    try {
      for await (const piece of body) {
        offset += piece.length;
        if (offset > source.sizeBytes) break;
        source.check.update(piece);
        yield piece;
      }
      break;
    } catch (error) {
      const cut = isBackupError(error, 'store-unavailable') && offset > openedAt;
      if (!cut || offset >= source.sizeBytes) throw error;
      failures = offset - openedAt < worthwhileBytes ? failures + 1 : 1;
      if (!isTold) {
        const { what, sizeBytes } = source;
        source.log.warn({ what, offset, sizeBytes, reason: error.message }, 'a body was cut, going on');
        isTold = true;
      }
    }
    await pause(jitteredBackoffMs(source.retryPolicy, failures), source.signal);
    body = await source.reopen(offset);
  }
  const problem =
    offset === source.sizeBytes
      ? source.check.finish()
      : `it has ${offset > source.sizeBytes ? 'more' : 'fewer'} bytes (${offset}) than announced (${source.sizeBytes})`;
  if (problem === null) return;
  throw new BackupError(
    'corrupt',
    `${source.what} is damaged: ${problem}; the backup needs a verify, and if it fails again a new full backup`,
    { details: { sizeBytes: source.sizeBytes, receivedBytes: offset } },
  );
}
