/**
 * librados and librbd of this host (rados/librados.h, rbd/librbd.h) through koffi. Synchronous, and most calls wait for the
 * cluster: for worker threads. Handles are addresses: they are good in every thread of the process until they are
 * closed, and after that in none. Errors carry an errno name as `code`.
 */
import { createRequire } from 'node:module';
import { getSystemErrorName } from 'node:util';
import { BackupError } from '../model/errors.ts';

export type ClusterOptions = {
  readonly clusterName: string;
  /** Without `client.`; undefined: admin. */
  readonly user: string | undefined;
  /** Empty: where librados looks by itself. */
  readonly cephConf: string;
  /** Options that win over those of the file. */
  readonly settings: readonly (readonly [string, string])[];
};

export type RbdSnapshotFacts = {
  readonly id: bigint;
  readonly name: string;
  readonly sizeBytes: number;
  readonly createdAtMs: number;
};

/** A client that has an image open for writing. `client`: its number in the cluster. */
export type RbdWatcher = { readonly client: bigint; readonly address: string };

/** Memory outside of V8 that librbd may write to at any time. */
export type NativeMemory = { readonly address: bigint; readonly bytes: Buffer };

export type RbdCalls = {
  /** A client that is not connected yet. */
  createCluster(options: ClusterOptions): bigint;
  connect(cluster: bigint): void;
  shutDown(cluster: bigint): void;
  fsid(cluster: bigint): string;
  /** The number of this client in the cluster. */
  clientId(cluster: bigint): bigint;
  openPool(cluster: bigint, pool: string): bigint;
  closePool(ioctx: bigint): void;
  poolId(ioctx: bigint): string;
  imageNames(ioctx: bigint): string[];
  /** `read` registers no watch, so that it keeps nobody from removing the image. */
  open(ioctx: bigint, name: string, access: 'read' | 'write'): bigint;
  close(image: bigint): void;
  imageId(image: bigint): string;
  /** Of the snapshot that is set, else of the image. */
  sizeBytes(image: bigint): number;
  objectBytes(image: bigint): number;
  stripeCount(image: bigint): number;
  /**
   * As they were when the image was opened, for reading: of one that is open for writing, a snapshot may go while it is listed,
   * and librbd then ends the process when it is asked for its time.
   */
  snapshots(image: bigint): RbdSnapshotFacts[];
  /** As they are, if the image is open for writing. */
  snapshotNames(image: bigint): string[];
  /** This client is among them if it has the image open for writing. */
  watchers(image: bigint): RbdWatcher[];
  /** Everything that is read from now on is that of the snapshot. */
  setSnapshot(image: bigint, id: bigint): void;
  createSnapshot(image: bigint, name: string): void;
  removeSnapshot(image: bigint, name: string): void;
  /**
   * Tells of what differs in [offset, offset + length) from the snapshot `from`, or of what is allocated (in a parent
   * too) where that is null; `exists` false: it reads as zeros. Objects are asked, not the object map.
   */
  diff(
    image: bigint,
    range: { readonly offset: number; readonly length: number },
    from: string | null,
    found: (offset: number, length: number, exists: boolean) => void,
  ): void;
  write(image: bigint, offset: number, bytes: Uint8Array): void;
  /** The range reads as zeros afterwards; whole objects are removed. */
  zero(image: bigint, offset: number, length: number): void;
  flush(image: bigint): void;
  allocate(bytes: number): NativeMemory;
  /** Nothing may use the memory, or its view, afterwards. */
  release(memory: NativeMemory): void;
  /** Begins to read into memory that must stay until `finishRead` has been called with what this returns. */
  startRead(image: bigint, offset: number, length: number, address: bigint): bigint;
  /** Waits for the bytes. */
  finishRead(completion: bigint): void;
};

/** librados.h: LIBRADOS_OP_FLAG_FADVISE_SEQUENTIAL and _NOCACHE: a backup is no reason to throw others out of a cache. */
const readFlags = 0x10 | 0x40;

/** Names that Linux gives to errors of Ceph and Node has none for. */
const errnoNames: Readonly<Record<number, string>> = { 108: 'ESHUTDOWN', 122: 'EDQUOT' };

/** Throws `config-invalid` where the libraries cannot be had. */
export function loadRbdCalls(): RbdCalls {
  try {
    return bind(createRequire(import.meta.url)('koffi'));
  } catch (error) {
    throw new BackupError(
      'config-invalid',
      'librbd of Ceph cannot be loaded, and RBD volumes need it: install ceph-common (librbd1, librados2)',
      { cause: error },
    );
  }
}

