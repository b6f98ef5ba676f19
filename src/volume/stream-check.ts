/**
 * The rules of one agent stream, as a state machine without I/O: frames go in, events come out, and the first
 * frame that breaks a rule throws `corrupt`. Nothing of a frame is handed on before the frame has passed.
 *
 * - The plan comes first and once, totals come last; idle frames may stand anywhere between.
 * - Ranges are sorted, do not overlap, start on a block boundary and end on one or at the end of the volume.
 * - A range that carries digests has one for each block, the short last block included.
 * - Where the stream promises to cover given ranges, it leaves no gap in them and adds nothing to them.
 * - The totals are those of the frames that came, and as many bytes as the plan says, where it says so: blocks that turn out to
 *   be zeros move from data to zeros.
 */
import { z } from 'zod';
import { digestBytes } from '../model/digest.ts';
import { BackupError } from '../model/errors.ts';
import { blockCount, endOf, type Extent } from '../model/extent.ts';
import { streamError, streamPlan, streamTotals, type StreamTotals } from '../protocol/calls.ts';
import type { Frame } from '../protocol/frames.ts';
import type { ChangeEvent } from './block-source.ts';
import { agentError } from './agent-error.ts';

/** What a stream has to be. */
export type StreamRules = {
  /** For messages: which stream of which volume and agent. */
  readonly what: string;
  readonly lengthBytes: number;
  readonly blockSize: number;
  /** Nothing may lie below. */
  readonly startOffset: number;
  /** `changes`: data and zero frames; `digests`: digests and zero frames. */
  readonly carries: 'changes' | 'digests';
  /** Sorted ranges that do not touch each other, to be covered exactly; null where only the sender knows. */
  readonly cover: readonly Extent[] | null;
};

export type StreamCheck = {
  /** The event of a frame, or null for one that says nothing. Throws `corrupt`, or what an error frame says. */
  accept(frame: Frame): ChangeEvent | null;
  /** The end of the last range that came, or the start offset: where a cut stream goes on. */
  readonly position: number;
  /** What came so far; `read_bytes` is 0 until the totals came. */
  readonly counted: StreamTotals;
  /** The totals came. */
  readonly ended: boolean;
  /** No further range can follow. */
  readonly covered: boolean;
};

