/**
 * A restore's way into a volume: data and zero ranges as a frame stream to the agent. Nothing is repeated here: a
 * target that failed has failed for good, and what it wrote is undefined.
 *
 * - Frames go out in the order of the calls; zero ranges that touch are joined before they go.
 * - At most two frames of a call wait for the kernel; the bytes are the caller's own, none are copied.
 * - While the caller has nothing to write an idle frame goes out now and then: slow is not gone.
 * - An error that the agent answers in the middle is the error of every call from then on.
 */
import type { Logger } from '../log.ts';
import { BackupError, cancelledBy, invariant, isBackupError, messageOf } from '../model/errors.ts';
import { endOf, type Extent } from '../model/extent.ts';
import { writeTotals } from '../protocol/calls.ts';
import {
  dataFrameBytes,
  encodeFrame,
  encodeJsonFrame,
  headerBytes,
  preamble,
  writeHeader,
} from '../protocol/frames.ts';
import { parseAnswer, type AgentAccess } from './agent-connection.ts';
import { openUpload } from './agent-upload.ts';
import type { RestoreTarget } from './block-source.ts';
import { retryAgent, type AgentRetry } from './busy-agent.ts';

const idleFrameMs = 10_000;

/**
 * Opens the target. Connecting is tried again, and an agent that is busy is waited for: it says so before it takes a frame.
 * Throws `agent-unavailable`, `busy`, or `cancelled`; what the agent has against it (`not-found`, `state-invalid`,
 * `access-denied`) comes from here or from the first calls.
 */
export async function openRestoreTarget(options: {
  readonly url: string;
  readonly access: AgentAccess;
  readonly path: string;
  readonly lengthBytes: number;
  readonly idleTimeoutMs: number;
  readonly retry: AgentRetry;
  readonly log: Logger;
  readonly signal: AbortSignal;
}): Promise<RestoreTarget> {
  const { path, lengthBytes, signal } = options;
  const what = `agent ${options.url}: PUT ${path}`;
  const upload = await retryAgent(options.retry, () => openUpload({ ...options, first: preamble }), {
    isRetryable: (error) => isBackupError(error, 'agent-unavailable'),
    onRetry: (err, attempt, delayMs) =>
      options.log.warn({ path, attempt, delayMs, err }, 'agent not ready for a restore: trying again'),
    signal,
  }).catch((error: unknown) => {
    throw signal.aborted ? cancelledBy(signal) : error;
  });

  const sent = { data_bytes: 0, zero_bytes: 0 };
  let heldZero: Extent | undefined;
  let finished = false;
  let quiet = true;
  let writing = 0;

  const send = async (pieces: readonly Buffer[]): Promise<void> => {
    quiet = false;
    writing += 1;
    try {
      await upload.write(pieces);
    } finally {
      writing -= 1;
    }
  };

  const idle = setInterval(
    () => {
      // A failure is kept by the upload, and the next call gets it.
      if (quiet && writing === 0)
        send([encodeFrame({ type: 'idle', offset: 0, length: 0 })]).catch(() => clearInterval(idle));
      quiet = true;
    },
    Math.min(idleFrameMs, options.idleTimeoutMs / 4),
  );

  const sendHeldZero = async (): Promise<void> => {
    if (heldZero === undefined) return;
    const { offset, length } = heldZero;
    heldZero = undefined;
    sent.zero_bytes += length;
    await send([encodeFrame({ type: 'zero', offset, length })]);
  };

  const sendData = (offset: number, bytes: Buffer): Promise<void> => {
    const header = Buffer.allocUnsafe(headerBytes);
    writeHeader(header, 0, { type: 'data', offset, length: bytes.length }, bytes);
    sent.data_bytes += bytes.length;
    return send([header, bytes]);
  };

  const requireOpen = (offset: number, length: number): void => {
    invariant(!finished, `a restore target was used after its end, at offset ${offset}`);
    invariant(
      offset >= 0 && length >= 0 && offset + length <= lengthBytes,
      `a restore writes ${length} bytes at ${offset} into a volume of ${lengthBytes} bytes`,
    );
  };

  const leave = (): void => {
    finished = true;
    clearInterval(idle);
  };

  return {
    async writeData(offset, bytes) {
      requireOpen(offset, bytes.length);
      await sendHeldZero();
      let before = Promise.resolve();
      for (let done = 0; done < bytes.length; done += dataFrameBytes) {
        const taken = sendData(offset + done, bytes.subarray(done, done + dataFrameBytes));
        // Awaited in the next round, or never if the one before fails.
        taken.catch(() => {});
        await before;
        before = taken;
      }
      await before;
    },

    async writeZero(offset, length) {
      requireOpen(offset, length);
      if (length === 0) return;
      if (heldZero !== undefined && endOf(heldZero) === offset) {
        heldZero = { offset: heldZero.offset, length: heldZero.length + length };
        return;
      }
      const before = sendHeldZero();
      heldZero = { offset, length };
      await before;
    },

    async finish() {
      requireOpen(0, 0);
      leave();
      try {
        await sendHeldZero();
        await send([encodeJsonFrame('totals', { ...sent, digests: 0, read_bytes: 0 }, lengthBytes)]);
        const written = parseAnswer(what, writeTotals, await upload.finish());
        if (written.data_bytes !== sent.data_bytes || written.zero_bytes !== sent.zero_bytes) {
          throw new BackupError(
            'corrupt',
            `${what}: ${sent.data_bytes} data and ${sent.zero_bytes} zero bytes were sent, but the agent wrote ` +
              `${written.data_bytes} and ${written.zero_bytes}; check its version and its log`,
          );
        }
      } catch (error) {
        const reason = isBackupError(error)
          ? error
          : new BackupError('bug', messageOf(error), { cause: error });
        await upload.close(reason);
        throw reason;
      }
    },

    async abort(reason) {
      if (!finished) leave();
      await upload.close(
        isBackupError(reason)
          ? reason
          : new BackupError('cancelled', `${what}: the restore was given up`, { cause: reason }),
      );
    },
  };
}
