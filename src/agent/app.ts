/**
 * The agent's HTTP application, built without listening. Routes stand in volume-routes (JSON), stream-routes
 * (snapshot to client) and write-routes (client to volume); the protocol is described in openapi/agent.yaml
 * and openapi/agent-stream.md.
 *
 * Names are checked by the schemas before a handler sees them. Every stream ends, and lets go of its files and jobs,
 * when its client leaves or the app is closed.
 */
import swagger from '@fastify/swagger';
import { fastify, type FastifyInstance } from 'fastify';
import {
  jsonSchemaTransform,
  jsonSchemaTransformObject,
  serializerCompiler,
  validatorCompiler,
} from 'fastify-type-provider-zod';
import type { Logger } from '../log.ts';
import { BackupError } from '../model/errors.ts';
import { createAccessCheck, tlsOptions, type AgentAccess } from './access.ts';
import { createErrorHandler } from './error-answer.ts';
import { LateContinueResponse } from './late-continue.ts';
import type { ReaderPool } from './reader-pool.ts';
import { createRequests, type Requests } from './requests.ts';
import { streamRoutes } from './stream-routes.ts';
import type { VolumeBackend } from './volume-backend.ts';
import { volumeRoutes } from './volume-routes.ts';
import { writeRoutes } from './write-routes.ts';

export type AgentAppOptions = {
  readonly backends: readonly VolumeBackend[];
  readonly access: AgentAccess;
  readonly log: Logger;
  readonly readers: ReaderPool;
  /** An idle frame after so long without another: 10 s. */
  readonly idleMs?: number | undefined;
  /** How long a client may go on sending after it was refused, before it is cut off: 10 s. */
  readonly lingerMs?: number | undefined;
  /**
   * Streams at once: 32. Those of named blocks, of which a comparison has one beside its digests, are counted apart: as many again. More
   * are `busy`, to be tried again.
   */
  readonly maxStreams?: number | undefined;
  /** Snapshots being made at once, each a call that waits; counted apart: as many as streams. */
  readonly maxSnapshots?: number | undefined;
};

export type AgentContext = {
  readonly backends: readonly VolumeBackend[];
  /** Throws `not-found`. */
  readonly backendOf: (name: string) => VolumeBackend;
  readonly log: Logger;
  readonly readers: ReaderPool;
  readonly requests: Requests;
  readonly idleMs: number;
};

/** JSON bodies: the longest is a `blocks` request of 4096 ranges. */
const bodyLimit = 256 * 1024;

export function createAgentApp(options: AgentAppOptions): FastifyInstance {
  const { access, backends, log, readers } = options;
  const handleError = createErrorHandler(log, options.lingerMs ?? 10_000);
  const https = tlsOptions(access);
  const shared = {
    bodyLimit,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 256 },
    frameworkErrors: handleError,
  } as const;
  const server = {
    keepAlive: true,
    keepAliveInitialDelay: 30_000,
    ServerResponse: LateContinueResponse,
  };
  const app: FastifyInstance =
    https === null
      ? fastify({ ...shared, http: server })
      : fastify({ ...shared, https: { ...https, ...server } });

  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(handleError);
  app.setNotFoundHandler((request, reply) => {
    handleError(
      new BackupError('not-found', `there is no ${request.method} ${request.url} here`),
      request,
      reply,
    );
  });
  const checkAccess = createAccessCheck(access);
  app.addHook('onRequest', async (request) => checkAccess(request));

  const maxStreams = options.maxStreams ?? 32;
  const requests = createRequests({
    streams: maxStreams,
    'block streams': maxStreams,
    snapshots: options.maxSnapshots ?? maxStreams,
    lists: maxStreams,
  });
  app.addHook('preClose', async () => requests.stop());

  const byName = new Map(backends.map((backend) => [backend.info.name, backend]));
  const context: AgentContext = {
    backends,
    log,
    readers,
    requests,
    idleMs: options.idleMs ?? 10_000,
    backendOf(name) {
      const backend = byName.get(name);
      if (backend === undefined) throw new BackupError('not-found', `backend ${name} is not served here`);
      return backend;
    },
  };

  app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'cinder-delta agent',
        version: '1',
        description:
          'Finds, reads and writes the blocks of volumes where they are stored. Streams: agent-stream.md. ' +
          'An agent without a token and without an authority for client certificates listens on loopback only, and ' +
          'answers only requests whose Host is a loopback name and whose Origin, if any, is its own (access-denied).',
      },
    },
    transform: jsonSchemaTransform,
    transformObject: jsonSchemaTransformObject,
  });
  app.removeContentTypeParser('text/plain');
  app.register(async (scope) => {
    volumeRoutes(scope, context);
    streamRoutes(scope, context);
  });
  app.register(async (scope) => {
    writeRoutes(scope, context);
  });
  return app;
}
