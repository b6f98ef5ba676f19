/** What the posix store and its writing thread say to each other. */

/**
 * Write files into `directory`: file n has `places[2n + 1]` bytes of `memory` from `places[2n]` on, is written as
 * `temporaries[n]` and then renamed to `names[n]`. Arrays of plain values, since each view would be cloned at twenty times the cost.
 */
export type WriteTask = {
  readonly number: number;
  readonly directory: string;
  readonly memory: SharedArrayBuffer;
  readonly temporaries: readonly string[];
  readonly names: readonly string[];
  readonly places: Float64Array;
};

/** `failure` is null if all files are in their places; else the first that is not: nothing was left behind of it. */
export type WriteAnswer = {
  readonly number: number;
  readonly failure: { readonly name: string; readonly code: string; readonly message: string } | null;
};
