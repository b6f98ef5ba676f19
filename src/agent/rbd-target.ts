/** An RBD image as the target of a restore. */
import { BackupError, isBackupError } from '../model/errors.ts';
import type { RbdImage } from './rbd-images.ts';
import type { WriteTarget } from './volume-backend.ts';

/** Zeros that one step writes: whole objects among them are removed, so this takes a moment, not the time of writing. */
const zeroBytes = 256 * 1024 * 1024;
/** Buffers that are kept for the next writes: as many as a restore has under way. */
const keptBuffers = 4;

/**
 * Takes over the image. `ended` is called once when the target is closed, with the end of closing the image: a cluster that has
 * not answered a write does not answer that either, and nobody else has to wait for it.
 */
export function createRbdTarget(deps: {
  readonly volume: string;
  readonly image: RbdImage;
  readonly ended: (closing: Promise<void>) => void;
}): WriteTarget {
  const { image, volume } = deps;
  const { sizeBytes } = image.facts;
  const { handle } = image;
  const free: ArrayBuffer[] = [];
  let closing: Promise<void> | undefined;
  let unanswered = false;

  const run: RbdImage['run'] = async (...args) => {
    try {
      return await image.run(...args);
    } catch (error) {
      if (isBackupError(error, 'agent-unavailable')) unanswered = true;
      throw error;
    }
  };
  const requireInside = (offset: number, length: number) => {
    if (closing !== undefined) throw new BackupError('bug', `the restore target ${volume} is closed`);
    if (offset >= 0 && length >= 0 && offset + length <= sizeBytes) return;
    throw new BackupError(
      'message-invalid',
      `bytes ${offset} to ${offset + length} lie outside ${volume}, which has ${sizeBytes}: resize it first`,
    );
  };
  const take = (length: number): ArrayBuffer => {
    const at = free.findIndex(({ byteLength }) => byteLength >= length);
    return (at < 0 ? undefined : free.splice(at, 1)[0]) ?? new ArrayBuffer(length);
  };

  return {
    sizeBytes,
    async write(offset, bytes) {
      requireInside(offset, bytes.length);
      const copy = new Uint8Array(take(bytes.length), 0, bytes.length);
      copy.set(bytes);
      const step = { kind: 'write', image: handle, offset, bytes: copy } as const;
      const done = await run('written', `${volume} at byte ${offset}`, step, {
        transfer: [copy.buffer],
      });
      if (free.length < keptBuffers) free.push(done.bytes.buffer);
    },
    async zero(offset, length) {
      requireInside(offset, length);
      for (let at = offset; at < offset + length;) {
        const end = Math.min(offset + length, at - (at % zeroBytes) + zeroBytes);
        const step = { kind: 'zero', image: handle, offset: at, length: end - at } as const;
        await run('done', `${volume} at byte ${at}`, step);
        at = end;
      }
    },
    async flush() {
      requireInside(0, 0);
      await run('done', volume, { kind: 'flush', image: handle });
    },
    close() {
      if (closing === undefined) {
        const closed = image.close();
        deps.ended(closed);
        closing = unanswered ? Promise.resolve() : closed;
      }
      return closing;
    },
  };
}
