/**
 * The compare way: the source hashes its snapshot where it lies, the digests are held against the parent's hash list while both
 * arrive, and only blocks that differ are asked for. One stream of changes comes out that tiles the volume.
 */
import { anySignal } from '../async/any-signal.ts';
import { createQueue } from '../async/queue.ts';
import { digestBytes, zeroDigest, zeroDigestRuns } from '../model/digest.ts';
import { BackupError, invariant } from '../model/errors.ts';
import { endOf, type Extent } from '../model/extent.ts';
import type { StreamTotals } from '../protocol/calls.ts';
import type { BlockSource, ChangeEvent } from '../volume/block-source.ts';

/** One batch ends with the first of these; two batches are under way at a time. */
const batchLimits = { ranges: 4096, bytes: 64 * 1024 * 1024, digests: 32_768 } as const;

/** A run of blocks: unchanged, newly zero, or to be fetched. */
type Verdict = Extent & {
  readonly kind: 'same' | 'zero' | 'fetch';
  /** What the source says of its blocks, in order; nothing of zeros. */
  readonly digests: Buffer[];
};

type Batch = { readonly verdicts: readonly Verdict[]; readonly totals: StreamTotals | null };

/**
 * Yields `digests` events for unchanged blocks, `data` and `zero` for changed ones, then `totals`. `parent` is the parent's hash
 * list; where it ends early (the volume grew) everything counts as changed. Changed ranges with a gap of at most `mergeGapBytes`
 * between them are fetched as one. `onRead` is told what the source has read to
 * hash it. Throws `corrupt` if the list has more blocks than the volume or blocks arrive that are not those that were hashed, and
 * what both sides throw.
 */
export async function* compareChanges(
  source: BlockSource,
  parent: AsyncIterable<Buffer>,
  mergeGapBytes: number,
  onRead: (bytes: number) => void,
  signal: AbortSignal,
): AsyncGenerator<ChangeEvent> {
  const queue = createQueue<Batch>(1);
  const leave = new AbortController();
  const inner = anySignal([signal, leave.signal]);
  const judging = judge(source, parent, mergeGapBytes, onRead, queue, inner).catch((error: unknown) =>
    queue.fail(error),
  );
  const sum = { data_bytes: 0, zero_bytes: 0, digests: 0, read_bytes: 0 };
  const add = (totals: StreamTotals) => {
    sum.data_bytes += totals.data_bytes;
    sum.zero_bytes += totals.zero_bytes;
    sum.digests += totals.digests;
    sum.read_bytes += totals.read_bytes;
  };
  try {
    for await (const { verdicts, totals } of queue) {
      yield* resolveBatch(source, verdicts, add, inner);
      if (totals !== null) add({ ...totals, data_bytes: 0, zero_bytes: 0 });
    }
    yield { kind: 'totals', totals: sum };
  } finally {
    leave.abort(new BackupError('cancelled', 'the comparison was left'));
    await judging;
  }
}

async function judge(
  source: BlockSource,
  parent: AsyncIterable<Buffer>,
  mergeGapBytes: number,
  onRead: (bytes: number) => void,
  queue: { push(batch: Batch): Promise<void>; end(): void },
  signal: AbortSignal,
): Promise<void> {
  const { blockSize, lengthBytes } = source;
  const old = parent[Symbol.asyncIterator]();
  let run: Buffer = Buffer.alloc(0);
  let verdicts: Verdict[] = [];
  let size = { ranges: 0, bytes: 0, digests: 0 };

  /** The parent's digests that follow: at most `most`, fewer at the end of a run, none after the last. */
  const takeOld = async (most: number): Promise<Buffer> => {
    while (run.length === 0) {
      const next = await old.next();
      if (next.done === true) return run;
      run = next.value;
    }
    const taken = run.subarray(0, most * digestBytes);
    run = run.subarray(taken.length);
    return taken;
  };

  const push = (verdict: Verdict) => {
    const last = verdicts.at(-1);
    const beforeLast = verdicts.at(-2);
    const joins = last !== undefined && endOf(last) === verdict.offset;
    const isShort = joins && last.length + verdict.length <= mergeGapBytes;
    if (joins && last.kind === verdict.kind && (verdict.kind !== 'same' || isShort)) {
      last.digests.push(...verdict.digests);
      verdicts[verdicts.length - 1] = { ...last, length: last.length + verdict.length };
    } else if (
      verdict.kind === 'fetch' &&
      joins &&
      last.kind === 'same' &&
      last.length <= mergeGapBytes &&
      beforeLast?.kind === 'fetch' &&
      endOf(beforeLast) === last.offset
    ) {
      const length = beforeLast.length + last.length + verdict.length;
      beforeLast.digests.push(...last.digests, ...verdict.digests);
      verdicts.splice(-2, 2, { ...beforeLast, length });
      size.bytes += last.length;
    } else {
      verdicts.push(verdict);
      if (verdict.kind === 'fetch') size.ranges += 1;
    }
    if (verdict.kind === 'fetch') size.bytes += verdict.length;
    for (const { length } of verdict.digests) size.digests += length / digestBytes;
  };

  const flush = async (totals: StreamTotals | null) => {
    await queue.push({ verdicts, totals });
    verdicts = [];
    size = { ranges: 0, bytes: 0, digests: 0 };
  };

  /** Compares digests of the blocks from `offset` on; zero blocks need not be fetched. */
  const compare = async (offset: number, digests: Buffer, isZero: boolean): Promise<void> => {
    for (let at = 0; at < digests.length;) {
      const before = await takeOld((digests.length - at) / digestBytes);
      const now = digests.subarray(at, before.length === 0 ? digests.length : at + before.length);
      let start = 0;
      for (let end = 0; end < now.length;) {
        const same = isSame(now, before, start);
        end = start;
        if (start === 0 && now.equals(before)) end = now.length;
        else
          do end += digestBytes;
          while (end < now.length && isSame(now, before, end) === same);
        const from = offset + ((at + start) / digestBytes) * blockSize;
        const to = Math.min(lengthBytes, offset + ((at + end) / digestBytes) * blockSize);
        const kind = same ? 'same' : isZero ? 'zero' : 'fetch';
        push({
          kind,
          offset: from,
          length: to - from,
          digests: kind === 'zero' ? [] : [Buffer.from(now.subarray(start, end))],
        });
        start = end;
      }
      at += now.length;
      if (
        size.ranges >= batchLimits.ranges ||
        size.bytes >= batchLimits.bytes ||
        size.digests >= batchLimits.digests
      ) {
        await flush(null);
      }
    }
  };

  try {
    let totals: StreamTotals | null = null;
    for await (const event of source.digests(signal)) {
      if (event.kind === 'digests') {
        onRead(event.length);
        await compare(event.offset, event.digests, false);
      } else if (event.kind === 'zero') {
        let offset = event.offset;
        for (const zeros of zeroDigestRuns(event.length, blockSize)) {
          await compare(offset, zeros, true);
          offset += (zeros.length / digestBytes) * blockSize;
        }
      } else if (event.kind === 'totals') totals = event.totals;
      else invariant(event.kind === 'plan', 'a stream of digests carries no data');
    }
    if ((await takeOld(1)).length > 0) {
      throw new BackupError(
        'corrupt',
        `the parent backup's hash list has more than the volume's blocks: a volume does not shrink; do a full backup`,
      );
    }
    await flush(totals);
    queue.end();
  } finally {
    await old.return?.();
  }
}

