/**
 * Which ranges of a thin snapshot hold data, and which changed since another one: told by the mappings of the pool. Two thin
 * devices that map a block to the same place have the same bytes there, since the pool never writes to a place that is shared.
 *
 * The kernel keeps one copy of a pool's metadata to be read meanwhile: who holds it writes what it finds into a file without a name and
 * lets go of it, so that nobody waits for a slow stream.
 */
import { constants, open, rm, mkdtemp, rmdir, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger } from '../log.ts';
import { anySignal } from '../async/any-signal.ts';
import { inTime } from '../async/in-time.ts';
import { withLimit, type Budget } from '../async/limit.ts';
import { BackupError, throwIfAborted } from '../model/errors.ts';
import type { LvmGroup } from './lvm-group.ts';
import type { LogicalVolume } from './lvm-report.ts';
import { commonLength, knowExtents, oneByOne, tiled, within, type FoundExtents } from './range-checks.ts';
import { readDifferences, readMapped } from './thin-mappings.ts';
import type { FindRequest, FoundRanges } from './volume-backend.ts';

/** What finding needs of a volume group. */
export type ThinMetadata = Pick<
  LvmGroup,
  'heldMetadata' | 'keepMetadata' | 'dropMetadata' | 'writeDifferences' | 'writeMapped'
>;

/** Says, also after this process has died, which metadata are kept for it. */
export type Reservation = {
  /** What was written last; null after it was cleared. */
  read(): Promise<string | null>;
  write(text: string): Promise<void>;
  clear(): Promise<void>;
};

/** The metadata of one pool, and who may have them kept now. */
export type PoolMetadata = {
  readonly group: ThinMetadata;
  readonly pool: LogicalVolume;
  readonly reservation: Reservation;
  readonly lock: Budget;
  readonly log: Logger;
};

export type ThinVolume = LogicalVolume & { readonly thinId: number };

type Finding = PoolMetadata & {
  readonly previous: ThinVolume | null;
  readonly current: ThinVolume;
  readonly request: FindRequest;
  /** Asked when all is found: throws unless the snapshots were there all the time. */
  readonly confirm: () => Promise<void>;
};

/** Finding that takes longer goes on while the stream has begun: who waits for it hears that it is alive. */
const foundWithinMs = 5000;
/** Written before metadata are kept: their root is known only after that. */
const pending = 'pending';

/** Finds the ranges of a request whose snapshots fit, and whose pool is active until the ranges are closed. */
export async function findLvmRanges(deps: Finding): Promise<FoundRanges> {
  const { previous, request } = deps;
  throwIfAborted(request.signal);
  const stop = new AbortController();
  const signal = anySignal([request.signal, stop.signal]);
  const walking = walk(deps, signal);
  const close = async () => {
    stop.abort();
    await walking.return(undefined);
  };
  const first = walking.next();
  first.catch(() => undefined);
  try {
    const isEarly = await inTime(
      first.then(() => true),
      foundWithinMs,
      () => false,
    );
    const all = goneOnWith(first, walking);
    return {
      method: previous === null ? 'allocation' : 'extents',
      reason:
        previous === null
          ? 'blocks that the thin pool has not given to the snapshot are not read'
          : 'the blocks that the thin pool has given to the two snapshots were compared',
      extents: isEarly ? await knowExtents(all, signal) : oneByOne(all),
      readBytes: () => 0,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function* goneOnWith(first: ReturnType<FoundExtents['next']>, rest: FoundExtents): FoundExtents {
  const step = await first;
  if (step.done === true) return;
  yield step.value;
  yield* rest;
}

/** Has the kernel keep the metadata while `work` reads them. `busy` if another program has them kept, or has let go of ours. */
async function withMetadata(
  metadata: PoolMetadata,
  signal: AbortSignal,
  work: () => Promise<void>,
): Promise<void> {
  const { group, lock, pool, reservation } = metadata;
  await withLimit(
    lock,
    async () => {
      await releaseLeft(metadata);
      await reservation.write(pending);
      let isOurs = false;
      try {
        if (!(await group.keepMetadata(pool))) throw reserved(pool);
        const root = await group.heldMetadata(pool);
        try {
          if (root !== null) await reservation.write(root);
          await work();
        } finally {
          isOurs = root !== null && (await group.heldMetadata(pool)) === root;
          if (isOurs) await group.dropMetadata(pool);
        }
      } finally {
        await reservation.clear();
      }
      if (!isOurs) throw reserved(pool);
    },
    signal,
  );
}

/** Lets go of what this agent had kept when it died. `busy` if another program has metadata kept. */
export async function releaseLeft({
  group,
  log,
  pool,
  reservation,
}: Omit<PoolMetadata, 'lock'>): Promise<void> {
  const held = await group.heldMetadata(pool);
  if (held === null) return;
  const left = await reservation.read();
  if (left !== pending && left !== held) throw reserved(pool);
  log.warn({ pool: pool.name }, 'a metadata snapshot was left reserved in the thin pool: it is released');
  await group.dropMetadata(pool);
}

function reserved({ name, path }: LogicalVolume): BackupError {
  return new BackupError(
    'busy',
    `the metadata snapshot of thin pool ${name} is used by another program: try again when that has ended; if there is none: dmsetup message ${path}-tpool 0 release_metadata_snap`,
  );
}

/** Changed ranges below what both snapshots have, then data and zeros that tile what is behind it. */
async function* walk(deps: Finding, signal: AbortSignal): FoundExtents {
  const { confirm, current, group, pool, previous, request } = deps;
  const { lengthBytes, startOffset } = request;
  const common = previous === null ? 0 : commonLength(request, previous.sizeBytes);
  await using files = new AsyncDisposableStack();
  const make = async () => {
    const file = await openNameless();
    files.defer(() => file.close());
    return file;
  };
  const differences = previous === null ? null : await make();
  const mapped = common < lengthBytes ? await make() : null;
  await withMetadata(deps, signal, async () => {
    if (previous !== null && differences !== null) {
      const ids = [previous.thinId, current.thinId] as const;
      await group.writeDifferences(pool, ids, { fd: differences.fd, signal });
    }
    if (mapped !== null) await group.writeMapped(pool, current.thinId, { fd: mapped.fd, signal });
  });
  await confirm();

  if (differences !== null && startOffset < common) {
    const both = { offset: startOffset, length: common - startOffset };
    yield* within(both, readDifferences(linesOf(differences)));
  }
  if (mapped === null) return;
  const from = Math.max(startOffset, common);
  const behind = { offset: from, length: lengthBytes - from };
  yield* tiled(behind, within(behind, readMapped(linesOf(mapped))));
}

/** The lines, many at a time. */
async function* linesOf(file: FileHandle): AsyncGenerator<readonly string[]> {
  const input = file.createReadStream({
    start: 0,
    autoClose: false,
    encoding: 'utf8',
    highWaterMark: 2 ** 18,
  });
  let rest = '';
  for await (const piece of input) {
    const lines = `${rest}${String(piece)}`.split('\n');
    rest = lines.pop() ?? '';
    yield lines;
  }
  yield [rest];
}

/** A file that is gone with the process, however that ends. */
async function openNameless(): Promise<FileHandle> {
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-'));
  const path = join(directory, 'mappings');
  try {
    return await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  } finally {
    await rm(path, { force: true });
    await rmdir(directory);
  }
}
