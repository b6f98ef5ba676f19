/** What operators and their machines ask: health, metrics, the API's description. */
import { z } from 'zod';
import { tidyOpenApi } from '../protocol/openapi-document.ts';
import { faults } from './parameter-schemas.ts';
import type { OperatorServices, RestApp } from './routes.ts';

export function serviceRoutes(app: RestApp, { database, metrics, operations }: OperatorServices): void {
  const tags = ['service'];

  app.get(
    '/healthz',
    {
      schema: {
        tags,
        summary: 'Whether the service and its database answer',
        response: { 200: z.object({ status: z.literal('ok'), running: z.number().int() }), ...faults },
      },
    },
    async () => {
      await database.ping();
      const running = operations.list().filter(({ state }) => state === 'running').length;
      return { status: 'ok' as const, running };
    },
  );

  app.get(
    '/metrics',
    {
      schema: {
        tags,
        summary: 'Metrics for Prometheus',
        response: { 200: z.string().describe('the text format of Prometheus') },
      },
    },
    async (_request, reply) =>
      reply
        .header('content-type', metrics.contentType)
        .serializer((text: unknown) => String(text))
        .send(await metrics.text()),
  );

  app.get('/openapi.json', { schema: { hide: true } }, async (_request, reply) =>
    reply
      .header('content-type', 'application/json; charset=utf-8')
      .serializer((document: unknown) => JSON.stringify(document))
      .send(tidyOpenApi(app.swagger())),
  );
}
