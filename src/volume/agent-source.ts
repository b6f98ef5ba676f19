/** A block source whose streams come from an agent: delta, digests and named blocks of one snapshot. */
import { invariant } from '../model/errors.ts';
import { endOf, type Extent } from '../model/extent.ts';
import { maxBlockRanges, type StreamPlan, type StreamTotals } from '../protocol/calls.ts';
import type { AgentConnection } from './agent-connection.ts';
import type { BlockSource, ChangeEvent } from './block-source.ts';
import { readChangeStream, type ChangeStreamPolicy } from './change-stream.ts';

export type SourceRequest = {
  readonly backend: string;
  readonly volume: string;
  /** The snapshot to read, and its identity: another one of that name is refused. */
  readonly snapshot: string;
  readonly identity: string;
  /** The whole size of that snapshot. */
  readonly lengthBytes: number;
  readonly blockSize: number;
  /** Unchanged gaps of at most so many bytes between two changed ranges come along as data. */
  readonly mergeGapBytes: number;
};

/** `path` is the volume's on the agent. Errors are those of readChangeStream, and what the agent answers. */
export function createAgentSource(
  connection: AgentConnection,
  path: string,
  request: SourceRequest,
  policy: ChangeStreamPolicy,
): BlockSource {
  const { lengthBytes, blockSize, snapshot } = request;
  const whole: readonly Extent[] = [{ offset: 0, length: lengthBytes }];
  const common = { length: lengthBytes, block_size: blockSize, current_identity: request.identity };
  const whatOf = (call: string) =>
    `${call} of ${request.volume} at ${snapshot}, backend ${request.backend} of agent ${connection.url}`;

  const namedBlocks = (ranges: readonly Extent[], signal: AbortSignal): AsyncGenerator<ChangeEvent> =>
    readChangeStream(
      {
        what: whatOf('blocks'),
        lengthBytes,
        blockSize,
        startOffset: 0,
        carries: 'changes',
        cover: ranges,
        open: ({ cover }, opened) =>
          connection.stream(
            `${path}/blocks`,
            { ...common, snapshot, ranges: (cover ?? []).map(({ offset, length }) => [offset, length]) },
            opened,
          ),
      },
      policy,
      signal,
    );

  return {
    lengthBytes,
    blockSize,
    delta: (previous, signal) =>
      readChangeStream(
        {
          what: whatOf('delta'),
          lengthBytes,
          blockSize,
          startOffset: 0,
          carries: 'changes',
          cover: previous === null ? whole : null,
          open: ({ startOffset }, opened) =>
            connection.stream(
              `${path}/delta`,
              {
                ...common,
                start_offset: startOffset,
                previous_snapshot: previous?.name ?? null,
                previous_identity: previous?.identity ?? null,
                current_snapshot: snapshot,
                merge_gap: request.mergeGapBytes,
              },
              opened,
            ),
        },
        policy,
        signal,
      ),

    digests: (signal) =>
      readChangeStream(
        {
          what: whatOf('digests'),
          lengthBytes,
          blockSize,
          startOffset: 0,
          carries: 'digests',
          cover: whole,
          open: ({ startOffset }, opened) =>
            connection.stream(`${path}/digests`, { ...common, start_offset: startOffset, snapshot }, opened),
        },
        policy,
        signal,
      ),

    async *blocks(ranges, signal) {
      const joined = joinTouching(ranges);
      const plan: StreamPlan = {
        method: 'named',
        reason: `${joined.length} ranges were asked for by name`,
        data_bytes: null,
        zero_bytes: null,
      };
      yield { kind: 'plan', plan };
      const sum: StreamTotals = { data_bytes: 0, zero_bytes: 0, digests: 0, read_bytes: 0 };
      for (let from = 0; from < joined.length; from += maxBlockRanges) {
        const batch = joined.slice(from, from + maxBlockRanges);
        for await (const event of namedBlocks(batch, signal)) {
          if (event.kind === 'totals') {
            sum.data_bytes += event.totals.data_bytes;
            sum.zero_bytes += event.totals.zero_bytes;
            sum.digests += event.totals.digests;
            sum.read_bytes += event.totals.read_bytes;
          } else if (event.kind !== 'plan') yield event;
        }
      }
      yield { kind: 'totals', totals: sum };
    },
  };
}

/** Sorted ranges with those that touch made one: an agent may answer them in one frame. */
function joinTouching(ranges: readonly Extent[]): Extent[] {
  const joined: Extent[] = [];
  for (const range of ranges) {
    const last = joined.at(-1);
    invariant(last === undefined || range.offset >= endOf(last), `range at ${range.offset} is out of order`);
    if (last !== undefined && endOf(last) === range.offset) {
      joined[joined.length - 1] = { offset: last.offset, length: last.length + range.length };
    } else joined.push({ offset: range.offset, length: range.length });
  }
  return joined;
}
