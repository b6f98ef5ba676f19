/** What the posix store and its writing thread say to each other. */

/** Write `bytes` (shared memory) to the new file `temporary`, then rename it to `path`. */
export type WriteTask = {
  readonly number: number;
  readonly temporary: string;
  readonly path: string;
  readonly bytes: Uint8Array;
};

/** `failure` is null if the file is in its place; else nothing was left behind. */
export type WriteAnswer = {
  readonly number: number;
  readonly failure: { readonly code: string; readonly message: string } | null;
};
