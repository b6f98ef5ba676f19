/** The requests that are being served, so that each ends when its client leaves or the agent stops. */
import type { FastifyReply } from 'fastify';
import { BackupError } from '../model/errors.ts';

/**
 * Each kind has room of its own: a copy that takes an hour keeps no stream from being served. A comparison asks for blocks while it
 * holds a stream of digests, so those must not wait for a place among the streams: a block stream waits for no other request.
 */
export type RequestKind = 'streams' | 'block streams' | 'snapshots' | 'lists';

export type Requests = {
  /**
   * A controller that is aborted when the client leaves or the agent stops, until `done` is called. Throws
   * `busy` while as many of its kind as are allowed are being served.
   */
  begin(
    kind: RequestKind,
    reply: FastifyReply,
  ): { readonly controller: AbortController; readonly done: () => void };
  stop(): void;
};

export function createRequests(limits: Readonly<Record<RequestKind, number>>): Requests {
  const active: Record<RequestKind, Set<AbortController>> = {
    streams: new Set(),
    'block streams': new Set(),
    snapshots: new Set(),
    lists: new Set(),
  };
  return {
    begin(kind, reply) {
      if (active[kind].size >= limits[kind]) {
        throw new BackupError(
          'busy',
          `the agent serves ${limits[kind]} ${kind} already: try again later, or raise its --max-streams ([delta] agent_max_streams)`,
        );
      }
      const controller = new AbortController();
      active[kind].add(controller);
      const left = () => {
        if (reply.raw.writableFinished) return;
        controller.abort(
          new BackupError('cancelled', 'the client has gone away before the answer was complete'),
        );
      };
      reply.raw.once('close', left);
      const done = () => {
        reply.raw.off('close', left);
        active[kind].delete(controller);
      };
      return { controller, done };
    },
    stop() {
      for (const controller of Object.values(active).flatMap((some) => [...some])) {
        controller.abort(
          new BackupError('agent-unavailable', 'the agent is stopping; try again when it is back'),
        );
      }
    },
  };
}
