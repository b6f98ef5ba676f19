/**
 * Signs of life for a caller that waits for them: one every half of its timeout, from the start of the request to
 * its reply (oslo_messaging/rpc/dispatcher.py, _watchdog). A timeout under two seconds gets none, as there.
 */
import type { Logger } from '../log.ts';
import { messageOf } from '../model/errors.ts';
import type { ReplySender } from './reply-sender.ts';
import type { PendingCall } from './rpc-message.ts';
import { uniqueId } from './unique-id.ts';

/** Starts the signs of life of `call`; the returned function ends them. */
export function startCallMonitor(call: PendingCall, replies: ReplySender, log: Logger): () => void {
  if (call.monitorSeconds === null || call.monitorSeconds < 2) return () => undefined;
  const stop = new AbortController();
  const beat = async () => {
    const reply = {
      messageId: call.messageId,
      uniqueId: uniqueId(),
      result: null,
      failure: null,
      ending: false,
    };
    const isSeen = await replies.sendHeartbeat(call.replyQueue, reply, stop.signal);
    if (!isSeen) end();
  };
  const timer = setInterval(() => {
    beat().catch((error: unknown) => {
      if (!stop.signal.aborted) log.debug({ reason: messageOf(error) }, 'a sign of life was not sent');
    });
  }, call.monitorSeconds * 500);
  const end = () => {
    clearInterval(timer);
    stop.abort();
  };
  return end;
}
