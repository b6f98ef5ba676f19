/**
 * Compression libraries of the system, called through koffi from worker threads: they work on shared memory in
 * place, where Node's own bindings make a second buffer for every result. Each of them is optional.
 */
import type { LibraryHandle } from 'koffi';

export type NativeLibraries = {
  /** The first of `names` (file names of shared libraries) that this system has. */
  open(names: readonly string[]): LibraryHandle | undefined;
  /** Where the bytes of `buffer` stand in memory: for fields of C structures. */
  addressOf(buffer: Buffer): bigint;
};

/** Loads koffi; undefined where it has no binary for this platform. */
export async function loadNativeLibraries(): Promise<NativeLibraries | undefined> {
  const koffi = await import('koffi').then(
    (module) => module.default,
    () => undefined,
  );
  if (koffi === undefined) return undefined;
  return {
    open(names) {
      for (const name of names) {
        try {
          return koffi.load(name);
        } catch {
          continue;
        }
      }
      return undefined;
    },
    addressOf: (buffer) => koffi.address(buffer),
  };
}
