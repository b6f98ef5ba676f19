import { expect, test } from 'vitest';
import { createLogger } from '../../src/log.ts';
import { createOperations, type OperationRun } from '../../src/manager/operations.ts';
import { BackupError } from '../../src/model/errors.ts';

const subject = { verb: 'create', projectId: 'p', backupId: 'b', volumeId: 'v' } as const;

function setUp(limits: { maxRunning?: number; maxFinished?: number; cleanupTimeoutMs?: number } = {}) {
  let seconds = 0;
  const operations = createOperations({
    maxRunning: 2,
    maxQueued: 3,
    maxFinished: 3,
    cleanupTimeoutMs: 60_000,
    ...limits,
    clock: { now: () => new Date(seconds * 1000) },
    log: createLogger({ level: 'silent' }),
  });
  const pass = (by: number) => {
    seconds += by;
  };
  return { operations, pass };
}

/** Work that runs until it is let go, or cancelled. */
function held() {
  const { promise, resolve } = Promise.withResolvers<void>();
  const started = Promise.withResolvers<OperationRun>();
  const work = async (run: OperationRun) => {
    started.resolve(run);
    const cancelled = new Promise<never>((_resolve, reject) => {
      const stop = () => reject(run.signal.reason);
      if (run.signal.aborted) stop();
      run.signal.addEventListener('abort', stop);
    });
    await Promise.race([promise, cancelled]);
  };
  return { work, started: started.promise, release: resolve };
}

test('no more run at once than allowed; the others wait in order', async () => {
  const { operations } = setUp();
  const jobs = [held(), held(), held()];
  const ids = jobs.map(({ work }, at) => operations.start({ ...subject, backupId: `b${at}` }, work));
  await jobs[1]?.started;
  expect(ids.map(({ id }) => operations.get(id)?.state)).toEqual(['running', 'running', 'queued']);
  jobs[0]?.release();
  await jobs[2]?.started;
  expect(ids.map(({ id }) => operations.get(id)?.state)).toEqual(['succeeded', 'running', 'running']);
  for (const job of jobs) job.release();
  await Promise.all(ids.map(({ done }) => done));
});

test('rate and time left come from what is done', async () => {
  const { operations, pass } = setUp();
  const job = held();
  const { id, done } = operations.start(subject, job.work);
  const { progress } = await job.started;
  expect(operations.get(id)).toMatchObject({ rateBytesPerSecond: null, secondsLeft: null });
  progress.plannedBytes = 1000;
  progress.doneBytes = 250;
  pass(5);
  expect(operations.get(id)).toMatchObject({ rateBytesPerSecond: 50, secondsLeft: 15 });
  job.release();
  await done;
  pass(100);
  expect(operations.get(id)).toMatchObject({ rateBytesPerSecond: 50, secondsLeft: 0, state: 'succeeded' });
});

test('a bounded number of finished ones is remembered, the newest first', async () => {
  const { operations } = setUp();
  const ids: string[] = [];
  for (let at = 0; at < 5; at += 1) {
    const { id, done } = operations.start(subject, async () => {});
    ids.unshift(id);
    await done;
  }
  expect(operations.list().map(({ id }) => id)).toEqual(ids.slice(0, 3));
  expect(operations.get(ids[4] ?? '')).toBeUndefined();
});

test('a failure keeps its code and the first of several sentences', async () => {
  const { operations } = setUp();
  const first = new BackupError('store-full', 'no room');
  const { id, done } = operations.start(subject, async () => {
    throw new AggregateError([first, new Error('cleaning up failed too')], 'several');
  });
  await done;
  expect(operations.get(id)).toMatchObject({
    state: 'failed',
    error: { code: 'store-full', message: 'no room' },
  });
});

test('what is not ours is a bug', async () => {
  const { operations } = setUp();
  const { id, done } = operations.start(subject, () => Promise.reject(new TypeError('x is undefined')));
  await done;
  expect(operations.get(id)?.error).toEqual({ code: 'bug', message: 'x is undefined' });
});

test('one that is cancelled while it waits still runs, to give back what was taken for it', async () => {
  const { operations } = setUp({ maxRunning: 1 });
  const running = held();
  operations.start({ ...subject, backupId: 'other' }, running.work);
  const waiting = held();
  const { id } = operations.start(subject, waiting.work);
  await operations.cancelBackup('b', 'no longer wanted');
  expect((await waiting.started).signal.aborted).toBe(true);
  expect(operations.get(id)).toMatchObject({ state: 'cancelled', error: { message: 'no longer wanted' } });
  expect(operations.isBusy('b')).toBe(false);
  expect(operations.isBusy('other')).toBe(true);
  running.release();
});

test('a drain waits for what runs', async () => {
  const { operations } = setUp();
  const job = held();
  const { id } = operations.start(subject, job.work);
  await job.started;
  const draining = operations.drain(60_000);
  job.release();
  await draining;
  expect(operations.get(id)?.state).toBe('succeeded');
});

test('a drain cancels what does not end in time, and waits for its end', async () => {
  const { operations } = setUp();
  const job = held();
  const { id } = operations.start(subject, job.work);
  await job.started;
  await operations.drain(1);
  expect(operations.get(id)).toMatchObject({
    state: 'cancelled',
    error: { message: 'the service is stopping' },
  });
});

test('after a drain nothing begins that is not cancelled at once', async () => {
  const { operations } = setUp();
  await operations.drain(0);
  const job = held();
  const { id, done } = operations.start(subject, job.work);
  await done;
  expect(operations.get(id)?.state).toBe('cancelled');
});

