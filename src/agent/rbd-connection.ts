/**
 * Connections to a pool: made when they are first needed, shared by all who use them at a time, and left to librados,
 * which finds a cluster again that was away. One is given up, and closed when nobody uses it any more, once it can
 * hold work up for ever: after the cluster has blocklisted it, and after a change of an image has not been answered,
 * since a lock that it then leaves behind can be broken by every client but itself.
 */
import { anySignal } from '../async/any-signal.ts';
import { inTime } from '../async/in-time.ts';
import type { Logger } from '../log.ts';
import { BackupError, isBackupError } from '../model/errors.ts';
import { isBlocklisted, isUnanswered, translateRbdError } from './rbd-errors.ts';
import type { ClusterSettings, RbdPool, RbdStep, RbdStepResult } from './rbd-steps.ts';
import { createThreadPool, workerModule, type ThreadPool } from './thread-pool.ts';

/** As many writes as a restore has under way; they start as they are needed. */
const rbdThreads = 4;

export type RbdThreads = ThreadPool<RbdStep, RbdStepResult>;

/** A thread holds one step: whatever came behind one that hangs would hang too, though other threads are idle. */
export function createRbdThreads(module: URL = workerModule('rbd-worker')): RbdThreads {
  return createThreadPool({ module, threads: rbdThreads, jobsPerWorker: 1 });
}

export type ResultOf<K extends RbdStepResult['kind']> = Extract<RbdStepResult, { readonly kind: K }>;

/** How much longer than for one answer a step is waited for: a lock that a dead client left takes half a minute. */
const graceS = 40;
/** What is asked of the monitors until a pool is open: to be let in, and which pools there are. */
const monitorAnswers = 2;

export type StepOptions = {
  readonly signal?: AbortSignal;
  /** Buffers that are handed over with the step. */
  readonly transfer?: readonly ArrayBuffer[];
  /** Is given the end of the step itself, which may come long after nobody waits for it any more. */
  readonly track?: (ended: Promise<unknown>) => void;
};

export type RbdLease = {
  /** Good until `release`. */
  readonly pool: RbdPool;
  /**
   * Runs a step about `thing` and returns its result, which is of the kind that is named. A step that runs is finished
   * whatever becomes of `signal`; one that does not end (librbd waits for locks without a limit) is `agent-unavailable`
   * after a time, and goes on for itself. One that has not begun by then never does: what an old restore would still
   * have written must not come over what a guest has written since. Only a `close` is done however late.
   */
  readonly run: <K extends RbdStepResult['kind']>(
    kind: K,
    thing: string,
    step: RbdStep,
    options?: StepOptions,
  ) => Promise<ResultOf<K>>;
  /** May be called twice. */
  release(): void;
};

export type RbdConnection = {
  /** Throws `config-invalid` or `agent-unavailable`, and connects again when it is asked again. */
  lease(): Promise<RbdLease>;
  use<T>(work: (lease: RbdLease) => Promise<T>): Promise<T>;
  /** Waits until all leases are given back, and all steps have ended. */
  close(): Promise<void>;
};

type Link = {
  readonly pool: Promise<RbdPool>;
  /** The same, and also if it comes when nobody waits for it any more: it is closed then. */
  readonly connecting: Promise<RbdPool>;
  readonly gone: PromiseWithResolvers<void>;
  users: number;
  retired: boolean;
};

const forever = new AbortController().signal;

