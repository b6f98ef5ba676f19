/** Errors as answers: Cinder's JSON (cinder/api/openstack/wsgi.py, Fault), our code in a header. One handler for all routes. */
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import type { Logger } from '../log.ts';
import { errorCodes, isBackupError, type ErrorCode } from '../model/errors.ts';

/** The header that carries our code beside Cinder's fault. */
export const errorCodeHeader = 'x-cinder-delta-error';

const faultNames: Readonly<Record<number, string>> = {
  400: 'badRequest',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'itemNotFound',
  405: 'badMethod',
  409: 'conflictingRequest',
  413: 'overLimit',
  415: 'badMediaType',
  429: 'overLimit',
  501: 'notImplemented',
  503: 'serviceUnavailable',
};

type Answer = { readonly status: number; readonly code: ErrorCode; readonly message: string };

export function createFaultHandler(log: Logger) {
  return (error: unknown, request: FastifyRequest, reply: FastifyReply): void => {
    const { status, code, message } = answerOf(error);
    const fields = { request: request.id, method: request.method, url: request.url, status, code };
    if (status >= 500) log.error({ ...fields, err: error }, 'request failed');
    else log.info({ ...fields, reason: message }, 'request refused');
    void reply
      .code(status)
      .header('content-type', 'application/json; charset=utf-8')
      .header(errorCodeHeader, code)
      .serializer((body: unknown) => JSON.stringify(body))
      .send({ [faultNames[status] ?? 'computeFault']: { code: status, message } });
  };
}

function answerOf(error: unknown): Answer {
  const cause: unknown = error instanceof AggregateError ? error.errors[0] : error;
  if (isBackupError(cause)) {
    const { code, message } = cause;
    return { status: errorCodes[code].httpStatus, code, message: code === 'bug' ? unexpected : message };
  }
  if (hasZodFastifySchemaValidationErrors(cause)) {
    const places = cause.validation.map(({ instancePath, message }) => {
      const field = instancePath.replaceAll('/', '.').replace(/^\./, '');
      return `${field === '' ? (cause.validationContext ?? 'body') : field}: ${message ?? 'is not valid'}`;
    });
    return { status: 400, code: 'message-invalid', message: `Invalid input: ${places.join('; ')}.` };
  }
  if (isFrameworkError(cause)) {
    const status = cause.statusCode;
    return { status, code: status === 413 ? 'limit-exceeded' : 'message-invalid', message: cause.message };
  }
  return { status: 500, code: 'bug', message: unexpected };
}

const unexpected = 'The server has either erred or is incapable of performing the requested operation.';

/** What Fastify itself refuses: broken JSON, a body that is too large, a media type. */
function isFrameworkError(error: unknown): error is FastifyError & { statusCode: number } {
  return (
    error instanceof Error &&
    'statusCode' in error &&
    typeof error.statusCode === 'number' &&
    error.statusCode >= 400 &&
    error.statusCode < 500
  );
}
