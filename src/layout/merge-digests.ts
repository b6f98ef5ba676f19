/** Lays the digests of changed blocks over the parent's: the hash list of an increment. */
import { BackupError, invariant } from '../model/errors.ts';
import { digestBytes } from '../model/digest.ts';

/** Digests of the blocks from `firstBlock` on. Sorted, without overlap. */
export type ChangedDigests = { readonly firstBlock: number; readonly digests: Buffer };

const runDigests = 4096;

/**
 * Yields `blocks` digests in runs of 4096 (a run is overwritten when the next one is asked for): those of `changes`
 * where they are, else the parent's. Where the parent's list ends early (a grown volume) or there is no parent,
 * the changes must leave no gap. Throws `bug` for changes that are not sorted, overlap, reach past the end, or leave
 * a gap without a parent; `corrupt` for a parent's list that is too long, or too short for a gap.
 */
export async function* mergeDigests(
  parent: AsyncIterable<Buffer> | null,
  changes: AsyncIterable<ChangedDigests>,
  blocks: number,
): AsyncGenerator<Buffer> {
  const run = Buffer.allocUnsafeSlow(runDigests * digestBytes);
  const old = createParentCursor(parent);
  let filled = 0;
  let block = 0;

  async function* fromParent(upTo: number): AsyncGenerator<Buffer> {
    while (block < upTo) {
      const digests = await old.take(Math.min(upTo - block, runDigests - filled));
      if (digests === undefined) throw gap(block, upTo, parent !== null);
      digests.copy(run, filled * digestBytes);
      filled += digests.length / digestBytes;
      block += digests.length / digestBytes;
      if (filled === runDigests) {
        filled = 0;
        yield run;
      }
    }
  }

  try {
    for await (const { firstBlock, digests } of changes) {
      const count = digests.length / digestBytes;
      invariant(
        Number.isSafeInteger(count) && firstBlock >= block && firstBlock + count <= blocks,
        `changed hashes of blocks ${firstBlock} to ${firstBlock + count} come after block ${block} of ${blocks}`,
      );
      yield* fromParent(firstBlock);
      for (let done = 0; done < count;) {
        const fits = Math.min(count - done, runDigests - filled);
        digests.copy(run, filled * digestBytes, done * digestBytes, (done + fits) * digestBytes);
        filled += fits;
        done += fits;
        if (filled === runDigests) {
          filled = 0;
          yield run;
        }
      }
      block += count;
      await old.skip(count);
    }
    yield* fromParent(blocks);
    if ((await old.take(1)) !== undefined) {
      throw new BackupError(
        'corrupt',
        `the parent backup's hash list has more than the volume's ${blocks} blocks: a volume does not shrink; do a full backup`,
      );
    }
    if (filled > 0) yield run.subarray(0, filled * digestBytes);
  } finally {
    await old.close();
  }
}

type ParentCursor = {
  /** At most `most` digests that follow, or undefined at the end of the list. */
  take(most: number): Promise<Buffer | undefined>;
  /** Passes over `count` digests, or over what is left. */
  skip(count: number): Promise<void>;
  close(): Promise<void>;
};

function createParentCursor(parent: AsyncIterable<Buffer> | null): ParentCursor {
  const runs = parent?.[Symbol.asyncIterator]();
  let run: Buffer = Buffer.alloc(0);
  let at = 0;
  let ended = runs === undefined;

  const take = async (most: number): Promise<Buffer | undefined> => {
    while (at >= run.length) {
      if (ended) return undefined;
      const next = await runs?.next();
      if (next === undefined || next.done === true) {
        ended = true;
        return undefined;
      }
      run = next.value;
      at = 0;
      invariant(run.length % digestBytes === 0, `a run of the parent's digests has ${run.length} bytes`);
    }
    const digests = run.subarray(at, at + most * digestBytes);
    at += digests.length;
    return digests;
  };

  return {
    take,
    async skip(count) {
      for (let left = count; left > 0;) {
        const passed = await take(left);
        if (passed === undefined) return;
        left -= passed.length / digestBytes;
      }
    },
    async close() {
      await runs?.return?.();
    },
  };
}

function gap(block: number, upTo: number, hasParent: boolean): BackupError {
  const where = `blocks ${block} to ${upTo - 1}`;
  if (!hasParent) return new BackupError('bug', `broken invariant: no hashes for ${where} of a full backup`);
  return new BackupError(
    'corrupt',
    `the parent backup's hash list ends before ${where}, which did not change: it is not whole; do a full backup`,
  );
}
