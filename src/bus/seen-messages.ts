/** Remembers the last messages, so that one that is delivered twice is handled once (oslo_messaging/_drivers/amqp.py, _MsgIdCache). */
export type SeenMessages = {
  /** True the first time for each id; always for a message without one. */
  isNew(uniqueId: string | undefined): boolean;
};

/** oslo keeps 16; after a reconnect the broker may deliver again all that was not acknowledged, so more is kept here. */
const limit = 1000;

export function createSeenMessages(): SeenMessages {
  const seen = new Set<string>();
  return {
    isNew(uniqueId) {
      if (uniqueId === undefined) return true;
      if (seen.has(uniqueId)) return false;
      seen.add(uniqueId);
      const [oldest] = seen;
      if (seen.size > limit && oldest !== undefined) seen.delete(oldest);
      return true;
    },
  };
}
