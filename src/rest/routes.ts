/** What every file of routes is given. */
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Database } from '../database/database.ts';
import type { LocalVolumes } from '../manager/local-volumes.ts';
import type { Manager } from '../manager/manager.ts';
import type { Operations } from '../manager/operations.ts';
import { BackupError } from '../model/errors.ts';
import type { RequestContext } from '../model/request-context.ts';
import type { Metrics } from './metrics.ts';

export type RestApp = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  ZodTypeProvider
>;

/** What there is in every mode: for those who operate the service. */
export type OperatorServices = {
  readonly database: Database;
  readonly manager: Pick<Manager, 'verify'>;
  readonly operations: Operations;
  readonly metrics: Metrics;
};

/** Standalone, where the REST API is also that of the users. */
export type RestServices = OperatorServices & {
  readonly manager: Manager;
  readonly volumes: LocalVolumes;
};

/** Who asks, in standalone mode: the project of the path, whichever it is. */
export function contextOf(request: FastifyRequest, projectId: string): RequestContext {
  return { projectId, userId: 'standalone', requestId: request.id };
}

/**
 * Aborted when the client leaves before it has its answer. Not Fastify's `request.signal`: that also aborts when the
 * body of a request has been read to its end.
 */
export function clientGone(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  const { raw } = reply;
  raw.once('close', () => {
    if (!raw.writableFinished) controller.abort(new BackupError('cancelled', 'the client went away'));
  });
  return controller.signal;
}
