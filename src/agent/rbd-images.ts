/**
 * The images of one connection that are open. librbd frees an image when it is closed, so every use is counted: a close waits
 * for the steps that use the image, happens once, and whatever is left open is closed before the connection goes.
 */
import { BackupError } from '../model/errors.ts';
import type { RbdSnapshotFacts } from './rbd-calls.ts';
import type { RbdConnection, ResultOf, StepOptions } from './rbd-connection.ts';
import type { RbdImageFacts, RbdPool, RbdStep, RbdStepResult } from './rbd-steps.ts';

export type RbdImage = {
  /** For reader threads, whose jobs must have ended before the image is closed. */
  readonly handle: bigint;
  readonly pool: RbdPool;
  readonly facts: RbdImageFacts;
  /** The one that is set. */
  readonly snapshot: RbdSnapshotFacts | null;
  /** As `run` of the connection; `bug` once the image is being closed. */
  run<K extends RbdStepResult['kind']>(
    kind: K,
    thing: string,
    step: RbdStep,
    options?: StepOptions,
  ): Promise<ResultOf<K>>;
  /** May be called twice. */
  close(): Promise<void>;
};

export type RbdImages = {
  /** `snapshot` null: the image itself, for writing; else that snapshot, for reading. Throws `not-found`. */
  open(name: string, snapshot: string | null): Promise<RbdImage>;
  close(): Promise<void>;
};

export function createRbdImages(connection: RbdConnection): RbdImages {
  const live = new Set<RbdImage>();

  const hold = (pool: RbdPool, thing: string, opened: ResultOf<'opened'>): RbdImage => {
    const { image, facts, snapshot } = opened;
    const running = new Set<Promise<unknown>>();
    let closing: Promise<void> | undefined;
    const held: RbdImage = {
      handle: image,
      pool,
      facts,
      snapshot,
      run(kind, what, step, options) {
        if (closing !== undefined) return Promise.reject(new BackupError('bug', `${thing} is closed`));
        const task = connection.run(kind, what, step, options).finally(() => running.delete(task));
        running.add(task);
        return task;
      },
      close() {
        closing ??= (async () => {
          await Promise.allSettled(running);
          try {
            await connection.run('done', thing, { kind: 'close', image });
          } finally {
            live.delete(held);
          }
        })();
        return closing;
      },
    };
    live.add(held);
    return held;
  };

  return {
    async open(name, snapshot) {
      const pool = await connection.pool();
      const thing = snapshot === null ? name : `snapshot ${snapshot} of ${name}`;
      return hold(pool, thing, await connection.run('opened', thing, { kind: 'open', pool, name, snapshot }));
    },
    async close() {
      await Promise.allSettled([...live].map((image) => image.close()));
    },
  };
}
