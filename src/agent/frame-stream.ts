/**
 * Sends a stream of frames as the answer to a request: preamble, plan, what the readers give, totals. An error
 * after the first byte becomes an `error` frame. The socket holds everything back: at most two pieces wait in it.
 */
import { setTimeout as after } from 'node:timers/promises';
import type { Writable } from 'node:stream';
import { untilAborted } from '../async/until-aborted.ts';
import { BackupError } from '../model/errors.ts';
import type { StreamPlan, StreamTotals } from '../protocol/calls.ts';
import { encodeFrame, encodeJsonFrame, preamble } from '../protocol/frames.ts';
import { answerOf } from './error-answer.ts';
import type { ReadPiece } from './reader-pool.ts';

export type FrameSource = {
  readonly plan: StreamPlan;
  /** Bytes of the snapshot: the length of the plan frame. */
  readonly lengthBytes: number;
  readonly startOffset: number;
  readonly pieces: AsyncGenerator<ReadPiece>;
  /** Bytes read so far to find what to send. */
  readonly findingBytes: () => number;
};

/**
 * Sends everything and ends `output`. Aborts `controller` as soon as the stream cannot go on, and rejects with the
 * reason after an error frame was sent if the other end still listens.
 */
export async function sendFrames(
  source: FrameSource,
  output: Writable,
  controller: AbortController,
  idleMs: number,
): Promise<StreamTotals> {
  const totals: StreamTotals = { data_bytes: 0, zero_bytes: 0, digests: 0, read_bytes: 0 };
  const writer = createWriter(output, controller.signal);
  let sentTo = source.startOffset;
  let isWhole = false;
  try {
    await writer.write(preamble);
    await writer.write(encodeJsonFrame('plan', source.plan, source.lengthBytes));
    for (;;) {
      const piece = await nextPiece(source.pieces, idleMs, async () => {
        await writer.write(encodeFrame({ type: 'idle', offset: sentTo, length: 0 }));
      });
      if (piece === undefined) break;
      totals.data_bytes += piece.dataBytes;
      totals.zero_bytes += piece.zeroBytes;
      totals.digests += piece.digests;
      totals.read_bytes += piece.readBytes;
      sentTo = piece.endOffset;
      await writer.write(piece.bytes, piece.release);
    }
    totals.read_bytes += source.findingBytes();
    isWhole = true;
    await writer.write(encodeJsonFrame('totals', totals));
    await writer.end();
    return totals;
  } catch (error) {
    controller.abort(error);
    await source.pieces.return(undefined);
    // Nothing may follow the totals.
    if (isWhole) output.end();
    else if (!output.destroyed) {
      const { code, message } = answerOf(error);
      output.end(encodeJsonFrame('error', { code, message }));
    }
    throw error;
  }
}

/** The next piece; calls `idle` whenever it takes another `idleMs`. */
async function nextPiece(
  pieces: AsyncGenerator<ReadPiece>,
  idleMs: number,
  idle: () => Promise<void>,
): Promise<ReadPiece | undefined> {
  const next = pieces.next();
  next.catch(() => {});
  for (;;) {
    const timer = new AbortController();
    const waited = after(idleMs, 'idle' as const, { signal: timer.signal }).catch(() => 'idle' as const);
    const first = await Promise.race([next, waited]).finally(() => timer.abort());
    if (first !== 'idle') return first.done === true ? undefined : first.value;
    await idle();
  }
}

/**
 * Writes with at most one write under way beside the one that is asked for. A client that leaves fails the writes, and aborts
 * `signal`: of a socket that is half closed, a ServerResponse never says what became of a write (nodejs/node 36673).
 */
function createWriter(output: Writable, signal: AbortSignal) {
  let before: Promise<void> = Promise.resolve();
  return {
    /** Resolves when the write before this one has left; `done` runs when this one has. */
    async write(bytes: Buffer, done?: () => void): Promise<void> {
      const last = before;
      before = new Promise<void>((resolve, reject) => {
        output.write(bytes, (error) => {
          if (error === null || error === undefined) {
            done?.();
            resolve();
          } else
            reject(new BackupError('cancelled', 'the client of a stream has gone away', { cause: error }));
        });
      });
      before.catch(() => {});
      await untilAborted(last, signal);
    },
    async end(): Promise<void> {
      await untilAborted(before, signal);
      const ended = new Promise<void>((resolve) => {
        output.end(() => resolve());
      });
      await untilAborted(ended, signal);
    },
  };
}