export function createStreamCheck(rules: StreamRules): StreamCheck {
  const { lengthBytes, blockSize, cover } = rules;
  const counted = { data_bytes: 0, zero_bytes: 0, digests: 0, read_bytes: 0 };
  let position = rules.startOffset;
  let coverIndex = 0;
  let plannedBytes: number | null = null;
  let stage: 'plan' | 'ranges' | 'ended' = 'plan';

  const violation = (sentence: string): BackupError =>
    new BackupError('corrupt', `${rules.what}: the agent ${sentence}; check its version and its log`);

  const parse = <T>(schema: z.ZodType<T>, frame: Frame): T => {
    const text = frame.data.toString('utf8');
    try {
      return schema.parse(JSON.parse(text));
    } catch (cause) {
      throw new BackupError(
        'corrupt',
        `${rules.what}: the agent sent a ${frame.type} frame that is not as agreed: ` +
          `${JSON.stringify(text.slice(0, 200))}; check its version and its log`,
        { cause },
      );
    }
  };

  const takeRange = (frame: Frame): void => {
    const end = endOf(frame);
    const name = `a ${frame.type} frame of ${frame.length} bytes at ${frame.offset}`;
    if (stage === 'plan') throw violation(`sent ${name} before the plan`);
    if (end > lengthBytes) throw violation(`sent ${name}, beyond the end of the volume at ${lengthBytes}`);
    if (frame.offset < position) throw violation(`sent ${name}, below ${position} where it had got to`);
    if (frame.offset % blockSize !== 0 || (end % blockSize !== 0 && end !== lengthBytes)) {
      throw violation(`sent ${name}, not on boundaries of blocks of ${blockSize} bytes`);
    }
    if (frame.type !== 'zero') {
      const blocks = blockCount(frame.length, blockSize);
      if (frame.digests.length !== blocks * digestBytes) {
        throw violation(
          `sent ${name} with ${frame.digests.length / digestBytes} digests for ${blocks} blocks`,
        );
      }
    }
    if (cover !== null) takeCovered(frame, name, cover);
    position = end;
  };

  const takeCovered = (frame: Frame, name: string, ranges: readonly Extent[]): void => {
    const range = ranges[coverIndex];
    if (range === undefined) throw violation(`sent ${name}, after all that was asked for`);
    const expected = Math.max(range.offset, position);
    if (frame.offset !== expected) throw violation(`sent ${name}, where ${expected} had to follow`);
    if (endOf(frame) > endOf(range)) {
      throw violation(`sent ${name}, beyond the end at ${endOf(range)} of what was asked for`);
    }
    if (endOf(frame) === endOf(range)) coverIndex += 1;
  };

  const takeTotals = (frame: Frame): StreamTotals => {
    const totals = parse(streamTotals, frame);
    const missing = cover?.[coverIndex];
    if (missing !== undefined) {
      throw violation(`ended at ${position}, but not all up to ${endOf(missing)} has come`);
    }
    for (const field of ['data_bytes', 'zero_bytes', 'digests'] as const) {
      if (totals[field] !== counted[field]) {
        throw violation(`ended with ${field} ${totals[field]}, but ${counted[field]} came`);
      }
    }
    const came = counted.data_bytes + counted.zero_bytes;
    if (plannedBytes !== null && plannedBytes !== came) {
      throw violation(`planned ${plannedBytes} bytes of data and zeros, but ended after ${came}`);
    }
    return totals;
  };

  const unexpected = (frame: Frame): BackupError =>
    violation(`sent a ${frame.type} frame at ${frame.offset}, which has no place in this stream`);

  return {
    get position() {
      return position;
    },
    get counted() {
      return counted;
    },
    get ended() {
      return stage === 'ended';
    },
    get covered() {
      return stage !== 'plan' && (cover === null ? position === lengthBytes : coverIndex === cover.length);
    },
    accept(frame) {
      if (stage === 'ended') throw violation(`sent a ${frame.type} frame after the totals`);
      switch (frame.type) {
        case 'plan': {
          if (stage !== 'plan') throw violation('sent a second plan');
          if (frame.length !== lengthBytes) {
            throw violation(`plans a stream of ${frame.length} bytes, but the volume has ${lengthBytes}`);
          }
          const plan = parse(streamPlan, frame);
          const { data_bytes: data, zero_bytes: zero } = plan;
          plannedBytes = data === null || zero === null ? null : data + zero;
          stage = 'ranges';
          return { kind: 'plan', plan };
        }
        case 'data':
          if (rules.carries !== 'changes') throw unexpected(frame);
          takeRange(frame);
          counted.data_bytes += frame.length;
          counted.digests += frame.digests.length / digestBytes;
          return {
            kind: 'data',
            offset: frame.offset,
            length: frame.length,
            digests: frame.digests,
            bytes: frame.data,
          };
        case 'digests':
          if (rules.carries !== 'digests') throw unexpected(frame);
          takeRange(frame);
          counted.data_bytes += frame.length;
          counted.digests += frame.digests.length / digestBytes;
          return { kind: 'digests', offset: frame.offset, length: frame.length, digests: frame.digests };
        case 'zero':
          takeRange(frame);
          counted.zero_bytes += frame.length;
          return { kind: 'zero', offset: frame.offset, length: frame.length };
        case 'idle':
          return null;
        case 'error': {
          const { code, message } = parse(streamError, frame);
          throw agentError(code, `${rules.what}: ${message}`);
        }
        case 'totals':
          break;
      }
      if (stage === 'plan') throw violation('sent totals before the plan');
      const totals = takeTotals(frame);
      counted.read_bytes = totals.read_bytes;
      stage = 'ended';
      return { kind: 'totals', totals };
    },
  };
}
