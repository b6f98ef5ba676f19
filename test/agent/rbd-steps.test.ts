/** Steps on an image whose snapshots others make and remove at the same time. */
import { describe, expect, test } from 'vitest';
import type { RbdCalls } from '../../src/agent/rbd-calls.ts';
import { createRbdStepRunner, type RbdPool } from '../../src/agent/rbd-steps.ts';

const pool: RbdPool = { cluster: 1n, ioctx: 2n, fsid: 'f', poolId: '3' };
const name = 'volume-x';

function failure(code: string): Error {
  return Object.assign(new Error(code), { code });
}

function no(): never {
  throw new Error('this call is not expected');
}

/** librbd with one image; `given` replaces calls. Times of snapshots can be asked only where they cannot go. */
function librbd(snapshots: string[], given: Partial<RbdCalls> = {}) {
  const open = new Map<bigint, 'read' | 'write'>();
  let next = 10n;
  const calls: RbdCalls = {
    createCluster: no,
    connect: no,
    shutDown: no,
    fsid: no,
    openPool: no,
    closePool: no,
    poolId: no,
    imageNames: no,
    setSnapshot: no,
    diff: no,
    write: no,
    zero: no,
    flush: no,
    allocate: no,
    release: no,
    startRead: no,
    finishRead: no,
    clientId: () => 4123n,
    open(_ioctx, _name, access) {
      next += 1n;
      open.set(next, access);
      return next;
    },
    close: (image) => void open.delete(image),
    imageId: () => 'abc',
    sizeBytes: () => 4096,
    objectBytes: () => 4096,
    stripeCount: () => 1,
    snapshots(image) {
      if (open.get(image) !== 'read') throw new Error('librbd ends the process here');
      return snapshots.map((one, at) => ({ id: BigInt(at), name: one, sizeBytes: 4096, createdAtMs: 1 }));
    },
    snapshotNames: () => [...snapshots],
    createSnapshot: (_image, made) => void snapshots.push(made),
    removeSnapshot: (_image, gone) => void snapshots.splice(snapshots.indexOf(gone), 1),
    watchers: () => [],
    ...given,
  };
  return { run: createRbdStepRunner(calls), left: () => open.size };
}

describe('a snapshot', () => {
  test.each([
    ['is made', []],
    ['that is there is kept', ['s']],
  ])('%s, and told through a handle that no removal reaches', (_, there) => {
    const { run, left } = librbd([...there]);
    expect(run({ kind: 'make-snapshot', pool, name, snapshot: 's' })).toMatchObject({
      facts: { snapshots: [{ name: 's' }] },
    });
    expect(left()).toBe(0);
  });

  test('that another makes at the same time is as good', () => {
    const snapshots: string[] = [];
    const { run } = librbd(snapshots, {
      createSnapshot() {
        snapshots.push('s');
        throw failure('EEXIST');
      },
    });
    expect(run({ kind: 'make-snapshot', pool, name, snapshot: 's' })).toMatchObject({ kind: 'facts' });
  });

  test.each([
    [
      'whose image has gone',
      {
        open: () => {
          throw failure('ENOENT');
        },
      },
    ],
    [
      'that another removes at the same time',
      {
        removeSnapshot: () => {
          throw failure('ENOENT');
        },
      },
    ],
    ['that is there', {}],
    ['that is not there', { snapshotNames: () => [] }],
  ])('%s is removed', (_, given) => {
    const { run, left } = librbd(['s'], given);
    expect(run({ kind: 'drop-snapshot', pool, name, snapshot: 's' })).toEqual({ kind: 'done' });
    expect(left()).toBe(0);
  });

  test.each([
    ['cannot be listed', 'ENOENT', 'snapshotNames'],
    ['is in use', 'EBUSY', 'removeSnapshot'],
  ] as const)('that %s is not called removed', (_, code, call) => {
    const { run, left } = librbd(['s'], {
      [call]: () => {
        throw failure(code);
      },
    });
    expect(() => run({ kind: 'drop-snapshot', pool, name, snapshot: 's' })).toThrow(code);
    expect(left()).toBe(0);
  });
});

test('an image that is opened for writing has no snapshots listed', () => {
  const { run } = librbd(['s']);
  expect(run({ kind: 'open', pool, name, snapshot: null })).toMatchObject({ facts: { snapshots: [] } });
});

test('others that have an image open are told, without this client', () => {
  const { run } = librbd([], {
    watchers: () => [
      { client: 4123n, address: '10.0.0.1:0/1' },
      { client: 4200n, address: '10.0.0.2:0/2' },
    ],
  });
  expect(run({ kind: 'others', pool, image: 10n })).toEqual({ kind: 'names', names: ['10.0.0.2:0/2'] });
});
