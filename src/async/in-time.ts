/** Waiting for something no longer than a while. */

/** What `running` gives, or what `late` gives or throws if that takes longer than `limitMs`; `running` goes on unheard. */
export async function inTime<T>(running: Promise<T>, limitMs: number, late: () => T): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const timer = setTimeout(() => {
    try {
      resolve(late());
    } catch (error) {
      reject(error);
    }
  }, limitMs);
  try {
    return await Promise.race([running, promise]);
  } finally {
    clearTimeout(timer);
  }
}
