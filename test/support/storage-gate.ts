/** Holds the calls of an agent's backend, so that a test can let something happen in the middle of them. */
import type { VolumeBackend } from '../../src/agent/volume-backend.ts';

export type GatedCall = 'createSnapshot' | 'deleteSnapshot' | 'openSnapshot' | 'openTarget';

export type StorageGate = {
  readonly wrap: (backend: VolumeBackend) => VolumeBackend;
  /** Makes the next call of that kind wait: `reached` resolves when it is there, `open` lets it go on. */
  hold(call: GatedCall): { readonly reached: Promise<void>; open(): void };
};

export function createStorageGate(): StorageGate {
  let held:
    { readonly call: GatedCall; readonly reached: () => void; readonly opened: Promise<void> } | undefined;
  const pass = async (call: GatedCall) => {
    if (held?.call !== call) return;
    const { reached, opened } = held;
    held = undefined;
    reached();
    await opened;
  };
  return {
    wrap: (backend) => ({
      ...backend,
      info: backend.info,
      async createSnapshot(volume, snapshot, signal) {
        await pass('createSnapshot');
        return await backend.createSnapshot(volume, snapshot, signal);
      },
      async deleteSnapshot(volume, snapshot) {
        await pass('deleteSnapshot');
        await backend.deleteSnapshot(volume, snapshot);
      },
      async openSnapshot(volume, snapshot) {
        await pass('openSnapshot');
        return await backend.openSnapshot(volume, snapshot);
      },
      async openTarget(volume) {
        await pass('openTarget');
        return await backend.openTarget(volume);
      },
    }),
    hold(call) {
      const opened = Promise.withResolvers<void>();
      const reached = Promise.withResolvers<void>();
      held = { call, reached: () => reached.resolve(), opened: opened.promise };
      return { reached: reached.promise, open: () => opened.resolve() };
    },
  };
}
