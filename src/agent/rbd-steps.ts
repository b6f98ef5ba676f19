/**
 * What the RBD backend has done in its worker threads, each step one call or a few. Every step is bounded by the
 * time limits that the connection gives to the cluster's answers. Runs in a worker: waiting is right here.
 */
import { BackupError } from '../model/errors.ts';
import { errnoOf } from './file-errors.ts';
import type { RbdCalls, RbdSnapshotFacts } from './rbd-calls.ts';
import { translateRbdError } from './rbd-errors.ts';

export type ClusterSettings = {
  readonly clusterName: string;
  readonly user: string | undefined;
  readonly cephConf: string;
  readonly pool: string;
  /** Until the monitors have answered, and for each of their answers. */
  readonly connectTimeoutS: number;
  /** For each answer of an OSD. */
  readonly answerTimeoutS: number;
  /** How long a restore waits for others to let go of the image: Ceph keeps the watch of a dead client for half a minute. */
  readonly watchTimeoutS: number;
};

/** A pool that is open, until the step `disconnect`. */
export type RbdPool = {
  readonly cluster: bigint;
  readonly ioctx: bigint;
  readonly fsid: string;
  readonly poolId: string;
};

export type RbdImageFacts = {
  readonly imageId: string;
  readonly sizeBytes: number;
  readonly objectBytes: number;
  readonly stripeCount: number;
  /** None of an image that is open for writing: they may go while they are listed. */
  readonly snapshots: readonly RbdSnapshotFacts[];
};

export type RbdStep =
  | { readonly kind: 'connect'; readonly settings: ClusterSettings }
  | { readonly kind: 'disconnect'; readonly pool: RbdPool }
  | { readonly kind: 'list'; readonly pool: RbdPool }
  | { readonly kind: 'describe'; readonly pool: RbdPool; readonly name: string }
  /** `snapshot` null: the image itself, for writing; else that snapshot, for reading. */
  | { readonly kind: 'open'; readonly pool: RbdPool; readonly name: string; readonly snapshot: string | null }
  | { readonly kind: 'close'; readonly image: bigint }
  /** The addresses of other clients that have the image open for writing. */
  | { readonly kind: 'others'; readonly pool: RbdPool; readonly image: bigint }
  /** Makes the snapshot if it is absent. */
  | {
      readonly kind: 'make-snapshot';
      readonly pool: RbdPool;
      readonly name: string;
      readonly snapshot: string;
    }
  /** Succeeds also if the snapshot or the image is absent. */
  | {
      readonly kind: 'drop-snapshot';
      readonly pool: RbdPool;
      readonly name: string;
      readonly snapshot: string;
    }
  | {
      readonly kind: 'diff';
      readonly image: bigint;
      readonly from: string | null;
      readonly offset: number;
      readonly end: number;
    }
  | {
      readonly kind: 'write';
      readonly image: bigint;
      readonly offset: number;
      readonly bytes: Uint8Array<ArrayBuffer>;
    }
  | { readonly kind: 'zero'; readonly image: bigint; readonly offset: number; readonly length: number }
  | { readonly kind: 'flush'; readonly image: bigint };

export type RbdStepResult =
  | { readonly kind: 'done' }
  | { readonly kind: 'pool'; readonly pool: RbdPool }
  | { readonly kind: 'names'; readonly names: readonly string[] }
  | { readonly kind: 'facts'; readonly facts: RbdImageFacts }
  | {
      readonly kind: 'opened';
      readonly image: bigint;
      readonly facts: RbdImageFacts;
      /** The one that was asked for. */
      readonly snapshot: RbdSnapshotFacts | null;
    }
  /** Triples: offset, length, 1 for data and 0 for zeros; sorted. */
  | { readonly kind: 'extents'; readonly extents: Float64Array<ArrayBuffer> }
  | { readonly kind: 'written'; readonly bytes: Uint8Array<ArrayBuffer> };

const done = { kind: 'done' } as const;

export type RbdStepRunner = (step: RbdStep) => RbdStepResult;

