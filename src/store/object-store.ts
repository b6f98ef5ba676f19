/**
 * The contract of an object store: what Swift, S3 and a directory have in common.
 *
 * Every implementation passes test/contract/object-store.ts. Guarantees:
 * - `put` and `putStream` are atomic: a reader sees the whole object or none; an earlier object of that key is replaced.
 *   If they throw, a later reader may see the old object, the new one, or none, but never a part.
 * - After `put` an object can be read and listed. It survives a power failure after the next `flush` of its prefix. `putStream` is
 *   flushed when it returns, and so is all that was put before it: of the backup that its key closes, if it closes one.
 * - Absent is `object-missing`; unreachable is `store-unavailable`; refused is `store-denied`; out of room is `store-full`.
 *   Only `store-unavailable` is retryable.
 * - All calls may run side by side. `remove` and `removeContainer` of something absent succeed.
 * - Keys and container names are those of the layout; anything that could leave the container is `message-invalid`.
 */

export type StoredObject = {
  readonly key: string;
  /** Null where the store would have to look at each object to tell. */
  readonly sizeBytes: number | null;
};

export type PutOptions = {
  readonly signal: AbortSignal;
  /** The MD5 of the whole body as lower-case hex, from a caller that knows it: saves a store that needs it one pass. */
  readonly md5?: string;
};

export type ObjectStore = {
  /** For messages and metrics: `posix`, `swift`, `s3`. */
  readonly kind: string;
  /** The class path that Cinder writes into `backups.service` for this store. */
  readonly service: string;
  /** Creates the container if it is absent. */
  ensureContainer(container: string, signal: AbortSignal): Promise<void>;
  /** Stores `body`, which is not changed until the promise settles. */
  put(container: string, key: string, body: Buffer, options: PutOptions): Promise<void>;
  /**
   * `put` of many small objects, each atomic by itself, with one call. If it throws, some may be stored. Only where it costs less
   * than as many calls of `put` (a directory): callers go without where it is absent.
   */
  putMany?(
    container: string,
    objects: readonly { readonly key: string; readonly body: Buffer }[],
    options: { readonly signal: AbortSignal },
  ): Promise<void>;
  /** Stores what `body` yields; each piece is consumed before the next is asked for. Aborts without a trace if `body` throws. */
  putStream(container: string, key: string, body: AsyncIterable<Buffer>, options: PutOptions): Promise<void>;
  /**
   * Makes every object put whose key starts with `prefix`, and every removal of one, survive a power failure. Throws for as long as
   * there is one that was lost before; what else the container holds is no matter. Nothing to do where the store promises that already.
   */
  flush(container: string, prefix: string, signal: AbortSignal): Promise<void>;
  /**
   * The bytes of an object in order. `sizeBytes` is known before the first byte. A piece belongs to its reader. The body must be
   * iterated: leaving the loop early releases the source; one that is never begun holds it until the signal aborts.
   */
  get(
    container: string,
    key: string,
    options: PutOptions,
  ): Promise<{ sizeBytes: number; body: AsyncIterable<Buffer> }>;
  /**
   * `get` of a whole object into `target`, which nobody else uses until the promise settles; returns the object's size. Nothing
   * is read of an object that is longer than `target`. Only where it costs less than `get` (a directory).
   */
  getInto?(
    container: string,
    key: string,
    target: Buffer,
    options: { readonly signal: AbortSignal },
  ): Promise<number>;
  /**
   * Every object whose key starts with `prefix`, in any order, however many there are, in pages of some hundred or thousand. An
   * absent container is empty.
   */
  list(container: string, prefix: string, signal: AbortSignal): AsyncIterable<readonly StoredObject[]>;
  remove(container: string, key: string, signal: AbortSignal): Promise<void>;
  /**
   * Removes every object whose key starts with `prefix`, and what failed uploads left under it; returns how many objects
   * there were. Only where the store has something better than `list` and `remove`: callers use src/store/remove-prefix.ts.
   */
  removePrefix?(container: string, prefix: string, signal: AbortSignal): Promise<number>;
  /** Removes the container if it is empty and this store makes one container for each backup (posix); else does nothing. */
  removeContainer(container: string, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
};
