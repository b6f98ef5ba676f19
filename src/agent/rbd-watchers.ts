/** Whether somebody else has an image open for writing: a guest, or another restore. */
import { BackupError, throwIfAborted } from '../model/errors.ts';
import type { RbdImage } from './rbd-images.ts';

/** Between two questions who has the image open. */
const askAgainMs = 1000;

/**
 * Returns once nobody but this client has the image open for writing. Waits up to `watchTimeoutS` for others to let
 * go, since Ceph keeps the watch of a client that died for half a minute; throws `state-invalid` if they do not, and
 * `cancelled` when `signal` aborts.
 */
export async function requireAlone(deps: {
  readonly volume: string;
  readonly image: Pick<RbdImage, 'run' | 'handle' | 'pool'>;
  readonly watchTimeoutS: number;
  readonly sleep: (milliseconds: number) => Promise<void>;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { image, signal, sleep, volume, watchTimeoutS } = deps;
  const step = { kind: 'others', pool: image.pool, image: image.handle } as const;
  for (let waitedMs = 0; ; waitedMs += askAgainMs) {
    throwIfAborted(signal);
    const { names } = await image.run('names', volume, step);
    if (names.length === 0) return;
    if (waitedMs >= watchTimeoutS * 1000) {
      throw new BackupError(
        'state-invalid',
        `${volume} is not restored to while others have it open (${names.join(', ')}): detach it or end what uses it (see rbd status)`,
      );
    }
    await sleep(askAgainMs);
  }
}
