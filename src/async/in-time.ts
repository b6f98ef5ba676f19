/** Waiting for something no longer than a while. */

/** What `running` gives; throws `late()` if that takes longer than `limitMs`, and `running` goes on. */
export async function inTime<T>(running: Promise<T>, limitMs: number, late: () => Error): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(late()), limitMs);
  try {
    return await Promise.race([running, promise]);
  } finally {
    clearTimeout(timer);
  }
}
