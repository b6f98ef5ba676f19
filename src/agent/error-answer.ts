/** Errors as answers: `{"error": {"code", "message"}}` with the status of the code. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import type { Logger } from '../log.ts';
import { BackupError, errorCodes, isBackupError, messageOf, type ErrorCode } from '../model/errors.ts';

/** What a client is told of any thrown value. The text of an unforeseen error stays in the log. */
export function answerOf(error: unknown): BackupError {
  if (isBackupError(error)) return error;
  if (hasZodFastifySchemaValidationErrors(error)) {
    const problems = error.validation.map(
      ({ instancePath, message }) =>
        `${instancePath.slice(1).replaceAll('/', '.') || 'request'}: ${message ?? 'is invalid'}`,
    );
    return new BackupError('message-invalid', problems.join('; '), { cause: error });
  }
  const status = error instanceof Error && 'statusCode' in error ? error.statusCode : undefined;
  if (typeof status === 'number' && status >= 400 && status < 500) {
    return new BackupError(codeOfStatus(status), messageOf(error), { cause: error });
  }
  return new BackupError('bug', 'the agent met an unforeseen error; its log has the details', {
    cause: error,
  });
}

function codeOfStatus(status: number): ErrorCode {
  if (status === 404) return 'not-found';
  if (status === 413 || status === 414) return 'limit-exceeded';
  return 'message-invalid';
}

/**
 * Answers errors of every route; logs those that are the agent's own fault. A client that still sends `lingerMs` after its refusal
 * is cut off.
 */
export function createErrorHandler(log: Logger, lingerMs: number) {
  return (error: FastifyError | Error, request: FastifyRequest, reply: FastifyReply): void => {
    const answer = answerOf(error);
    const { httpStatus } = errorCodes[answer.code];
    const fields = { code: answer.code, method: request.method, url: request.url, details: answer.details };
    if (httpStatus >= 500) log.error({ ...fields, err: error }, 'request failed');
    else log.info({ ...fields, reason: answer.message }, 'request refused');
    if (answer.code === 'access-denied') reply.header('www-authenticate', 'Bearer');
    cutOffLater(request.raw, reply.raw, lingerMs);
    void reply.code(httpStatus).send({ error: { code: answer.code, message: answer.message } });
  };
}

/** A client that has not read its refusal yet needs the connection for it; one that never stops loses it. */
function cutOffLater(request: IncomingMessage, response: ServerResponse, lingerMs: number): void {
  response.once('finish', () => {
    if (request.complete) return;
    const timer = setTimeout(() => request.destroy(), lingerMs);
    request.once('close', () => clearTimeout(timer));
  });
}