export function createRbdStepRunner(calls: RbdCalls): RbdStepRunner {
  const factsOf = (image: bigint, access: 'read' | 'write'): RbdImageFacts => ({
    imageId: calls.imageId(image),
    sizeBytes: calls.sizeBytes(image),
    objectBytes: calls.objectBytes(image),
    stripeCount: calls.stripeCount(image),
    snapshots: access === 'read' ? calls.snapshots(image) : [],
  });
  const describe = (pool: RbdPool, name: string): RbdStepResult => {
    const image = calls.open(pool.ioctx, name, 'read');
    try {
      return { kind: 'facts', facts: factsOf(image, 'read') };
    } finally {
      calls.close(image);
    }
  };

  const open = (step: RbdStep & { kind: 'open' }): RbdStepResult => {
    const access = step.snapshot === null ? 'write' : 'read';
    const image = calls.open(step.pool.ioctx, step.name, access);
    try {
      const facts = factsOf(image, access);
      if (step.snapshot === null) return { kind: 'opened', image, facts, snapshot: null };
      const snapshot = facts.snapshots.find(({ name }) => name === step.snapshot);
      if (snapshot === undefined) throw absent(`snapshot ${step.snapshot} of ${step.name}`);
      calls.setSnapshot(image, snapshot.id);
      return { kind: 'opened', image, facts, snapshot };
    } catch (error) {
      calls.close(image);
      throw error;
    }
  };

  const make = ({ pool, name, snapshot }: RbdStep & { kind: 'make-snapshot' }): RbdStepResult => {
    const image = calls.open(pool.ioctx, name, 'write');
    try {
      if (!calls.snapshotNames(image).includes(snapshot))
        unless('EEXIST', () => calls.createSnapshot(image, snapshot));
    } finally {
      calls.close(image);
    }
    return describe(pool, name);
  };

  const drop = ({ pool, name, snapshot }: RbdStep & { kind: 'drop-snapshot' }): RbdStepResult => {
    const image = unless('ENOENT', () => calls.open(pool.ioctx, name, 'write'));
    if (image === undefined) return done;
    try {
      if (calls.snapshotNames(image).includes(snapshot))
        unless('ENOENT', () => calls.removeSnapshot(image, snapshot));
    } finally {
      calls.close(image);
    }
    return done;
  };

  const diff = ({ image, from, offset, end }: RbdStep & { kind: 'diff' }): RbdStepResult => {
    const found: { offset: number; length: number; exists: boolean }[] = [];
    let last: (typeof found)[number] | undefined;
    let sorted = true;
    calls.diff(image, { offset, length: end - offset }, from, (at, length, exists) => {
      if (last !== undefined && last.exists === exists && last.offset + last.length === at)
        last.length += length;
      else {
        if (last !== undefined && at < last.offset) sorted = false;
        last = { offset: at, length, exists };
        found.push(last);
      }
    });
    if (!sorted) found.sort((a, b) => a.offset - b.offset);
    const extents = new Float64Array(found.length * 3);
    for (const [at, one] of found.entries()) {
      extents[at * 3] = one.offset;
      extents[at * 3 + 1] = one.length;
      extents[at * 3 + 2] = one.exists ? 1 : 0;
    }
    return { kind: 'extents', extents };
  };

  return (step) => {
    switch (step.kind) {
      case 'connect':
        return { kind: 'pool', pool: connect(calls, step.settings) };
      case 'disconnect':
        calls.closePool(step.pool.ioctx);
        calls.shutDown(step.pool.cluster);
        return done;
      case 'list':
        return { kind: 'names', names: calls.imageNames(step.pool.ioctx) };
      case 'describe':
        return describe(step.pool, step.name);
      case 'open':
        return open(step);
      case 'close':
        calls.close(step.image);
        return done;
      case 'others': {
        const own = calls.clientId(step.pool.cluster);
        const others = calls.watchers(step.image).filter(({ client }) => client !== own);
        return { kind: 'names', names: others.map(({ address }) => address) };
      }
      case 'make-snapshot':
        return make(step);
      case 'drop-snapshot':
        return drop(step);
      case 'diff':
        return diff(step);
      case 'write':
        calls.write(step.image, step.offset, step.bytes);
        return { kind: 'written', bytes: step.bytes };
      case 'zero':
        calls.zero(step.image, step.offset, step.length);
        return done;
      case 'flush':
        calls.flush(step.image);
        return done;
      default:
        return step satisfies never;
    }
  };
}

/** Says what is wrong with the configuration as well as the cluster's answer tells. */
function connect(calls: RbdCalls, settings: ClusterSettings): RbdPool {
  const { clusterName, user, cephConf, pool, connectTimeoutS, answerTimeoutS } = settings;
  const refused = (what: string, cause: unknown): BackupError => {
    if (!['ENOENT', 'EACCES', 'EPERM', 'EINVAL', 'EIO'].includes(errnoOf(cause))) {
      return translateRbdError(cause, clusterName, what);
    }
    return new BackupError('config-invalid', `cluster ${clusterName}: ${what}`, { cause });
  };
  const step = <T>(what: string, work: () => T): T => {
    try {
      return work();
    } catch (error) {
      throw refused(what, error);
    }
  };
  const conf = cephConf === '' ? 'where librados looks for one (/etc/ceph)' : cephConf;
  const cluster = step(`its configuration ${conf} cannot be read`, () =>
    calls.createCluster({
      clusterName,
      user,
      cephConf,
      settings: [
        ['client_mount_timeout', `${connectTimeoutS}`],
        ['rados_mon_op_timeout', `${connectTimeoutS}`],
        ['rados_osd_op_timeout', `${answerTimeoutS}`],
        // A new map is asked for while there is time left: an OSD that was restarted has another address.
        ['objecter_timeout', `${Math.max(1, Math.min(10, answerTimeoutS / 3))}`],
        ['objecter_tick_interval', `${Math.max(0.5, Math.min(5, answerTimeoutS / 6))}`],
        // Bytes go by once: a cache would only copy them, and tell of failed writes later than the writes.
        ['rbd_cache', 'false'],
        ['rbd_skip_partial_discard', 'false'],
        ['log_to_stderr', 'false'],
      ],
    }),
  );
  try {
    step(
      `client.${user ?? 'admin'} cannot log in: is its keyring in ${conf} or /etc/ceph, readable for the agent, and its key right?`,
      () => calls.connect(cluster),
    );
    const ioctx = step(`pool ${pool} is not there, or not open to client.${user ?? 'admin'}`, () =>
      calls.openPool(cluster, pool),
    );
    return { cluster, ioctx, fsid: calls.fsid(cluster), poolId: calls.poolId(ioctx) };
  } catch (error) {
    calls.shutDown(cluster);
    throw error;
  }
}

/** What `work` returns; undefined if it fails with `code`. */
function unless<T>(code: string, work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (errnoOf(error) === code) return undefined;
    throw error;
  }
}

function absent(thing: string): BackupError {
  return new BackupError('not-found', `${thing} does not exist`);
}
