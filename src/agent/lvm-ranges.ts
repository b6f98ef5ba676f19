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
import { withLimit, type Budget } from '../async/limit.ts';
import { BackupError, throwIfAborted } from '../model/errors.ts';
import { endOf, type TypedExtent } from '../model/extent.ts';
import type { LvmGroup } from './lvm-group.ts';
import type { LogicalVolume } from './lvm-report.ts';
import { commonLength, knowExtents, type FoundExtents } from './range-checks.ts';
import { readDifferences, readMapped } from './thin-mappings.ts';
import type { FindRequest, FoundRanges } from './volume-backend.ts';

/** What finding needs of a volume group. */
export type ThinMetadata = Pick<
  LvmGroup,
  'keepMetadata' | 'dropMetadata' | 'writeDifferences' | 'writeMapped'
>;

export type ThinVolume = LogicalVolume & { readonly thinId: number };

/**
 * Finds the ranges of `request`, whose snapshots fit and whose pool is active. `lock` is that of the pool's metadata. `confirm` is asked
 * when all is found, and throws unless the snapshots were there all the time.
 */
export async function findLvmRanges(deps: {
  readonly group: ThinMetadata;
  readonly pool: LogicalVolume;
  readonly previous: ThinVolume | null;
  readonly current: ThinVolume;
  readonly request: FindRequest;
  readonly lock: Budget;
  readonly confirm: () => Promise<void>;
  readonly log: Logger;
}): Promise<FoundRanges> {
  const { confirm, current, group, pool, previous, request } = deps;
  const common = previous === null ? 0 : commonLength(request, previous.sizeBytes);
  const isGrown = common < request.lengthBytes;
  await using files = new AsyncDisposableStack();
  const make = async () => {
    const file = await openNameless();
    files.defer(() => file.close());
    return file;
  };
  const differences = previous === null ? null : await make();
  const mapped = isGrown ? await make() : null;
  const { signal } = request;
  throwIfAborted(signal);
  await withMetadata(deps, async () => {
    if (previous !== null && differences !== null) {
      const ids = [previous.thinId, current.thinId] as const;
      await group.writeDifferences(pool, ids, { fd: differences.fd, signal });
    }
    if (mapped !== null) await group.writeMapped(pool, current.thinId, { fd: mapped.fd, signal });
  });
  await confirm();

  const walking = walk({ request, common, differences, mapped });
  const extents = await knowExtents(walking, signal);
  const held = files.move();
  const close = async () => {
    await walking.return(undefined);
    await held.disposeAsync();
  };
  if (Array.isArray(extents)) await close();
  return {
    method: previous === null ? 'allocation' : 'extents',
    reason:
      previous === null
        ? 'blocks that the thin pool has not given to the snapshot are not read'
        : 'the blocks that the thin pool has given to the two snapshots were compared',
    extents,
    readBytes: () => 0,
    close,
  };
}

/** What another agent, or this one before it died, has left reserved is let go of: nobody may hold it for ever. */
async function withMetadata(
  deps: {
    readonly group: ThinMetadata;
    readonly pool: LogicalVolume;
    readonly request: FindRequest;
    readonly lock: Budget;
    readonly log: Logger;
  },
  work: () => Promise<void>,
): Promise<void> {
  const { group, lock, log, pool, request } = deps;
  await withLimit(
    lock,
    async () => {
      if (!(await group.keepMetadata(pool))) {
        log.warn(
          { pool: pool.name },
          'a metadata snapshot was left reserved in the thin pool: it is released',
        );
        await group.dropMetadata(pool);
        if (!(await group.keepMetadata(pool))) throw reserved(pool);
      }
      try {
        await work();
      } finally {
        await group.dropMetadata(pool);
      }
    },
    request.signal,
  );
}

function reserved({ name }: LogicalVolume): BackupError {
  return new BackupError(
    'busy',
    `the metadata snapshot of thin pool ${name} is reserved by another program: try again when that has ended`,
  );
}

type Walk = {
  readonly request: FindRequest;
  readonly common: number;
  readonly differences: FileHandle | null;
  readonly mapped: FileHandle | null;
};

/** Changed ranges below `common`, then data and zeros that tile what is behind it. */
async function* walk({ request, common, differences, mapped }: Walk): FoundExtents {
  const { lengthBytes, startOffset } = request;
  if (differences !== null && startOffset < common) {
    yield* within(readDifferences(linesOf(differences)), startOffset, common);
  }
  if (mapped === null) return;
  let at = Math.max(startOffset, common);
  for await (const some of within(readMapped(linesOf(mapped)), at, lengthBytes)) {
    const tiled: TypedExtent[] = [];
    for (const extent of some) {
      if (extent.offset > at) tiled.push({ kind: 'zero', offset: at, length: extent.offset - at });
      tiled.push(extent);
      at = endOf(extent);
    }
    yield tiled;
  }
  if (at < lengthBytes) yield [{ kind: 'zero', offset: at, length: lengthBytes - at }];
}

/** The parts that lie in [start, end). All of it is read: only its end shows that it is whole. */
async function* within(found: FoundExtents, start: number, end: number): FoundExtents {
  for await (const some of found) {
    const inside: TypedExtent[] = [];
    for (const { kind, offset, length } of some) {
      const from = Math.max(offset, start);
      const to = Math.min(offset + length, end);
      if (from < to) inside.push({ kind, offset: from, length: to - from });
    }
    yield inside;
  }
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
