/** Waiting for something that goes on by itself, but not after one's own work was cancelled. */
import { cancelledBy } from '../model/errors.ts';

/** What `work` gives. Throws `cancelled` once `signal` has aborted; `work` goes on, and its failure is nobody's then. */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(cancelledBy(signal));
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([promise, work]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
