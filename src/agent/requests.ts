/** The requests that are being served, so that each ends when its client leaves or the agent stops. */
import type { FastifyReply } from 'fastify';
import { BackupError } from '../model/errors.ts';

export type Requests = {
  readonly active: number;
  /** A controller that is aborted when the client leaves or the agent stops, until `done` is called. */
  begin(reply: FastifyReply): { readonly controller: AbortController; readonly done: () => void };
  /** Throws `agent-unavailable` while as many as are allowed are being served. */
  requireRoom(): void;
  stop(): void;
};

export function createRequests(limit: number): Requests {
  const active = new Set<AbortController>();
  return {
    get active() {
      return active.size;
    },
    begin(reply) {
      const controller = new AbortController();
      active.add(controller);
      const left = () => {
        if (reply.raw.writableFinished) return;
        controller.abort(
          new BackupError('cancelled', 'the client has gone away before the answer was complete'),
        );
      };
      reply.raw.once('close', left);
      const done = () => {
        reply.raw.off('close', left);
        active.delete(controller);
      };
      return { controller, done };
    },
    requireRoom() {
      if (active.size < limit) return;
      throw new BackupError(
        'agent-unavailable',
        `the agent serves ${limit} streams already: try again later`,
      );
    },
    stop() {
      for (const controller of active) {
        controller.abort(
          new BackupError('agent-unavailable', 'the agent is stopping; try again when it is back'),
        );
      }
    },
  };
}
