/** Starting and stopping: what was acquired is released in the opposite order, whatever fails on the way. */
import type { Logger } from '../log.ts';
import { BackupError } from '../model/errors.ts';

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
 * Starts something, runs until the first SIGTERM or SIGINT, and closes it; a second one ends the process at once. One that comes
 * during the start aborts its signal, and what has been started all the same is closed. Returns the exit code: 0, or 1 if
 * something could not be closed. Throws what keeps it from starting.
 */
export async function runUntilSignal(
  log: Logger,
  start: (stopping: AbortSignal) => Promise<{ close(): Promise<void> }>,
  options: { readonly exit?: (code: number) => void } = {},
): Promise<number> {
  const exit = options.exit ?? ((code: number) => process.exit(code));
  const { promise: asked, resolve: stop } = Promise.withResolvers<NodeJS.Signals>();
  const stopping = new AbortController();
  let starting = true;
  let count = 0;
  const onSignal = (name: NodeJS.Signals) => {
    count += 1;
    stop(name);
    if (starting) stopping.abort(new BackupError('cancelled', `stopped by ${name}`));
    if (count === 1) return;
    log.warn({ signal: name }, 'second signal: ending at once, the next start puts things right');
    exit(1);
  };
  for (const name of stopSignals) process.on(name, onSignal);
  try {
    const running = await started(() => start(stopping.signal), stopping.signal);
    starting = false;
    if (running === undefined) {
      log.info('stopped before it was ready');
      return 0;
    }
    const signal = await asked;
    log.info({ signal }, 'stopping: running operations get time to end; a second signal ends at once');
    return await closed(running, log);
  } finally {
    for (const name of stopSignals) process.off(name, onSignal);
  }
}

/** What was started, or undefined if a stop kept it from that. */
async function started<T>(start: () => Promise<T>, stopping: AbortSignal): Promise<T | undefined> {
  try {
    return await start();
  } catch (error) {
    if (stopping.aborted) return undefined;
    throw error;
  }
}

async function closed(running: { close(): Promise<void> }, log: Logger): Promise<number> {
  try {
    await running.close();
    log.info('stopped');
    return 0;
  } catch (err) {
    log.error({ err }, 'stopped, but not everything was closed');
    return 1;
  }
}
