/** Which ranges of a snapshot hold data, and which changed since another one. */
import type { FileHandle } from 'node:fs/promises';
import { endOf, type Extent, type TypedExtent } from '../model/extent.ts';
import type { StreamPlan } from '../protocol/calls.ts';
import { stepFlags, type FileStep, type FileStepResult } from './file-steps.ts';
import type { FileThreads, OpenRecord } from './file-snapshots.ts';
import { commonLength, knowExtents, requireFit, requireWholeLength } from './range-checks.ts';
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

  let walking: AsyncGenerator<TypedExtent> | undefined;
  const close = async () => {
    await walking?.return(undefined);
    for (const handle of handles.splice(0)) await handle.close();
  };

  try {
    const chosen = choose(deps);
    walking = changedRanges({ run, request, previous, current, method: chosen.method });
    if (chosen.method === 'bytes') return { ...chosen, extents: walking, readBytes: () => readBytes, close };
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
async function* changedRanges(walk: Walk): AsyncGenerator<TypedExtent> {
  const { run, request, previous, current, method } = walk;
  const { blockSize, startOffset, lengthBytes } = request;
  const currentFd = current.handle.fd;
  let common = 0;
  if (previous !== null) {
    const previousFd = previous.handle.fd;
    common = commonLength(request, previous.record.size_bytes);
    const fds = { previousFd, currentFd, end: common };
    const byBytes = (from: number): FileStep => ({ ...fds, kind: 'bytes', from, blockSize });
    if (method === 'bytes') yield* decided(steps(run, byBytes, startOffset, common));
    else {
      const byExtents = (from: number): FileStep => ({ ...fds, kind: 'extents', from });
      for await (const extent of steps(run, byExtents, startOffset, common)) {
        if (extent.flag !== stepFlags.unsure) yield typed(extent);
        else
          yield* within(extent, decided(steps(run, byBytes, down(extent.offset, blockSize), endOf(extent))));
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
): AsyncGenerator<FlaggedExtent> {
  let ahead = from < end ? run(make(from)) : undefined;
  try {
    while (ahead !== undefined) {
      const { next, extents } = await ahead;
      ahead = next < end ? run(make(next)) : undefined;
      ahead?.catch(() => {});
      for (let i = 0; i + 2 < extents.length; i += 3) {
        yield { offset: extents[i] ?? 0, length: extents[i + 1] ?? 0, flag: extents[i + 2] ?? 0 };
      }
    }
  } finally {
    await Promise.allSettled([ahead]);
  }
}

async function* decided(extents: AsyncIterable<FlaggedExtent>): AsyncGenerator<TypedExtent> {
  for await (const extent of extents) yield typed(extent);
}

function typed({ offset, length, flag }: FlaggedExtent): TypedExtent {
  return { kind: flag === stepFlags.data ? 'data' : 'zero', offset, length };
}

/** The parts of `extents` that lie in `range`. */
async function* within(range: Extent, extents: AsyncIterable<TypedExtent>): AsyncGenerator<TypedExtent> {
  for await (const { kind, offset, length } of extents) {
    const start = Math.max(offset, range.offset);
    const end = Math.min(offset + length, endOf(range));
    if (start < end) yield { kind, offset: start, length: end - start };
  }
}

function down(offset: number, blockSize: number): number {
  return offset - (offset % blockSize);
}