function bind(koffi: typeof import('koffi')): RbdCalls {
  const rados = koffi.load('librados.so.2');
  const rbd = koffi.load('librbd.so.1');

  const radosCreate = rados.func(
    'int rados_create2(void *cluster, const char *name, const char *user, uint64_t flags)',
  );
  const radosReadFile = rados.func('int rados_conf_read_file(void *cluster, const char *path)');
  const radosSet = rados.func('int rados_conf_set(void *cluster, const char *option, const char *value)');
  const radosConnect = rados.func('int rados_connect(void *cluster)');
  const radosShutdown = rados.func('void rados_shutdown(void *cluster)');
  const radosFsid = rados.func('int rados_cluster_fsid(void *cluster, void *text, size_t length)');
  const radosInstance = rados.func('uint64_t rados_get_instance_id(void *cluster)');
  const radosIoctx = rados.func('int rados_ioctx_create(void *cluster, const char *pool, void *ioctx)');
  const radosIoctxDestroy = rados.func('void rados_ioctx_destroy(void *ioctx)');
  const radosPoolId = rados.func('int64_t rados_ioctx_get_id(void *ioctx)');

  const rbdList = rbd.func('int rbd_list(void *ioctx, void *names, void *size)');
  const rbdOpen = rbd.func('int rbd_open(void *ioctx, const char *name, void *image, const char *snapshot)');
  const rbdOpenReadOnly = rbd.func(
    'int rbd_open_read_only(void *ioctx, const char *name, void *image, const char *snapshot)',
  );
  const rbdClose = rbd.func('int rbd_close(void *image)');
  const rbdId = rbd.func('int rbd_get_id(void *image, void *id, size_t length)');
  const rbdSize = rbd.func('int rbd_get_size(void *image, void *size)');
  const rbdStat = rbd.func('int rbd_stat(void *image, void *info, size_t length)');
  const rbdStripes = rbd.func('int rbd_get_stripe_count(void *image, void *count)');
  const rbdSnapList = rbd.func('int rbd_snap_list(void *image, void *snapshots, void *count)');
  const rbdSnapListEnd = rbd.func('void rbd_snap_list_end(void *snapshots)');
  const rbdSnapTime = rbd.func('int rbd_snap_get_timestamp(void *image, uint64_t id, void *time)');
  const rbdWatchers = rbd.func('int rbd_watchers_list(void *image, void *watchers, void *count)');
  const rbdWatchersEnd = rbd.func('void rbd_watchers_list_cleanup(void *watchers, size_t count)');
  const rbdSnapSet = rbd.func('int rbd_snap_set_by_id(void *image, uint64_t id)');
  const rbdSnapCreate = rbd.func('int rbd_snap_create(void *image, const char *name)');
  const rbdSnapRemove = rbd.func('int rbd_snap_remove(void *image, const char *name)');
  const diffCallback = koffi.pointer(koffi.proto('int (uint64_t offset, size_t length, int exists, void *)'));
  const rbdDiff = rbd.func('rbd_diff_iterate2', 'int', [
    'void *',
    'const char *',
    'uint64_t',
    'uint64_t',
    'uint8_t',
    'uint8_t',
    diffCallback,
    'void *',
  ]);
  const rbdWrite = rbd.func('int64_t rbd_write(void *image, uint64_t offset, size_t length, void *bytes)');
  const rbdFlush = rbd.func('int rbd_flush(void *image)');
  const rbdDiscard = rbd.func('int rbd_discard(void *image, uint64_t offset, uint64_t length)');
  const rbdWriteZeroes = (() => {
    try {
      return rbd.func('int64_t rbd_write_zeroes(void *image, uint64_t offset, size_t length, int, int)');
    } catch {
      // Before Octopus. A discard is as good where the connection has rbd_skip_partial_discard off.
      return null;
    }
  })();
  const newCompletion = rbd.func('int rbd_aio_create_completion(void *argument, void *callback, void *out)');
  const aioRead = rbd.func(
    'int rbd_aio_read2(void *image, uint64_t offset, size_t length, void *bytes, void *completion, int flags)',
  );
  const aioWait = rbd.func('int rbd_aio_wait_for_complete(void *completion)');
  const aioResult = rbd.func('int64_t rbd_aio_get_return_value(void *completion)');
  const aioRelease = rbd.func('void rbd_aio_release(void *completion)');

  const listSnapshots = <T>(
    image: bigint,
    told: (one: { readonly id: bigint; readonly name: string; readonly sizeBytes: number }) => T,
  ): T[] => {
    for (let room = 16; ;) {
      const count = Buffer.alloc(4);
      count.writeInt32LE(room);
      const listed = Buffer.alloc((room + 1) * snapInfoBytes);
      const result = Number(rbdSnapList(image, listed, count));
      if (errnoName(-result) === 'ERANGE') {
        room = Math.max(2 * room, count.readInt32LE());
        continue;
      }
      const found = check('rbd_snap_list', result);
      try {
        return Array.from({ length: found }, (_, at) => {
          const info = listed.subarray(at * snapInfoBytes);
          return told({
            id: info.readBigUInt64LE(0),
            name: String(koffi.decode(info.readBigUInt64LE(16), 'char', -1)),
            sizeBytes: safe(info.readBigUInt64LE(8)),
          });
        });
      } finally {
        if (found > 0) rbdSnapListEnd(listed);
      }
    }
  };

  return {
    createCluster({ clusterName, user, cephConf, settings }) {
      const cluster = word('rados_create2', (out) =>
        radosCreate(out, clusterName, `client.${user ?? 'admin'}`, 0),
      );
      try {
        check('rados_conf_read_file', radosReadFile(cluster, cephConf === '' ? null : cephConf));
        for (const [option, value] of settings)
          check(`rados_conf_set ${option}`, radosSet(cluster, option, value));
        return cluster;
      } catch (error) {
        radosShutdown(cluster);
        throw error;
      }
    },
    connect: (cluster) => void check('rados_connect', radosConnect(cluster)),
    shutDown: (cluster) => radosShutdown(cluster),
    fsid: (cluster) => text('rados_cluster_fsid', (out, length) => radosFsid(cluster, out, length)),
    clientId: (cluster) => BigInt(String(radosInstance(cluster))),
    openPool: (cluster, pool) => word('rados_ioctx_create', (out) => radosIoctx(cluster, pool, out)),
    closePool: (ioctx) => radosIoctxDestroy(ioctx),
    poolId: (ioctx) => String(radosPoolId(ioctx)),
    imageNames(ioctx) {
      for (let room = 64 * 1024; ;) {
        const names = Buffer.alloc(room);
        const size = Buffer.alloc(8);
        size.writeBigUInt64LE(BigInt(room));
        const result = Number(rbdList(ioctx, names, size));
        if (errnoName(-result) === 'ERANGE') {
          room = Math.max(2 * room, Number(size.readBigUInt64LE()));
          continue;
        }
        const used = check('rbd_list', result);
        return names
          .toString('utf8', 0, used)
          .split('\0')
          .filter((name) => name !== '');
      }
    },
    open: (ioctx, name, access) =>
      word('rbd_open', (out) => (access === 'read' ? rbdOpenReadOnly : rbdOpen)(ioctx, name, out, null)),
    close: (image) => void check('rbd_close', rbdClose(image)),
    imageId: (image) => text('rbd_get_id', (out, length) => rbdId(image, out, length)),
    sizeBytes: (image) => safe(word('rbd_get_size', (out) => rbdSize(image, out))),
    objectBytes(image) {
      const info = Buffer.alloc(256);
      check('rbd_stat', rbdStat(image, info, info.length));
      return safe(info.readBigUInt64LE(8));
    },
    stripeCount: (image) => safe(word('rbd_get_stripe_count', (out) => rbdStripes(image, out))),
    snapshots: (image) =>
      listSnapshots(image, (one) => {
        const time = Buffer.alloc(16);
        check('rbd_snap_get_timestamp', rbdSnapTime(image, one.id, time));
        const createdAtMs =
          Number(time.readBigInt64LE(0)) * 1000 + Number(time.readBigInt64LE(8) / 1_000_000n);
        return { ...one, createdAtMs };
      }),
    snapshotNames: (image) => listSnapshots(image, ({ name }) => name),
    watchers(image) {
      for (let room = 16; ;) {
        const count = Buffer.alloc(8);
        count.writeBigUInt64LE(BigInt(room));
        const listed = Buffer.alloc(room * watcherBytes);
        const result = Number(rbdWatchers(image, listed, count));
        if (errnoName(-result) === 'ERANGE') {
          room = Math.max(2 * room, Number(count.readBigUInt64LE()));
          continue;
        }
        check('rbd_watchers_list', result);
        const found = Number(count.readBigUInt64LE());
        try {
          return Array.from({ length: found }, (_, at): RbdWatcher => {
            const info = listed.subarray(at * watcherBytes);
            return {
              address: String(koffi.decode(info.readBigUInt64LE(0), 'char', -1)),
              client: info.readBigUInt64LE(8),
            };
          });
        } finally {
          rbdWatchersEnd(listed, found);
        }
      }
    },
    setSnapshot: (image, id) => void check('rbd_snap_set_by_id', rbdSnapSet(image, id)),
    createSnapshot: (image, name) => void check('rbd_snap_create', rbdSnapCreate(image, name)),
    removeSnapshot: (image, name) => void check('rbd_snap_remove', rbdSnapRemove(image, name)),
    diff(image, { offset, length }, from, found) {
      // librbd calls back from the thread that asks, and a callback must not throw.
      const tell = (at: number | bigint, size: number | bigint, exists: number): number => {
        found(Number(at), Number(size), exists !== 0);
        return 0;
      };
      check('rbd_diff_iterate2', rbdDiff(image, from, offset, length, 1, 0, tell, null));
    },
    write(image, offset, bytes) {
      const written = check('rbd_write', rbdWrite(image, offset, bytes.length, bytes));
      if (written !== bytes.length) throw Object.assign(new Error('EIO: short rbd_write'), { code: 'EIO' });
    },
    zero(image, offset, length) {
      if (rbdWriteZeroes === null) check('rbd_discard', rbdDiscard(image, offset, length));
      else check('rbd_write_zeroes', rbdWriteZeroes(image, offset, length, 0, 0));
    },
    flush: (image) => void check('rbd_flush', rbdFlush(image)),
    allocate(bytes) {
      const address: unknown = koffi.alloc('uint8_t', bytes);
      if (typeof address !== 'bigint') throw new BackupError('bug', 'koffi gives no address of memory');
      return { address, bytes: Buffer.from(koffi.view(address, bytes)) };
    },
    release: ({ address }) => koffi.free(address),
    startRead(image, offset, length, address) {
      const completion = word('rbd_aio_create_completion', (out) => newCompletion(null, null, out));
      try {
        check('rbd_aio_read2', aioRead(image, offset, length, address, completion, readFlags));
        return completion;
      } catch (error) {
        aioRelease(completion);
        throw error;
      }
    },
    finishRead(completion) {
      try {
        check('rbd_aio_wait_for_complete', aioWait(completion));
        check('rbd_aio_read2', aioResult(completion));
      } finally {
        aioRelease(completion);
      }
    },
  };
}

