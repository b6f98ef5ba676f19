/**
 * The images of one connection that are open. librbd frees an image when it is closed, so every use is counted: a close waits
 * for the steps that use the image, happens once, and whatever is left open is closed before the connection goes.
 */
import type { Logger } from '../log.ts';
import { BackupError } from '../model/errors.ts';
import type { RbdSnapshotFacts } from './rbd-calls.ts';
import type { RbdConnection, RbdLease, ResultOf } from './rbd-connection.ts';
import type { RbdImageFacts, RbdPool } from './rbd-steps.ts';

export type RbdImage = {
  /** For reader threads, whose jobs must have ended before the image is closed. */
  readonly handle: bigint;
  readonly pool: RbdPool;
  readonly facts: RbdImageFacts;
  /** The one that is set. */
  readonly snapshot: RbdSnapshotFacts | null;
  /** As that of a lease; `bug` once the image is being closed. */
  readonly run: RbdLease['run'];
  /** May be called twice. A failure is logged: nothing that was written depends on it. */
  close(): Promise<void>;
};

export type RbdImages = {
  /** `snapshot` null: the image itself, for writing; else that snapshot, for reading. Throws `not-found`. */
  open(name: string, snapshot: string | null): Promise<RbdImage>;
  close(): Promise<void>;
};

export function createRbdImages(connection: RbdConnection, log: Logger): RbdImages {
  const live = new Set<RbdImage>();

  const hold = (lease: RbdLease, thing: string, opened: ResultOf<'opened'>): RbdImage => {
    const { image, facts, snapshot } = opened;
    const running = new Set<Promise<unknown>>();
    let closing: Promise<void> | undefined;

    const close = async (): Promise<void> => {
      await Promise.allSettled(running);
      try {
        await lease.run('done', thing, { kind: 'close', image });
      } catch (err) {
        log.warn({ image: thing, err }, 'image was not closed as it should be');
      } finally {
        lease.release();
        live.delete(held);
      }
    };

    const track = (ended: Promise<unknown>): void => {
      running.add(ended);
      ended.then(
        () => running.delete(ended),
        () => running.delete(ended),
      );
    };

    const held: RbdImage = {
      handle: image,
      pool: lease.pool,
      facts,
      snapshot,
      run(kind, what, step, options) {
        if (closing !== undefined) return Promise.reject(new BackupError('bug', `${thing} is closed`));
        return lease.run(kind, what, step, { ...options, track });
      },
      close() {
        closing ??= close();
        return closing;
      },
    };
    live.add(held);
    return held;
  };

  return {
    async open(name, snapshot) {
      const lease = await connection.lease();
      const thing = snapshot === null ? name : `snapshot ${snapshot} of ${name}`;
      try {
        const step = { kind: 'open', pool: lease.pool, name, snapshot } as const;
        return hold(lease, thing, await lease.run('opened', thing, step));
      } catch (error) {
        lease.release();
        throw error;
      }
    },
    async close() {
      await Promise.all([...live].map((image) => image.close()));
    },
  };
}