export function createRbdConnection(deps: {
  readonly settings: ClusterSettings;
  readonly threads: RbdThreads;
  readonly log: Logger;
}): RbdConnection {
  const { log, settings, threads } = deps;
  const { clusterName: cluster, pool: poolName } = settings;
  const links = new Set<Link>();
  let current: Link | undefined;

  const connect = async (signal: AbortSignal): Promise<RbdPool> => {
    const result = await threads.run({ kind: 'connect', settings }, [], signal);
    if (isKind(result, 'pool')) return result.pool;
    throw unexpected(result, 'connect');
  };

  const connectInTime = async (connecting: Promise<RbdPool>, givenUp: AbortController): Promise<RbdPool> => {
    try {
      const pool = await answered(connecting, monitorAnswers * settings.connectTimeoutS);
      log.info({ cluster, pool: poolName, fsid: pool.fsid }, 'connected to Ceph');
      return pool;
    } catch (error) {
      givenUp.abort(error);
      throw translateRbdError(error, cluster, `pool ${poolName}`);
    }
  };

  const begin = (): Link => {
    const givenUp = new AbortController();
    const connecting = connect(givenUp.signal);
    const pool = connectInTime(connecting, givenUp);
    const link = { pool, connecting, gone: Promise.withResolvers<void>(), users: 0, retired: false };
    links.add(link);
    return link;
  };

  const disconnect = async (link: Link): Promise<void> => {
    try {
      const pool = await link.connecting.catch(() => undefined);
      if (pool !== undefined) await threads.run({ kind: 'disconnect', pool }, [], forever);
    } catch (err) {
      log.warn({ cluster, pool: poolName, err }, 'connection to Ceph was not closed');
    } finally {
      link.gone.resolve();
    }
  };

  const settle = (link: Link): void => {
    if (link.retired && link.users === 0 && links.delete(link)) void disconnect(link);
  };

  const retire = (link: Link): void => {
    if (current === link) current = undefined;
    link.retired = true;
    settle(link);
  };

  /** An image that is opened after nobody waits for it any more is closed again. Called while the step still runs. */
  const closeLate = async (link: Link, running: Promise<RbdStepResult>): Promise<void> => {
    link.users += 1;
    try {
      const result = await running.catch(() => undefined);
      if (result === undefined || !isKind(result, 'opened')) return;
      await threads.run({ kind: 'close', image: result.image }, [], forever);
    } catch (err) {
      log.warn({ cluster, pool: poolName, err }, 'image was not closed');
    } finally {
      link.users -= 1;
      settle(link);
    }
  };

  const lease = async (): Promise<RbdLease> => {
    const link = (current ??= begin());
    link.users += 1;
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      link.users -= 1;
      settle(link);
    };
    try {
      const pool = await link.pool;
      return {
        pool,
        release,
        async run(kind, thing, step, options = {}) {
          link.users += 1;
          const { signal, transfer = [] } = options;
          const givenUp = new AbortController();
          const either = signal === undefined ? givenUp.signal : anySignal([signal, givenUp.signal]);
          const running = threads.run(step, transfer, either);
          const ended = running.finally(() => {
            link.users -= 1;
            settle(link);
          });
          ended.catch(() => {});
          options.track?.(ended);
          let result: RbdStepResult;
          try {
            result = await answered(running, settings.answerTimeoutS);
          } catch (error) {
            if (step.kind !== 'close') givenUp.abort(error);
            if (isUnanswered(error)) void closeLate(link, running);
            if (isBlocklisted(error) || (isUnanswered(error) && changes.has(step.kind))) {
              log.warn({ cluster, pool: poolName, step: step.kind, err: error }, 'connecting to Ceph anew');
              retire(link);
            }
            throw isBackupError(error) ? error : translateRbdError(error, cluster, thing);
          }
          if (isKind(result, kind)) return result;
          throw unexpected(result, step.kind);
        },
      };
    } catch (error) {
      retire(link);
      release();
      throw error;
    }
  };

  return {
    lease,
    async use(work) {
      const held = await lease();
      try {
        return await work(held);
      } finally {
        held.release();
      }
    },
    async close() {
      const left = [...links];
      for (const link of left) retire(link);
      await Promise.all(left.map(({ gone }) => gone.promise));
    },
  };
}

/** Steps that may hold the lock of an image. */
const changes: ReadonlySet<RbdStep['kind']> = new Set([
  'make-snapshot',
  'drop-snapshot',
  'write',
  'zero',
  'flush',
]);

/** Throws an error with code ETIMEDOUT if `running` takes longer than the cluster's answers may; it goes on. */
function answered<T>(running: Promise<T>, answersS: number): Promise<T> {
  const limitS = answersS + graceS;
  return inTime(running, limitS * 1000, () => {
    throw Object.assign(new Error(`no answer in ${limitS} s`), { code: 'ETIMEDOUT' });
  });
}

function isKind<K extends RbdStepResult['kind']>(result: RbdStepResult, kind: K): result is ResultOf<K> {
  return result.kind === kind;
}

function unexpected(result: RbdStepResult, step: string): BackupError {
  return new BackupError('bug', `step ${step} has a result of kind ${result.kind}`);
}