function isSame(now: Buffer, before: Buffer, at: number): boolean {
  return before.length > at && now.compare(before, at, at + digestBytes, at, at + digestBytes) === 0;
}

/** Yields the batch in order, taking the bytes of its ranges from one stream. */
async function* resolveBatch(
  source: BlockSource,
  verdicts: readonly Verdict[],
  add: (totals: StreamTotals) => void,
  signal: AbortSignal,
): AsyncGenerator<ChangeEvent> {
  const ranges = verdicts.filter((verdict) => verdict.kind === 'fetch');
  const blocks = ranges.length === 0 ? null : source.blocks(ranges, signal)[Symbol.asyncIterator]();
  try {
    for (const { kind, offset, length, digests } of verdicts) {
      if (kind === 'same') yield { kind: 'digests', offset, length, digests: Buffer.concat(digests) };
      else if (kind === 'zero') yield { kind, offset, length };
      else if (blocks !== null) {
        yield* takeRange(blocks, { offset, length }, Buffer.concat(digests), source.blockSize);
      }
    }
    for (
      let next = await blocks?.next();
      next !== undefined && next.done !== true;
      next = await blocks?.next()
    ) {
      if (next.value.kind === 'totals') add(next.value.totals);
    }
  } finally {
    await blocks?.return?.();
  }
}

/** Yields what comes of one range; its blocks must have the digests that the comparison was told. */
async function* takeRange(
  blocks: AsyncIterator<ChangeEvent>,
  range: Extent,
  digests: Buffer,
  blockSize: number,
): AsyncGenerator<ChangeEvent> {
  for (let position = range.offset; position < endOf(range);) {
    const next = await blocks.next();
    invariant(next.done !== true, `the stream of blocks ends before offset ${position}`);
    const event = next.value;
    if (event.kind !== 'data' && event.kind !== 'zero') continue;
    invariant(
      event.offset === position && event.offset + event.length <= endOf(range),
      `the stream of blocks brings ${event.offset} where ${position} is wanted`,
    );
    const told = digests.subarray(((position - range.offset) / blockSize) * digestBytes);
    const differing = firstOther(event, told, blockSize);
    if (differing !== null) throw otherBlock(position + differing);
    position += event.length;
    yield event;
  }
}

/** Where in the event the first block is whose digest is not that at its place in `told`; null if there is none. */
function firstOther(
  event: ChangeEvent & { readonly kind: 'data' | 'zero' },
  told: Buffer,
  blockSize: number,
): number | null {
  for (let done = 0, at = 0; done < event.length; done += blockSize, at += digestBytes) {
    const [digests, from] =
      event.kind === 'data' ? [event.digests, at] : [zeroDigest(Math.min(blockSize, event.length - done)), 0];
    if (told.compare(digests, from, from + digestBytes, at, at + digestBytes) !== 0) return done;
  }
  return null;
}

function otherBlock(offset: number): BackupError {
  return new BackupError(
    'corrupt',
    `the agent sent another block at offset ${offset} of the volume than the one it had hashed: its snapshot is not still, or its storage errs; check the agent's log and its storage`,
    { details: { offset } },
  );
}
