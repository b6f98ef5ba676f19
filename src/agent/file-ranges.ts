/** Which ranges of a snapshot hold data, and which changed since another one. */
import type { FileHandle } from 'node:fs/promises';
import { endOf, type Extent, type TypedExtent } from '../model/extent.ts';
import type { StreamPlan } from '../protocol/calls.ts';
import { stepFlags, type FileStep, type FileStepResult } from './file-steps.ts';
import type { FileThreads, OpenRecord } from './file-snapshots.ts';
import {
  commonLength,
  knowExtents,
  oneByOne,
  requireFit,
  requireWholeLength,
  within,
  type FoundExtents,
} from './range-checks.ts';
import type { FindRequest, FoundRanges } from './volume-backend.ts';

type Chosen = { readonly method: StreamPlan['method']; readonly reason: string };

/**
 * Finds the ranges of `request`. Owns the two open snapshots, and closes them when it is done, fails or is closed.
 * Throws `message-invalid` for another length than the snapshot's, `delta-unavailable` if the snapshots do not fit.
 */
export async function findFileRanges(deps: {
  readonly threads: FileThreads;
  /** True if physical extents of this file system have been seen to tell what changed. */
  readonly extentsWork: boolean;
  readonly holesWork: boolean;
  readonly request: FindRequest;
  readonly previous: OpenRecord | null;
  readonly current: OpenRecord;
}): Promise<FoundRanges> {
  const { request, previous, current, threads } = deps;
  const handles: FileHandle[] = previous === null ? [current.handle] : [previous.handle, current.handle];
  let readBytes = 0;

  const run = async (step: FileStep): Promise<FileStepResult> => {
    const result = await threads.run(step, [], request.signal);
    readBytes += result.readBytes;
    return result;
  };

  let walking: FoundExtents | undefined;
  const close = async () => {
    await walking?.return(undefined);
    for (const handle of handles.splice(0)) await handle.close();
  };

  try {
    const chosen = choose(deps);
    walking = changedRanges({ run, request, previous, current, method: chosen.method });
    if (chosen.method === 'bytes')
      return { ...chosen, extents: oneByOne(walking), readBytes: () => readBytes, close };
    const extents = await knowExtents(walking, request.signal);
    if (Array.isArray(extents)) await close();
    return { ...chosen, extents, readBytes: () => readBytes, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function choose(deps: {
  readonly extentsWork: boolean;
  readonly holesWork: boolean;
  readonly request: FindRequest;
  readonly previous: OpenRecord | null;
  readonly current: OpenRecord;
}): Chosen {
  const { request, previous, current } = deps;
  requireWholeLength(request, current.record.size_bytes);
  if (previous === null) {
    return deps.holesWork
      ? { method: 'allocation', reason: "holes of the snapshot's file are not read" }
      : { method: 'all', reason: 'this host cannot tell where the file has holes: all of it is read' };
  }
  requireFit(request, previous.record);
  if (!deps.extentsWork) {
    return { method: 'bytes', reason: 'this file system cannot tell what changed: both snapshots are read' };
  }
  if (previous.record.method !== 'reflink' || current.record.method !== 'reflink') {
    return { method: 'bytes', reason: 'one of the snapshots is a copy, not a reflink: both are read' };
  }
  return { method: 'extents', reason: 'physical extents of two reflinked snapshots were compared' };
}

type Walk = {
  readonly run: (step: FileStep) => Promise<FileStepResult>;
  readonly request: FindRequest;
  readonly previous: OpenRecord | null;
  readonly current: OpenRecord;
  readonly method: StreamPlan['method'];
};

/**
 * Where the volume grew, everything behind the last whole block of the previous snapshot counts as changed. What
 * physical extents do not prove is compared by bytes.
 */
async function* changedRanges(walk: Walk): FoundExtents {
  const { run, request, previous, current, method } = walk;
  const { blockSize, startOffset, lengthBytes } = request;
  const currentFd = current.handle.fd;
  let common = 0;
  if (previous !== null) {
    const previousFd = previous.handle.fd;
    common = commonLength(request, previous.record.size_bytes);
    const fds = { previousFd, currentFd };
    const byBytes = (from: number, end: number): FileStep => ({
      ...fds,
      kind: 'bytes',
      from,
      end,
      blockSize,
    });
    if (method === 'bytes') {
      yield* decided(steps(run, (from) => byBytes(from, common), startOffset, common));
    } else {
      // In one thread: two of them wait for each other in the file system at every extent.
      const byExtents = (from: number): FileStep => ({ ...fds, kind: 'extents', from, end: common });
      for await (const some of steps(run, byExtents, startOffset, common)) {
        let sure: TypedExtent[] = [];
        for (const extent of some) {
          if (extent.flag !== stepFlags.unsure) sure.push(typed(extent));
          else {
            yield sure;
            sure = [];
            const [from, end] = [down(extent.offset, blockSize), endOf(extent)];
            yield* within(extent, decided(steps(run, (at) => byBytes(at, end), from, end)));
          }
        }
        yield sure;
      }
    }
  }
  const byHoles = (from: number): FileStep => ({ kind: 'allocation', fd: currentFd, from, end: lengthBytes });
  yield* decided(steps(run, byHoles, Math.max(startOffset, common), lengthBytes));
}

type FlaggedExtent = Extent & { readonly flag: number };

/** Takes steps from `from` until one has come to `end`. The next step runs while the extents of the last are used. */
async function* steps(
  run: Walk['run'],
  make: (from: number) => FileStep,
  from: number,
  end: number,
): AsyncGenerator<readonly FlaggedExtent[]> {
  let ahead = from < end ? run(make(from)) : undefined;
  try {
    while (ahead !== undefined) {
      const { next, extents } = await ahead;
      ahead = next < end ? run(make(next)) : undefined;
      ahead?.catch(() => {});
      yield flagged(extents);
    }
  } finally {
    await Promise.allSettled([ahead]);
  }
}

function flagged(triples: Float64Array): readonly FlaggedExtent[] {
  const extents: FlaggedExtent[] = [];
  for (let i = 0; i + 2 < triples.length; i += 3) {
    extents.push({ offset: triples[i] ?? 0, length: triples[i + 1] ?? 0, flag: triples[i + 2] ?? 0 });
  }
  return extents;
}

async function* decided(found: AsyncIterable<readonly FlaggedExtent[]>): FoundExtents {
  for await (const some of found) yield some.map(typed);
}

function typed({ offset, length, flag }: FlaggedExtent): TypedExtent {
  return { kind: flag === stepFlags.data ? 'data' : 'zero', offset, length };
}

function down(offset: number, blockSize: number): number {
  return offset - (offset % blockSize);
}