test('a drain does not wait for ever for what does not heed its cancellation', async () => {
  const { operations } = setUp({ cleanupTimeoutMs: 1 });
  const { promise: never } = Promise.withResolvers<void>();
  const { id } = operations.start(subject, () => never);
  await operations.drain(0);
  expect(operations.get(id)?.state).toBe('running');
});

test('what runs on a backup is cancelled at once, but not its deletion', async () => {
  const { operations } = setUp();
  const [creating, deleting] = [held(), held()];
  operations.start(subject, creating.work);
  const deletion = operations.start({ ...subject, verb: 'delete' }, deleting.work);
  const ended = operations.cancelBackup('b', 'it goes');
  expect((await creating.started).signal.aborted).toBe(true);
  await ended;
  expect((await deleting.started).signal.aborted).toBe(false);
  expect(operations.find('delete', 'b')?.id).toBe(deletion.id);
  deleting.release();
  await deletion.done;
  expect(operations.find('delete', 'b')).toBeUndefined();
});

test('one operation is cancelled by its id, unless it is a deletion, has ended or never was', async () => {
  const { operations } = setUp();
  const [verifying, deleting] = [held(), held()];
  const verify = operations.start({ ...subject, verb: 'verify' }, verifying.work);
  const deletion = operations.start({ ...subject, verb: 'delete' }, deleting.work);
  operations.cancel(verify.id, 'not needed');
  await verify.done;
  expect(operations.get(verify.id)).toMatchObject({ state: 'cancelled', error: { message: 'not needed' } });
  expect(() => operations.cancel(verify.id, 'again')).toThrow(/has ended/);
  expect(() => operations.cancel(deletion.id, 'no')).toThrow(/is a deletion/);
  expect(() => operations.cancel('unknown', 'no')).toThrow(/could not be found/);
  deleting.release();
  await deletion.done;
  expect(operations.get(deletion.id)?.state).toBe('succeeded');
});

test('there is room for more until the queue is full', async () => {
  const { operations } = setUp({ maxRunning: 1 });
  const jobs = [held(), held(), held(), held()];
  for (const { work } of jobs.slice(0, 3)) operations.start(subject, work);
  await jobs[0]?.started;
  expect(() => operations.requireRoom()).not.toThrow();
  operations.start(subject, held().work);
  expect(() => operations.requireRoom()).toThrow(expect.objectContaining({ code: 'busy' }));
  await operations.drain(0);
});

const outcome = (n: number) => ({
  checkedBytes: 5000,
  badCount: n,
  badBytes: 10,
  badRanges: [{ offset: n, length: 10, backupId: 'b', object: 'o', reason: 'bad' }],
});

test('of verifies that found much all counts are kept, and the ranges of the last twenty', async () => {
  const { operations } = setUp({ maxFinished: 100 });
  const ids: string[] = [];
  for (let n = 0; n < 25; n += 1) {
    const { id, done } = operations.start({ ...subject, verb: 'verify' }, async (run) =>
      run.keep(outcome(n)),
    );
    await done;
    ids.push(id);
  }
  const found = ids.map((id) => operations.get(id)?.verified);
  expect(found.map((verified) => verified?.badCount)).toEqual(Array.from({ length: 25 }, (_, n) => n));
  expect(found.slice(0, 5).map((verified) => verified?.badRanges)).toEqual([[], [], [], [], []]);
  expect(found.slice(5)).toEqual(Array.from({ length: 20 }, (_, n) => outcome(n + 5)));
  expect(operations.list().map(({ id }) => id)).toEqual(ids.toReversed());
});

test.each(['create', 'restore', 'delete'] as const)(
  'a %s waits for the end of what writes the same backup, also when it is cancelled',
  async (verb) => {
    const { operations } = setUp();
    const [first, second] = [held(), held()];
    const one = operations.start(subject, first.work);
    const other = operations.start({ ...subject, verb }, second.work);
    await first.started;
    if (verb !== 'delete') operations.cancel(other.id, 'not needed');
    await Promise.resolve();
    expect(operations.get(other.id)?.state).toBe('queued');
    first.release();
    await one.done;
    expect((await second.started).signal.aborted).toBe(verb !== 'delete');
    second.release();
    await other.done;
  },
);

test('one that waits for another keeps no place', async () => {
  const { operations } = setUp({ maxRunning: 2 });
  const [first, second, third] = [held(), held(), held()];
  operations.start(subject, first.work);
  operations.start(subject, second.work);
  operations.start({ ...subject, backupId: 'other' }, third.work);
  await third.started;
  await operations.drain(0);
});

test('what an operation leaves for later holds up no other one, but a drain', async () => {
  const { operations } = setUp();
  const { promise: later, resolve: finish } = Promise.withResolvers<void>();
  const { done } = operations.start(subject, async (run) => {
    run.leave(() => later);
    await Promise.resolve();
  });
  await done;
  expect(operations.isBusy('b')).toBe(false);
  const next = operations.start(subject, async () => {});
  await next.done;
  let isDrained = false;
  const draining = operations.drain(60_000).then(() => {
    isDrained = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(isDrained).toBe(false);
  finish();
  await draining;
});

test('a drain cancels what was left for later when its time is over', async () => {
  const { operations } = setUp();
  const { done, settled } = operations.start(subject, async (run) => {
    run.leave(
      (signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason));
        }),
    );
    await Promise.resolve();
  });
  await done;
  await operations.drain(1);
  await settled;
});
