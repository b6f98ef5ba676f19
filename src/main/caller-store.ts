/**
 * A store that is opened with what one request brings, when it is first used: its token (backup_swift_auth = per_user), or its
 * catalog (single_user without backup_swift_auth_url). Without a caller every call fails with what opening it throws.
 */
import type { ObjectStore } from '../store/object-store.ts';
import { removePrefix } from '../store/remove-prefix.ts';

export type CallerStore = {
  readonly store: ObjectStore;
  /** Closes what was opened. Nothing may be called on the store any more. */
  close(): Promise<void>;
};

/** `known` is what is the same for all callers. */
export function createCallerStore(
  known: Pick<ObjectStore, 'kind' | 'service'>,
  open: () => ObjectStore,
): CallerStore {
  let opened: ObjectStore | undefined;
  const store = (): ObjectStore => (opened ??= open());
  const close = async () => await opened?.close();
  return {
    close,
    store: {
      ...known,
      ensureContainer: async (container, signal) => await store().ensureContainer(container, signal),
      put: async (container, key, body, options) => await store().put(container, key, body, options),
      putStream: async (container, key, body, options) =>
        await store().putStream(container, key, body, options),
      flush: async (container, prefix, signal) => await store().flush(container, prefix, signal),
      get: async (container, key, options) => await store().get(container, key, options),
      async *list(container, prefix, signal) {
        yield* store().list(container, prefix, signal);
      },
      remove: async (container, key, signal) => await store().remove(container, key, signal),
      removePrefix: async (container, prefix, signal) =>
        await removePrefix(store(), container, prefix, signal),
      removeContainer: async (container, signal) => await store().removeContainer(container, signal),
      close,
    },
  };
}
