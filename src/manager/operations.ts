/**
 * The operations of this process: what runs, how far it is, and what became of it. A bounded number runs at
 * once, the rest waits in order; deletions have places of their own, since they do not wait for backups in Cinder. Finished ones are remembered up to a bound, and the bad ranges of verifies up to a lower one.
 * The registry is where a failed operation is logged; the verbs only throw.
 */
import { randomUUID } from 'node:crypto';
import { inTime } from '../async/in-time.ts';
import { createBudget } from '../async/limit.ts';
import type { Logger } from '../log.ts';
import type { BackupMode } from '../layout/metadata-document.ts';
import type { Clock } from '../model/clock.ts';
import { BackupError, isBackupError, messageOf, type ErrorCode } from '../model/errors.ts';
import type { Progress, VerifyOutcome } from '../pipeline/jobs.ts';

export type OperationVerb = 'create' | 'restore' | 'delete' | 'verify';
export type OperationState = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';

export type OperationSubject = {
  readonly verb: OperationVerb;
  readonly projectId: string;
  readonly backupId: string;
  readonly volumeId: string;
};

export type Operation = OperationSubject & {
  readonly id: string;
  readonly state: OperationState;
  /** How a create finds its bytes, and why; null for other verbs and until it is known. */
  readonly mode: BackupMode | null;
  readonly reason: string | null;
  readonly progress: Readonly<Progress>;
  /** Volume bytes per second since the start; null while nothing is done. */
  readonly rateBytesPerSecond: number | null;
  /** Seconds that are left at this rate; null while unknown, 0 when finished. */
  readonly secondsLeft: number | null;
  readonly queuedAt: Date;
  readonly startedAt: Date | null;
  readonly finishedAt: Date | null;
  readonly error: { readonly code: ErrorCode; readonly message: string } | null;
  readonly verified: VerifyOutcome | null;
};

/** What a verb is given while it runs. */
export type OperationRun = {
  readonly id: string;
  readonly signal: AbortSignal;
  readonly progress: Progress;
  /** Tells which way a create goes; the last word counts. */
  explain(mode: BackupMode, reason: string): void;
  /** Keeps the result of a verify. */
  keep(outcome: VerifyOutcome): void;
  /** Has `work` begin when the operation has ended: what the next one on the backup need not wait for. A drain cancels it. */
  leave(work: (signal: AbortSignal) => Promise<void>): void;
};

export type Operations = {
  /**
   * Queues `work`. `done` resolves when it has ended, however it ended. `work` is called also when it is cancelled before
   * its turn, or when the registry drains: with an aborted signal, to give back what was taken for it.
   *
   * It waits for the end of those before it that write the same backup, also when it is cancelled; a deletion for that of all. Who
   * asks may be early: a row says that an operation is over before the operation has ended.
   */
  start(subject: OperationSubject, work: (run: OperationRun) => Promise<void>): StartedOperation;
  get(id: string): Operation | undefined;
  /** Resolves when the operation has ended, however it ended; undefined if it has, or is not known. */
  ended(id: string): Promise<void> | undefined;
  /** Running and queued first, then the finished ones, each the newest first. */
  list(): readonly Operation[];
  /** True while an operation on that backup is queued or runs. */
  isBusy(backupId: string): boolean;
  /** The operation of that verb that is queued or runs on that backup. */
  find(verb: OperationVerb, backupId: string): StartedOperation | undefined;
  /** Throws `busy` while as many wait as may: asked before rows are taken for another one. */
  requireRoom(): void;
  /**
   * Cancels one operation; its end comes later. `not-found`, and `state-invalid` if it has ended or is a deletion: what
   * is half deleted has no other way than to go on.
   */
  cancel(id: string, reason: string): void;
  /** Cancels at once what is queued or runs on a backup, deletions excepted; resolves when all of it has ended. */
  cancelBackup(backupId: string, reason: string): Promise<void>;
  /**
   * Takes nothing more, waits up to `timeoutMs` for what runs or waits for its turn, then cancels the rest and waits for its
   * cleaning up, up to `cleanupTimeoutMs`. What has not ended even then is logged, and left to the next start.
   */
  drain(timeoutMs: number): Promise<void>;
};

export type StartedOperation = {
  readonly id: string;
  readonly done: Promise<void>;
  /** Resolves when what it left for later has ended too. */
  readonly settled: Promise<void>;
};

type Entry = {
  readonly subject: OperationSubject;
  readonly id: string;
  readonly controller: AbortController;
  readonly progress: Progress;
  readonly queuedAt: Date;
  state: OperationState;
  mode: BackupMode | null;
  reason: string | null;
  startedAt: Date | null;
  finishedAt: Date | null;
  error: Operation['error'];
  verified: VerifyOutcome | null;
  done: Promise<void>;
  settled: Promise<void>;
};

