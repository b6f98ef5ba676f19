/**
 * Writes the `_sha256file` of a backup while its data flows. The document's end is held back until every object is stored, so
 * that a whole hash list always means that all objects are there.
 */
import { createQueue } from '../async/queue.ts';
import { mergeDigests, type ChangedDigests } from '../layout/merge-digests.ts';
import { sha256FileKey } from '../layout/names.ts';
import { encodeSha256File } from '../layout/sha256-file.ts';
import type { BackupHead } from '../layout/metadata-document.ts';
import type { ObjectStore } from '../store/object-store.ts';
import type { BackupPlace } from './jobs.ts';

/** Runs of digests that wait; each has at most 256 KiB (4 MiB of data in blocks of 512 bytes), usually 1 KiB. */
const waitingRuns = 16;

export type DigestWriter = {
  /** Takes the digests of blocks that changed, in order; the buffer is kept. Throws what broke the writing. */
  push(changed: ChangedDigests): Promise<void>;
  /** No more changes. */
  end(): void;
  /** Lets the document end: the objects are stored and flushed. */
  objectsStored(): void;
  fail(reason: unknown): void;
  /** Settles when the document is stored, or when it never will be. */
  readonly done: Promise<void>;
};

/** `parent` is the parent's hash list, or null if the changes tile the volume. */
export function startDigestWriter(options: {
  readonly store: ObjectStore;
  readonly place: BackupPlace;
  readonly head: BackupHead;
  readonly blockSize: number;
  readonly blocks: number;
  readonly parent: AsyncIterable<Buffer> | null;
  readonly signal: AbortSignal;
}): DigestWriter {
  const { store, place, head, blockSize, blocks, parent, signal } = options;
  const changes = createQueue<ChangedDigests>(waitingRuns);
  const stored = Promise.withResolvers<undefined>();
  stored.promise.catch(() => undefined);

  async function* digests(): AsyncGenerator<Buffer> {
    yield* mergeDigests(parent, changes, blocks);
    await stored.promise;
  }
  const body = encodeSha256File(head, blockSize, digests());
  const done = store.putStream(place.container, sha256FileKey(place.prefix), body, { signal });
  done.catch(() => undefined);

  return {
    async push(changed) {
      try {
        await changes.push(changed);
      } catch (error) {
        // The writer has left: its own error says why.
        await done;
        throw error;
      }
    },
    end: () => changes.end(),
    objectsStored: () => stored.resolve(undefined),
    fail(reason) {
      changes.fail(reason);
      stored.reject(reason);
    },
    done,
  };
}
