/**
 * A volume's bytes as the service sees them: where the change comes from, and where a restore goes.
 * Two sources stand behind it in time: the agent, and in tests a volume in memory.
 */
import type { Extent } from '../model/extent.ts';
import type { StreamPlan, StreamTotals } from '../protocol/calls.ts';

/**
 * One step of a change stream. Extents are sorted, do not overlap, start on a block boundary and end on one or
 * at the end of the volume. `digests` and `bytes` are views that live until the next step is asked for.
 */
export type ChangeEvent =
  | { readonly kind: 'plan'; readonly plan: StreamPlan }
  | {
      readonly kind: 'data';
      readonly offset: number;
      readonly length: number;
      readonly digests: Buffer;
      readonly bytes: Buffer;
    }
  | { readonly kind: 'zero'; readonly offset: number; readonly length: number }
  /** Digests of blocks without their bytes. */
  | { readonly kind: 'digests'; readonly offset: number; readonly length: number; readonly digests: Buffer }
  | { readonly kind: 'totals'; readonly totals: StreamTotals };

/**
 * The streams of one snapshot. Every stream has been checked when it ends: order, overlap, range, digest counts,
 * checksums, totals; one that covers everything (`delta` without a previous snapshot, `digests`) has no gap.
 * A stream that is cut goes on after its last whole frame; what cannot be helped is `agent-unavailable`,
 * what is wrong is `corrupt`. `bytes` are not hashed here: the sealing workers compare them with `digests`.
 */
export type BlockSource = {
  readonly lengthBytes: number;
  readonly blockSize: number;
  /** Changes since `previous`, or every byte when that is null. */
  delta(
    previous: { readonly name: string; readonly identity: string } | null,
    signal: AbortSignal,
  ): AsyncIterable<ChangeEvent>;
  /** `digests` and `zero` events for the whole volume. */
  digests(signal: AbortSignal): AsyncIterable<ChangeEvent>;
  /** `data` and `zero` events that tile exactly `ranges` (sorted, block-aligned, any number). */
  blocks(ranges: readonly Extent[], signal: AbortSignal): AsyncIterable<ChangeEvent>;
};

/** Where a restore writes. Calls may come in any order of offsets; each byte is written once. */
export type RestoreTarget = {
  /** Resolves when the target has taken the bytes: `bytes` may be reused then. */
  writeData(offset: number, bytes: Buffer): Promise<void>;
  writeZero(offset: number, length: number): Promise<void>;
  /** Ends the stream and waits until everything is on stable storage; throws unless the totals agree. */
  finish(): Promise<void>;
  /** Gives up; what was written stays undefined. */
  abort(reason: unknown): Promise<void>;
};
