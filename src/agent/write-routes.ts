/** The call that takes a stream of frames into a volume. */
import type { FastifyInstance } from 'fastify';
import type { IncomingMessage } from 'node:http';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { BackupError, cancelledBy } from '../model/errors.ts';
import { backendName, volumeNameSchema, writeTotals } from '../protocol/calls.ts';
import { streamContentType } from '../protocol/frames.ts';
import type { AgentContext } from './app.ts';
import { takeFrames } from './frame-intake.ts';
import { tellToGoOn } from './late-continue.ts';
import { createPageBuffers } from './page-buffers.ts';
import { errorResponses } from './route-schemas.ts';

/** A sender that has nothing to send sends an idle frame every 10 s: one that is stopped does not keep a volume for ever. */
const silenceMs = 300_000;

/** `app` is a scope of its own: it takes no other bodies than streams. */
export function writeRoutes(app: FastifyInstance, context: AgentContext): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const { backendOf, log, requests } = context;

  const buffers = createPageBuffers();

  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    [streamContentType, 'application/octet-stream'],
    (_request, payload, done: (error: Error | null, body: IncomingMessage) => void) => done(null, payload),
  );

  routes.put(
    '/v1/backends/:backend/volumes/:volume/data',
    {
      schema: {
        summary: 'Write a stream of data and zeros into a volume',
        description:
          'The body is a stream of frames: see agent-stream.md. Answered after everything is on stable storage.',
        params: z.object({ backend: backendName, volume: volumeNameSchema }),
        response: { 200: writeTotals, ...errorResponses },
      },
    },
    async ({ params, raw }, reply) => {
      const backend = backendOf(params.backend);
      const { controller, done } = requests.begin('streams', reply);
      if (raw.headers.expect !== undefined) tellToGoOn(reply.raw);
      try {
        await using held = new AsyncDisposableStack();
        const target = await backend.openTarget(params.volume);
        held.defer(() => target.close());
        const body = raw.iterator({ destroyOnReturn: false });
        const totals = await takeFrames(body, target, buffers, controller.signal, silenceMs);
        log.info({ volume: params.volume, ...totals }, 'volume written');
        return totals;
      } catch (error) {
        if (controller.signal.aborted) throw cancelledBy(controller.signal);
        if (!raw.destroyed || raw.complete) throw error;
        throw new BackupError('cancelled', 'the client has gone away before its stream was complete', {
          cause: error,
        });
      } finally {
        done();
      }
    },
  );
}
