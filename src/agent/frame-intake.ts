/** Takes a stream of frames into a restore target. */
import { inTime } from '../async/in-time.ts';
import { createBudget } from '../async/limit.ts';
import { createTaskGroup } from '../async/task-group.ts';
import { BackupError, isErrorCode } from '../model/errors.ts';
import { streamError, streamTotals, type WriteTotals } from '../protocol/calls.ts';
import { createFrameDecoder, type Frame } from '../protocol/frames.ts';
import type { PageBuffers } from './page-buffers.ts';
import type { WriteTarget } from './volume-backend.ts';
import { createWrittenRanges } from './written-ranges.ts';

/** Frames that are written side by side; each holds the buffer that it was decoded into. */
const writesInFlight = 4;

/**
 * Writes data and zero frames, in any order of offsets, each byte at most once; flushes; and only then returns the
 * sums. Throws `corrupt` for damaged frames, a stream without totals or with others than it held, `message-invalid`
 * for ranges outside the volume or written twice, `cancelled` after nothing came for `silenceMs`, and what the sender's error
 * frame or the target say.
 */
export async function takeFrames(
  body: AsyncIterable<Uint8Array>,
  target: WriteTarget,
  buffers: PageBuffers,
  signal: AbortSignal,
  silenceMs: number,
): Promise<WriteTotals> {
  const decoder = createFrameDecoder(buffers.take());
  const written = createWrittenRanges();
  const group = createTaskGroup(writesInFlight, signal);
  const slots = createBudget(writesInFlight);
  const sums = { data_bytes: 0, zero_bytes: 0 };
  let ended = false;

  const write = async (frame: Frame) => {
    const release = await slots.acquire(1, group.signal);
    const { offset, data } = frame;
    const held = decoder.exchange(buffers.take());
    const letGo = () => {
      buffers.give(held);
      release();
    };
    try {
      await group.add(() => target.write(offset, data).finally(letGo));
    } catch (error) {
      letGo();
      throw error;
    }
  };

  const take = async (frame: Frame) => {
    if (ended) throw corrupt('frames follow the totals');
    switch (frame.type) {
      case 'data':
      case 'zero':
        if (frame.length > target.sizeBytes - frame.offset) {
          throw new BackupError(
            'message-invalid',
            `a frame of ${frame.length} bytes at ${frame.offset} reaches over the end of the volume at ${target.sizeBytes}: resize it first`,
          );
        }
        if (frame.digests.length > 0)
          throw new BackupError('message-invalid', 'data into a volume carries no digests');
        written.add(frame.offset, frame.length);
        if (frame.type === 'data') {
          sums.data_bytes += frame.length;
          await write(frame);
        } else {
          const { offset, length } = frame;
          sums.zero_bytes += length;
          await group.add(() => target.zero(offset, length));
        }
        return;
      case 'idle':
        return;
      case 'totals':
        requireTotals(frame, sums);
        ended = true;
        return;
      case 'error':
        throw senderError(frame);
      case 'plan':
      case 'digests':
        throw new BackupError(
          'message-invalid',
          `a ${frame.type} frame has no place in a stream into a volume`,
        );
      default:
        frame.type satisfies never;
    }
  };

  try {
    for await (const bytes of unlessSilent(body, silenceMs)) {
      for (const frame of decoder.push(bytes)) await take(frame);
      group.signal.throwIfAborted();
    }
    if (!ended) throw corrupt('the stream ends without its totals: it was cut');
    if (!decoder.atBoundary) throw corrupt('the stream ends inside a frame');
  } catch (error) {
    group.cancel(error);
  }
  await group.settle().finally(() => buffers.give(decoder.exchange(Buffer.alloc(0))));
  await target.flush();
  return sums;
}

/** The pieces of `body`. Throws `cancelled` when one takes longer than `silenceMs`: time counts only while it is waited for. */
async function* unlessSilent(body: AsyncIterable<Uint8Array>, silenceMs: number): AsyncGenerator<Uint8Array> {
  const pieces = body[Symbol.asyncIterator]();
  const silent = () => {
    throw new BackupError(
      'cancelled',
      `nothing has come from the sender for ${silenceMs / 1000} s: see whether it is stopped, or the network cut; then write all of it again`,
    );
  };
  try {
    for (;;) {
      const piece = await inTime(pieces.next(), silenceMs, silent);
      if (piece.done === true) return;
      yield piece.value;
    }
  } finally {
    // Not waited for: it comes after the piece that a silent sender owes.
    void pieces.return?.();
  }
}

function requireTotals(frame: Frame, sums: WriteTotals): void {
  const parsed = streamTotals.safeParse(jsonOf(frame));
  if (!parsed.success) throw corrupt('its totals are not valid JSON of totals');
  const { data_bytes, zero_bytes } = parsed.data;
  if (data_bytes === sums.data_bytes && zero_bytes === sums.zero_bytes) return;
  throw corrupt(
    `its totals say ${data_bytes} bytes of data and ${zero_bytes} of zeros, it held ${sums.data_bytes} and ${sums.zero_bytes}`,
  );
}

function senderError(frame: Frame): BackupError {
  const parsed = streamError.safeParse(jsonOf(frame));
  if (!parsed.success) return corrupt('its error frame is not valid');
  const { code, message } = parsed.data;
  return new BackupError(isErrorCode(code) ? code : 'cancelled', `the sender gave up: ${message}`);
}

function jsonOf(frame: Frame): unknown {
  try {
    return JSON.parse(frame.data.toString('utf8'));
  } catch {
    return undefined;
  }
}

function corrupt(what: string): BackupError {
  return new BackupError(
    'corrupt',
    `stream into the volume: ${what}; the volume's content is undefined, write all of it again`,
  );
}
