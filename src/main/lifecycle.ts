/** Starting and stopping: what was acquired is released in the opposite order, whatever fails on the way. */
import type { Logger } from '../log.ts';

export type ReleaseStack = {
  /** Has `release` called by releaseAll, before all that was added earlier. */
  add(what: string, release: () => Promise<void> | void): void;
  /** Releases everything, once: a second call waits for the first. Throws an AggregateError of all that failed. */
  releaseAll(): Promise<void>;
};

export function createReleaseStack(): ReleaseStack {
  const held: { readonly what: string; readonly release: () => Promise<void> | void }[] = [];
  let releasing: Promise<void> | undefined;

  const releaseEach = async (): Promise<void> => {
    const errors: unknown[] = [];
    for (let next = held.pop(); next !== undefined; next = held.pop()) {
      try {
        await next.release();
      } catch (error) {
        errors.push(new Error(`${next.what} was not closed`, { cause: error }));
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, 'not everything was closed');
  };

  return {
    add(what, release) {
      held.push({ what, release });
    },
    releaseAll() {
      releasing ??= releaseEach();
      return releasing;
    },
  };
}

const stopSignals = ['SIGTERM', 'SIGINT'] as const;

/**
 * Runs until the first SIGTERM or SIGINT, then closes; a second one ends the process at once. Returns the exit code: 0, or
 * 1 if something could not be closed.
 */
export async function runUntilSignal(
  log: Logger,
  close: () => Promise<void>,
  options: { readonly exit?: (code: number) => void } = {},
): Promise<number> {
  const exit = options.exit ?? ((code: number) => process.exit(code));
  const { promise: asked, resolve: stop } = Promise.withResolvers<NodeJS.Signals>();
  let count = 0;
  const onSignal = (name: NodeJS.Signals) => {
    count += 1;
    if (count === 1) return stop(name);
    log.warn({ signal: name }, 'second signal: ending at once, the next start puts things right');
    exit(1);
  };
  for (const name of stopSignals) process.on(name, onSignal);
  try {
    const signal = await asked;
    log.info({ signal }, 'stopping: running operations get time to end; a second signal ends at once');
    await close();
    log.info('stopped');
    return 0;
  } catch (err) {
    log.error({ err }, 'stopped, but not everything was closed');
    return 1;
  } finally {
    for (const name of stopSignals) process.off(name, onSignal);
  }
}