/** rbd_snap_info_t: id u64, size u64, name char pointer. */
const snapInfoBytes = 24;
/** rbd_image_watcher_t: address char pointer, id i64, cookie u64. */
const watcherBytes = 24;

/** The value of a call that returns a negative errno when it fails. */
function check(call: string, result: unknown): number {
  const value = Number(result);
  if (value >= 0) return value;
  throw Object.assign(new Error(`${errnoName(-value)}: ${call}`), { code: errnoName(-value) });
}

/** A call that fills 64 bits. */
function word(call: string, ask: (out: Buffer) => unknown): bigint {
  const out = Buffer.alloc(8);
  check(call, ask(out));
  return out.readBigUInt64LE();
}

/** A call that fills text: asked with more and more room until it is enough. */
function text(call: string, ask: (out: Buffer, length: number) => unknown): string {
  for (let room = 64; ; room *= 2) {
    const out = Buffer.alloc(room);
    const result = Number(ask(out, room));
    if (errnoName(-result) === 'ERANGE' && room < 65_536) continue;
    check(call, result);
    return textOf(out);
  }
}

function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}

function errnoName(errno: number): string {
  if (errno <= 0) return '';
  const known = errnoNames[errno];
  if (known !== undefined) return known;
  const name = getSystemErrorName(-errno);
  return name.startsWith('E') ? name : `E${errno}`;
}

function safe(value: bigint): number {
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  throw new BackupError('agent-failed', `librbd tells a size of ${value} bytes, which is beyond 2^53`);
}
