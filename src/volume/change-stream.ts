/**
 * Frame streams as change events. A stream is opened, decoded and checked; one that is cut - a broken
 * connection, an end without totals, a silence, a retryable error of the agent - is opened again where its last
 * whole frame ended, so that each byte is handed on exactly once. What breaks a rule is never tried again.
 *
 * Only the totals say that the agent found its snapshots unharmed after the last byte was read. Where they alone are missing, the last
 * block is asked for once more, for their sake.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { jitteredBackoffMs } from '../async/backoff.ts';
import type { Logger } from '../log.ts';
import { BackupError, cancelledBy, isBackupError, throwIfAborted } from '../model/errors.ts';
import { fromOffset, type Extent } from '../model/extent.ts';
import type { StreamTotals } from '../protocol/calls.ts';
import { createFrameDecoder, type FrameDecoder } from '../protocol/frames.ts';
import type { PieceBatch } from './agent-connection.ts';
import type { ChangeEvent } from './block-source.ts';
import { createBusyWait, type AgentRetry } from './busy-agent.ts';
import { createStreamCheck, type StreamCheck, type StreamRules } from './stream-check.ts';

/** One stream to be read to its end, however many requests that takes. */
export type ChangeStreamRequest = StreamRules & {
  /** Asks the agent for what is left: from `startOffset` on, `cover` being what of it has to come. */
  open(
    left: { readonly startOffset: number; readonly cover: readonly Extent[] | null },
    signal: AbortSignal,
  ): Promise<AsyncIterable<PieceBatch>>;
};

export type ChangeStreamPolicy = {
  /** Attempts are counted anew whenever one has brought the stream forward. */
  readonly retry: AgentRetry;
  readonly log: Logger;
};

type Counters = { -readonly [field in keyof StreamTotals]: StreamTotals[field] };

/**
 * The events of a stream: one plan (the first request's), ranges, one totals event. The totals count what was
 * handed on; `read_bytes` of a request that was cut is not known and counts as the data that arrived.
 * Throws `corrupt`, `agent-unavailable` when the attempts are used up or the agent was busy for too long, what the agent reports, or `cancelled`.
 */
export async function* readChangeStream(
  request: ChangeStreamRequest,
  { retry, log }: ChangeStreamPolicy,
  signal: AbortSignal,
): AsyncGenerator<ChangeEvent> {
  const sum: Counters = { data_bytes: 0, zero_bytes: 0, digests: 0, read_bytes: 0 };
  let startOffset = request.startOffset;
  let planned = false;
  /** All ranges came, but no totals: nothing more is handed on. */
  let confirming = false;
  let busy = createBusyWait(retry);
  for (let attempt = 1; ; attempt += 1) {
    throwIfAborted(signal);
    const cover = request.cover === null ? null : [...fromOffset(request.cover, startOffset)];
    const check = createStreamCheck({ ...request, startOffset, cover });
    let failure: BackupError;
    try {
      const decoder = createFrameDecoder();
      for await (const batch of await request.open({ startOffset, cover }, signal)) {
        for (const piece of batch) {
          for (const frame of decoder.push(piece)) {
            const event = check.accept(frame);
            if (event === null || event.kind === 'totals' || confirming) continue;
            if (event.kind === 'plan') {
              if (planned) continue;
              planned = true;
            }
            yield event;
          }
        }
      }
      requireWhole(request.what, check, decoder);
      addTotals(sum, confirming ? readOnly(check.counted) : check.counted);
      yield { kind: 'totals', totals: sum };
      return;
    } catch (error) {
      if (signal.aborted) throw cancelledBy(signal);
      if (!isBackupError(error) || !error.retryable) throw error;
      failure = error;
    }

    if (!confirming) {
      addTotals(
        sum,
        check.ended ? check.counted : { ...check.counted, read_bytes: check.counted.data_bytes },
      );
      if (check.position > startOffset) {
        attempt = 1;
        busy = createBusyWait(retry);
      }
      startOffset = check.position;
      confirming = check.covered && !check.ended;
      if (confirming) startOffset = lastBlockBefore(startOffset, request);
    }
    if (check.ended) {
      yield { kind: 'totals', totals: sum };
      return;
    }
    const isBusy = failure.code === 'busy';
    const isLast = !isBusy && attempt >= retry.attempts;
    const delayMs = isBusy ? busy.next() : isLast ? undefined : jitteredBackoffMs(retry, attempt);
    if (delayMs === undefined) throw gaveUp(request.what, startOffset, attempt, failure);
    log.warn(
      { stream: request.what, startOffset, attempt, delayMs, err: failure },
      'agent stream cut: going on',
    );
    if (isBusy) attempt -= 1;
    await sleep(delayMs, undefined, { signal }).catch(() => throwIfAborted(signal));
  }
}

/** Where the last block of a range that ends at `end` begins. */
function lastBlockBefore(end: number, { blockSize }: StreamRules): number {
  return end === 0 ? 0 : end - (end % blockSize === 0 ? blockSize : end % blockSize);
}

/** Of bytes that were handed on before, only the reading counts. */
function readOnly({ read_bytes }: StreamTotals): StreamTotals {
  return { data_bytes: 0, zero_bytes: 0, digests: 0, read_bytes };
}

/** Throws unless the body that ended held a whole stream and nothing else. */
function requireWhole(what: string, check: StreamCheck, decoder: FrameDecoder): void {
  if (!check.ended) {
    throw new BackupError(
      'agent-unavailable',
      `${what}: the stream ended at offset ${check.position} without totals; check that the agent still runs`,
    );
  }
  if (!decoder.atBoundary) {
    throw new BackupError(
      'corrupt',
      `${what}: the agent sent more bytes after the totals; check its version and its log`,
    );
  }
}

function addTotals(sum: Counters, more: StreamTotals): void {
  sum.data_bytes += more.data_bytes;
  sum.zero_bytes += more.zero_bytes;
  sum.digests += more.digests;
  sum.read_bytes += more.read_bytes;
}

function gaveUp(what: string, offset: number, attempts: number, failure: BackupError): BackupError {
  const effort = failure.code === 'busy' ? 'minutes of waiting' : `${attempts} attempts`;
  return new BackupError(
    'agent-unavailable',
    `${what}: gave up at offset ${offset} after ${effort}: ${failure.message}`,
    { cause: failure },
  );
}
