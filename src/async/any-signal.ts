/**
 * Several signals as one. Not `AbortSignal.any` alone: that holds its signals weakly, and while nobody listens to it asks them only
 * when it is asked. A time limit that has passed, and that nobody else holds, is collected and forgotten: the work that it was to
 * end goes on for ever (Node 24.21; a test that should have waited 0.2 s retried until it was killed).
 */

/** A signal that lives keeps those alive that it is made of. */
const sources = new WeakMap<AbortSignal, readonly AbortSignal[]>();

/** A signal that aborts with the first of `signals`, with its reason. */
export function anySignal(signals: readonly AbortSignal[]): AbortSignal {
  const signal = AbortSignal.any([...signals]);
  sources.set(signal, signals);
  return signal;
}
