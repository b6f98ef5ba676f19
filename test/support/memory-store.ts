/** An object store in memory. It passes the contract suite. */
import { BackupError, throwIfAborted } from '../../src/model/errors.ts';
import { requireContainer, requireKey } from '../../src/store/key-rules.ts';
import type { ObjectStore } from '../../src/store/object-store.ts';

export type MemoryStore = ObjectStore & {
  /** Container, then key. */
  readonly containers: ReadonlyMap<string, ReadonlyMap<string, Buffer>>;
  /** Replaces an object's bytes behind the contract's back. */
  corrupt(container: string, key: string, change: (bytes: Buffer) => Buffer): void;
};

const pieceBytes = 256 * 1024;
/** Few, so that tests see more than one page. */
const pageObjects = 4;

/** `service` is the class path that backups made here get. */
export function createMemoryStore(
  service = 'cinder.backup.drivers.posix.PosixBackupDriver',
  kind = 'memory',
): MemoryStore {
  const containers = new Map<string, Map<string, Buffer>>();

  const open = (container: string): Map<string, Buffer> => {
    const found = containers.get(requireContainer(container));
    if (found === undefined) throw missing(`container ${container}`);
    return found;
  };
  const store = async (container: string, key: string, signal: AbortSignal, body: Buffer) => {
    await turn(signal);
    open(container).set(requireKey(key), body);
  };

  return {
    kind,
    service,
    containers,
    corrupt(container, key, change) {
      const bytes = containers.get(container)?.get(key);
      if (bytes === undefined) throw missing(`object ${key}`);
      containers.get(container)?.set(key, change(Buffer.from(bytes)));
    },
    async ensureContainer(container, signal) {
      await turn(signal);
      requireContainer(container);
      if (!containers.has(container)) containers.set(container, new Map());
    },
    async put(container, key, body, { signal }) {
      await store(container, key, signal, Buffer.from(body));
    },
    async putStream(container, key, body, { signal }) {
      await turn(signal);
      open(container);
      requireKey(key);
      const pieces: Buffer[] = [];
      for await (const piece of body) {
        throwIfAborted(signal);
        pieces.push(Buffer.from(piece));
      }
      await store(container, key, signal, Buffer.concat(pieces));
    },
    async flush(_container, _prefix, signal) {
      await turn(signal);
    },
    async get(container, key, { signal }) {
      await turn(signal);
      const bytes = open(container).get(requireKey(key));
      if (bytes === undefined) throw missing(`object ${key} in container ${container}`);
      async function* body(whole: Buffer): AsyncGenerator<Buffer> {
        for (let at = 0; at < whole.length; at += pieceBytes) {
          await turn(signal);
          yield Buffer.from(whole.subarray(at, at + pieceBytes));
        }
      }
      return { sizeBytes: bytes.length, body: body(bytes) };
    },
    async *list(container, prefix, signal) {
      await turn(signal);
      requireContainer(container);
      const found = Array.from(containers.get(container) ?? [])
        .filter(([key]) => key.startsWith(prefix))
        .map(([key, bytes]) => ({ key, sizeBytes: bytes.length }));
      for (let at = 0; at < found.length; at += pageObjects) {
        throwIfAborted(signal);
        yield found.slice(at, at + pageObjects);
      }
    },
    async remove(container, key, signal) {
      await turn(signal);
      requireKey(key);
      containers.get(requireContainer(container))?.delete(key);
    },
    async removeContainer(container, signal) {
      await turn(signal);
      if (containers.get(requireContainer(container))?.size === 0) containers.delete(container);
    },
    async close() {
      await Promise.resolve();
    },
  };
}

async function turn(signal: AbortSignal): Promise<void> {
  throwIfAborted(signal);
  await Promise.resolve();
}

function missing(what: string): BackupError {
  return new BackupError('object-missing', `${what} is absent from the memory store`);
}