/** Finished verifies whose bad ranges are remembered one by one: each may have a thousand. */
const toldVerifies = 20;

export function createOperations(deps: {
  /** Operations that run at once (`backup_max_operations`). */
  readonly maxRunning: number;
  /** Operations that wait while more can be asked for. */
  readonly maxQueued: number;
  /** Finished operations that are remembered. */
  readonly maxFinished: number;
  /** How long a drain waits for what it has cancelled. */
  readonly cleanupTimeoutMs: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** Told of every end: for metrics. */
  readonly onFinished?: (operation: Operation) => void;
}): Operations {
  const { clock, log } = deps;
  const slots = createBudget(deps.maxRunning);
  const deletionSlots = createBudget(deps.maxRunning);
  const open = new Map<string, Entry>();
  const finished = new Map<string, Operation>();
  const unsettled = new Set<Promise<void>>();
  const ending = new AbortController();
  let isDraining = false;

  type Left = (signal: AbortSignal) => Promise<void>;

  /** Returns what is left for later. */
  const run = async (
    entry: Entry,
    earlier: readonly Promise<void>[],
    work: (run: OperationRun) => Promise<void>,
  ): Promise<readonly Left[]> => {
    const { id, subject, controller, progress } = entry;
    const fields = { operation: id, verb: subject.verb, backup: subject.backupId, volume: subject.volumeId };
    const left: Left[] = [];
    let release: (() => void) | undefined;
    try {
      // Without a place: who waits for another one's end must not keep it from its turn.
      await Promise.all(earlier);
      // One that is cancelled while it waits runs without a slot: its rows are taken, and only the verb gives them back.
      const places = subject.verb === 'delete' ? deletionSlots : slots;
      release = await places.acquire(1, controller.signal).catch(() => undefined);
      entry.state = 'running';
      entry.startedAt = clock.now();
      log.info(fields, 'operation started');
      await work({
        id,
        signal: controller.signal,
        progress,
        explain: (mode, reason) => {
          entry.mode = mode;
          entry.reason = reason;
          log.info({ ...fields, mode, reason }, 'way chosen');
        },
        keep: (outcome) => {
          entry.verified = outcome;
        },
        leave: (later) => void left.push(later),
      });
      entry.state = 'succeeded';
    } catch (error) {
      const failure = causeOf(error);
      entry.state = failure.code === 'cancelled' ? 'cancelled' : 'failed';
      entry.error = failure;
      if (failure.code === 'cancelled')
        log.info({ ...fields, reason: failure.message }, 'operation cancelled');
      else log.error({ ...fields, code: failure.code, err: error }, 'operation failed');
    } finally {
      release?.();
      entry.finishedAt = clock.now();
      finish(entry);
      if (entry.state === 'succeeded') log.info({ ...fields, ...progress }, 'operation finished');
    }
    return left;
  };

  const finishLeft = async (id: string, left: readonly Left[]): Promise<void> => {
    for (const work of left) {
      try {
        await work(ending.signal);
      } catch (err) {
        if (!ending.signal.aborted) log.error({ operation: id, err }, 'what an operation left was not done');
      }
    }
  };

  /** Those that have to end before another one of `verb` may write the backup. */
  const before = ({ verb, backupId }: OperationSubject): readonly Promise<void>[] => {
    if (verb === 'verify') return [];
    return Array.from(open.values())
      .filter(({ subject }) => subject.backupId === backupId)
      .filter(({ subject }) => verb === 'delete' || subject.verb !== 'verify')
      .map(({ done }) => done);
  };

  /** Waits until nothing is open any more, and nothing left, at most `timeoutMs`. */
  const allDone = async (timeoutMs: number) => {
    await inTime<unknown>(Promise.all(unsettled), timeoutMs, () => undefined);
  };

  /** Of verifies but the last ones only the counts stay. */
  const forgetRanges = () => {
    let told = 0;
    for (const operation of Array.from(finished.values()).toReversed()) {
      const { id, verified } = operation;
      if (verified === null || verified.badRanges.length === 0) continue;
      told += 1;
      if (told > toldVerifies) finished.set(id, { ...operation, verified: { ...verified, badRanges: [] } });
    }
  };

  const finish = (entry: Entry) => {
    const operation = describe(entry, clock.now());
    open.delete(entry.id);
    finished.set(entry.id, operation);
    for (const oldest of finished.keys()) {
      if (finished.size <= deps.maxFinished) break;
      finished.delete(oldest);
    }
    if (operation.verified !== null) forgetRanges();
    deps.onFinished?.(operation);
  };

  return {
    start(subject, work) {
      const entry: Entry = {
        subject,
        id: randomUUID(),
        controller: new AbortController(),
        progress: { plannedBytes: null, doneBytes: 0, readBytes: 0, sentBytes: 0, storedBytes: 0 },
        queuedAt: clock.now(),
        state: 'queued',
        mode: null,
        reason: null,
        startedAt: null,
        finishedAt: null,
        error: null,
        verified: null,
        done: Promise.resolve(),
        settled: Promise.resolve(),
      };
      const earlier = before(subject);
      open.set(entry.id, entry);
      if (isDraining) entry.controller.abort(stopping());
      const ended = run(entry, earlier, work);
      entry.done = ended.then(() => undefined);
      const settled = ended
        .then((left) => finishLeft(entry.id, left))
        .finally(() => unsettled.delete(settled));
      entry.settled = settled;
      unsettled.add(settled);
      return startedOf(entry);
    },
    get(id) {
      const entry = open.get(id);
      return entry === undefined ? finished.get(id) : describe(entry, clock.now());
    },
    ended: (id) => open.get(id)?.done,
    list() {
      const now = clock.now();
      const running = Array.from(open.values(), (entry) => describe(entry, now));
      return [...running.toReversed(), ...Array.from(finished.values()).toReversed()];
    },
    isBusy: (backupId) => Array.from(open.values()).some((entry) => entry.subject.backupId === backupId),
    find(verb, backupId) {
      const found = Array.from(open.values()).find(
        ({ subject }) => subject.verb === verb && subject.backupId === backupId,
      );
      return found === undefined ? undefined : startedOf(found);
    },
    requireRoom() {
      const queued = Array.from(open.values()).filter(({ state }) => state === 'queued').length;
      if (queued < deps.maxQueued) return;
      throw new BackupError('busy', `${queued} operations wait already: try again when some have ended`);
    },
    cancel(id, reason) {
      const entry = open.get(id);
      if (entry === undefined && !finished.has(id)) {
        throw new BackupError('not-found', `Operation ${id} could not be found.`);
      }
      if (entry === undefined || entry.subject.verb === 'delete') {
        const state = entry === undefined ? 'has ended' : 'is a deletion, which goes on to its end';
        throw new BackupError('state-invalid', `Operation ${id} ${state}: it cannot be cancelled.`);
      }
      entry.controller.abort(new BackupError('cancelled', reason));
    },
    async cancelBackup(backupId, reason) {
      const ended: Promise<void>[] = [];
      for (const { subject, controller, done } of open.values()) {
        if (subject.backupId !== backupId || subject.verb === 'delete') continue;
        controller.abort(new BackupError('cancelled', reason));
        ended.push(done);
      }
      await Promise.all(ended);
    },
    async drain(timeoutMs) {
      isDraining = true;
      if (timeoutMs > 0) await allDone(timeoutMs);
      ending.abort(stopping());
      for (const entry of open.values()) entry.controller.abort(stopping());
      await allDone(deps.cleanupTimeoutMs);
      for (const { id, subject } of open.values()) {
        log.error({ operation: id, ...subject }, 'operation did not end: the next start puts it right');
      }
    },
  };
}

