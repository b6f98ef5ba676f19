/** What a failed exchange with an agent means: foreign errors and the agent's own answers become BackupError here. */
import { BackupError, cancelledBy, isErrorCode, messageOf } from '../model/errors.ts';
import { errorAnswer } from '../protocol/calls.ts';

/**
 * The error that an agent reports. An unknown code is `agent-failed`, and so is `bug`, which would be ours
 * otherwise; `cancelled` means that the agent is being stopped, which is not what our caller asked for.
 */
export function agentError(code: string, message: string): BackupError {
  if (code === 'cancelled') return new BackupError('agent-unavailable', message);
  if (code === 'bug' || !isErrorCode(code)) {
    return new BackupError('agent-failed', message, { details: { agentCode: code } });
  }
  return new BackupError(code, message);
}

/** The error of an answer whose status is not 2xx. `what` names the call and the agent. */
export function answerError(what: string, status: number, body: Buffer): BackupError {
  const said = errorAnswer.safeParse(parsedJson(body));
  if (said.success) return agentError(said.data.error.code, `${what}: ${said.data.error.message}`);
  const answered = `${what}: answered with status ${status} and no error of an agent`;
  if (status === 401 || status === 403) {
    return new BackupError('access-denied', `${answered}; check the token or the client certificate`);
  }
  if (status === 429 || status === 502 || status === 503 || status === 504) {
    return new BackupError('agent-unavailable', `${answered}; check that the agent behind this address runs`);
  }
  return new BackupError('agent-failed', `${answered}; check that this is the address of an agent`);
}

function parsedJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
}

/** True for failures of certificates and of TLS itself: trying again does not help. */
function isTlsRefusal(code: string): boolean {
  return (
    code.startsWith('ERR_TLS_') ||
    code.startsWith('ERR_SSL_') ||
    code.startsWith('CERT_') ||
    code.includes('SELF_SIGNED') ||
    code.startsWith('UNABLE_TO_') ||
    code === 'EPROTO'
  );
}

/** True for bytes that are no HTTP answer; one that merely ends too early is a cut. undici's errors have no code here. */
function isNotHttp(error: unknown, code: string): boolean {
  const isParserError =
    code.startsWith('HPE_') || (error instanceof Error && error.name === 'HTTPParserError');
  return isParserError && !/EOF/.test(`${code} ${messageOf(error)}`);
}

/**
 * The error of an exchange that broke: `cancelled` if it was our signal, `access-denied` for certificates,
 * `agent-failed` for what is not HTTP, else `agent-unavailable`.
 */
export function transportError(what: string, error: unknown, signal: AbortSignal | undefined): BackupError {
  if (signal?.aborted === true) return cancelledBy(signal);
  if (error instanceof BackupError) return error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (code === 'UND_ERR_DESTROYED' || code === 'UND_ERR_CLOSED') {
    return new BackupError('cancelled', `${what}: the client was closed`, { cause: error });
  }
  const sentence = `${what}: ${messageOf(error) || code}`;
  if (isTlsRefusal(code)) {
    return new BackupError('access-denied', `${sentence}; check the certificates of both ends`, {
      cause: error,
    });
  }
  if (isNotHttp(error, code)) {
    return new BackupError('agent-failed', `${sentence}; check that this is the address of an agent`, {
      cause: error,
    });
  }
  return new BackupError(
    'agent-unavailable',
    `${sentence}; check that the agent runs, that its address can be reached, and that it accepts our certificate if it asks for one`,
    { cause: error },
  );
}
