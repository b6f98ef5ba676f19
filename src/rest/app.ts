/**
 * The REST room: Block Storage v3 as far as backups go, operations and verify beside it, metrics and health.
 *
 * Entry: createRestApp (standalone), createOperatorApp (under Cinder), built without listening. Schemas are the types and the description; names are checked
 * by them before a handler runs. Handlers only translate: what happens is the manager's. Errors have one
 * handler (faults.ts). In standalone mode any project in the path is accepted and sees its own rows.
 */
import { randomUUID } from 'node:crypto';
import swagger from '@fastify/swagger';
import { fastify } from 'fastify';
import {
  jsonSchemaTransform,
  jsonSchemaTransformObject,
  serializerCompiler,
  validatorCompiler,
  type ZodTypeProvider,
} from 'fastify-type-provider-zod';
import type { Logger } from '../log.ts';
import { BackupError } from '../model/errors.ts';
import { createTokenCheck, type RestAccess } from './access.ts';
import { backupRoutes } from './backup-routes.ts';
import { createFaultHandler } from './faults.ts';
import { operationRoutes } from './operation-routes.ts';
import type { OperatorServices, RestApp, RestServices } from './routes.ts';
import { serviceRoutes } from './service-routes.ts';
import { snapshotRoutes } from './snapshot-routes.ts';
import { volumeRoutes } from './volume-routes.ts';

/** Bodies are small JSON: the largest is a backup with metadata. */
const bodyLimit = 256 * 1024;

export type RestOptions = {
  readonly access: RestAccess;
  readonly log: Logger;
  /** While it says false every request is answered with 503; always ready unless given. */
  readonly isReady?: () => boolean;
};

/** Standalone: everything. */
export function createRestApp(services: RestServices, options: RestOptions): RestApp {
  return createApp(options, (app) => {
    backupRoutes(app, services);
    volumeRoutes(app, services);
    snapshotRoutes(app, services);
    operationRoutes(app, services);
    serviceRoutes(app, services);
  });
}

/** Under Cinder: what cinder-api does not have. Users have cinder-api. */
export function createOperatorApp(services: OperatorServices, options: RestOptions): RestApp {
  return createApp(options, (app) => {
    operationRoutes(app, services);
    serviceRoutes(app, services);
  });
}

function createApp(options: RestOptions, register: (app: RestApp) => void): RestApp {
  const handleFault = createFaultHandler(options.log);
  const app: RestApp = fastify({
    bodyLimit,
    genReqId: () => `req-${randomUUID()}`,
    routerOptions: { maxParamLength: 256 },
    forceCloseConnections: 'idle',
    requestTimeout: 60_000,
    frameworkErrors: handleFault,
  }).withTypeProvider<ZodTypeProvider>();

  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(handleFault);
  app.setNotFoundHandler((request, reply) => {
    const error = new BackupError(
      'not-found',
      `The resource could not be found: ${request.method} ${request.url}.`,
    );
    handleFault(error, request, reply);
  });
  const parseJson = app.getDefaultJsonParser('error', 'error');
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined);
    else void parseJson(request, String(body), done);
  });
  const checkToken = createTokenCheck(options.access);
  app.addHook('onRequest', async (request, reply) => {
    void reply.header('x-openstack-request-id', request.id);
    checkToken(request);
    if (options.isReady?.() === false)
      throw new BackupError('busy', 'the service is starting: ask again in some seconds');
  });

  app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'cinder-delta',
        version: '1',
        description: 'Backups in the shape of Block Storage v3; operations and verify under /v1.',
      },
    },
    transform: jsonSchemaTransform,
    transformObject: jsonSchemaTransformObject,
  });
  app.register(async (scope) => {
    register(scope.withTypeProvider<ZodTypeProvider>());
  });
  return app;
}