function startedOf({ id, done, settled }: Entry): StartedOperation {
  return { id, done, settled };
}

function stopping(): BackupError {
  return new BackupError('cancelled', 'the service is stopping');
}

/** The error to show: the first of several (what followed is cleaning up), `bug` for what is not ours. */
function causeOf(error: unknown): { code: ErrorCode; message: string } {
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  if (isBackupError(first)) return { code: first.code, message: first.message };
  return { code: 'bug', message: messageOf(first) };
}

function describe(entry: Entry, now: Date): Operation {
  const { subject, id, state, mode, reason, queuedAt, startedAt, finishedAt, error, verified } = entry;
  const progress = { ...entry.progress };
  const seconds = startedAt === null ? 0 : ((finishedAt ?? now).getTime() - startedAt.getTime()) / 1000;
  const rate = seconds > 0 && progress.doneBytes > 0 ? progress.doneBytes / seconds : null;
  const left =
    progress.plannedBytes === null ? null : Math.max(0, progress.plannedBytes - progress.doneBytes);
  const secondsLeft = finishedAt !== null ? 0 : rate === null || left === null ? null : left / rate;
  return {
    ...subject,
    id,
    state,
    mode,
    reason,
    progress,
    rateBytesPerSecond: rate === null ? null : Math.round(rate),
    secondsLeft: secondsLeft === null ? null : Math.round(secondsLeft * 10) / 10,
    queuedAt,
    startedAt,
    finishedAt,
    error,
    verified,
  };
}
