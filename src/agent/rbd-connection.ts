/**
 * The connection of a backend to its pool: made when it is first needed, made anew when the cluster has thrown this
 * client out, and otherwise left to librados, which finds a cluster again that was away.
 */
import type { Logger } from '../log.ts';
import { BackupError, isBackupError } from '../model/errors.ts';
import { isBlocklisted, translateRbdError } from './rbd-errors.ts';
import type { ClusterSettings, RbdPool, RbdStep, RbdStepResult } from './rbd-steps.ts';
import { createThreadPool, workerModule, type ThreadPool } from './thread-pool.ts';

/** As many writes as a restore has under way; they start as they are needed. */
const rbdThreads = 4;

export type ResultOf<K extends RbdStepResult['kind']> = Extract<RbdStepResult, { readonly kind: K }>;

/** `transfer`: buffers that are handed over with the step. */
export type StepOptions = {
  readonly signal?: AbortSignal;
  readonly transfer?: readonly ArrayBuffer[];
};

export type RbdConnection = {
  readonly settings: ClusterSettings;
  /** The pool. Throws `config-invalid` or `agent-unavailable`, and tries again when it is asked again. */
  pool(): Promise<RbdPool>;
  /**
   * Runs a step about `thing` and returns its result, which is of the kind that is named. A step that runs is finished
   * whatever becomes of `signal`.
   */
  run<K extends RbdStepResult['kind']>(
    kind: K,
    thing: string,
    step: RbdStep,
    options?: StepOptions,
  ): Promise<ResultOf<K>>;
  /** Waits for steps that run. Everything that was opened must be closed before. */
  close(): Promise<void>;
};

export function createRbdConnection(deps: {
  readonly settings: ClusterSettings;
  readonly log: Logger;
}): RbdConnection {
  const { log, settings } = deps;
  const threads: ThreadPool<RbdStep, RbdStepResult> = createThreadPool({
    module: workerModule('rbd-worker'),
    threads: rbdThreads,
  });
  const forever = new AbortController().signal;
  const { clusterName: cluster, pool: poolName } = settings;
  /** Connections that are of no more use, but may still have images open. */
  const retired: Promise<RbdPool>[] = [];
  let connecting: Promise<RbdPool> | undefined;

  const connect = async (): Promise<RbdPool> => {
    const result = await threads.run({ kind: 'connect', settings }, [], forever);
    if (!isKind(result, 'pool')) throw unexpected(result, 'connect');
    log.info({ cluster, pool: poolName, fsid: result.pool.fsid }, 'connected to Ceph');
    return result.pool;
  };

  const retire = (error: unknown): void => {
    if (!isBlocklisted(error) || connecting === undefined) return;
    log.warn({ cluster, pool: poolName }, 'Ceph has blocklisted this client: connecting anew');
    retired.push(connecting);
    connecting = undefined;
  };

  return {
    settings,
    async pool() {
      connecting ??= connect();
      const attempt = connecting;
      try {
        return await attempt;
      } catch (error) {
        if (connecting === attempt) connecting = undefined;
        throw error;
      }
    },
    async run(kind, thing, step, options = {}) {
      let result: RbdStepResult;
      try {
        result = await threads.run(step, options.transfer ?? [], options.signal ?? forever);
      } catch (error) {
        retire(error);
        throw isBackupError(error) ? error : translateRbdError(error, cluster, thing);
      }
      if (isKind(result, kind)) return result;
      throw unexpected(result, step.kind);
    },
    async close() {
      const made = connecting === undefined ? retired : [...retired, connecting];
      for (const attempt of await Promise.allSettled(made)) {
        if (attempt.status !== 'fulfilled') continue;
        await threads.run({ kind: 'disconnect', pool: attempt.value }, [], forever);
      }
      await threads.close();
    },
  };
}

function isKind<K extends RbdStepResult['kind']>(result: RbdStepResult, kind: K): result is ResultOf<K> {
  return result.kind === kind;
}

function unexpected(result: RbdStepResult, step: string): BackupError {
  return new BackupError('bug', `step ${step} has a result of kind ${result.kind}`);
}
