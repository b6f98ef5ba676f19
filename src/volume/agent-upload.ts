/**
 * The body of one `PUT` to an agent, written piece by piece. Over node:http, not undici, because its write
 * callback tells when the kernel has taken the bytes: so they need not be copied. One connection of its own, kept
 * alive until the answer: a server that refuses in the middle then reads on instead of resetting, and its
 * answer gets through.
 */
import http from 'node:http';
import https from 'node:https';
import { BackupError, cancelledBy, throwIfAborted } from '../model/errors.ts';
import { streamContentType } from '../protocol/frames.ts';
import { authorization, definedOf, parseAgentUrl, type AgentAccess } from './agent-connection.ts';
import { answerError, transportError } from './agent-error.ts';

export type Upload = {
  /**
   * Resolves when the kernel has taken the pieces, which must not change until then. Rejects with what broke
   * the upload, the agent's own error where it gave one.
   */
  write(pieces: readonly Buffer[]): Promise<void>;
  /** Ends the body and waits for the answer, whose bytes it returns; throws unless the status is 2xx. */
  finish(): Promise<Buffer>;
  /** Closes the connection. What still waits fails with `reason`. */
  close(reason: BackupError): Promise<void>;
};

const connectTimeoutMs = 10_000;
/** An agent of another make may not answer the question whether it takes the body: then it is sent unasked. */
const continueTimeoutMs = 5_000;
/** The answer comes after the bytes are on stable storage, which may be all of a large volume. */
const answerTimeoutMs = 1_800_000;
const maxAnswerBytes = 1024 * 1024;

/**
 * Connects, sends the head of the request, waits until the agent wants the body (RFC 9110, 10.1.1), and sends `first`.
 * `idleTimeoutMs` bounds how long nothing may move. Throws what the agent answers instead: `busy`, say.
 */
export async function openUpload(options: {
  readonly url: string;
  readonly access: AgentAccess;
  readonly path: string;
  readonly first: Buffer;
  readonly idleTimeoutMs: number;
  readonly signal: AbortSignal;
}): Promise<Upload> {
  const { access, signal } = options;
  throwIfAborted(signal);
  const base = parseAgentUrl(options.url);
  const what = `agent ${base.href}: PUT ${options.path}`;
  const transport = base.origin.startsWith('https:') ? https : http;
  const agent = new transport.Agent({ keepAlive: true, maxSockets: 1 });
  const request = transport.request(base.href + options.path, {
    method: 'PUT',
    agent,
    timeout: connectTimeoutMs,
    headers: { ...authorization(access.token), 'content-type': streamContentType, expect: '100-continue' },
    ...definedOf(access.tls ?? {}),
  });

  const answered = Promise.withResolvers<Buffer>();
  answered.promise.catch(() => undefined);
  const closed = Promise.withResolvers<undefined>();
  const waiting = new Set<(reason: BackupError) => void>();
  const state: { failure?: BackupError; bodyEnded: boolean; answering: boolean } = {
    bodyEnded: false,
    answering: false,
  };

  const fail = (error: BackupError): void => {
    state.failure ??= error;
    answered.reject(state.failure);
    for (const reject of waiting) reject(state.failure);
    waiting.clear();
    request.destroy();
  };
  const onAbort = () => fail(cancelledBy(signal));
  signal.addEventListener('abort', onAbort, { once: true });

  request.on('response', (response) => {
    state.answering = true;
    readAnswer(response).then(
      (body) => {
        const status = response.statusCode ?? 0;
        if (status < 200 || status > 299) fail(answerError(what, status, body));
        else if (state.bodyEnded) answered.resolve(body);
        else fail(new BackupError('agent-failed', `${what}: answered before the end; check the agent's log`));
      },
      (error: unknown) => fail(transportError(what, error, signal)),
    );
  });
  request.on('error', (error) => {
    if (!state.answering) fail(transportError(what, error, signal));
  });
  request.on('timeout', () => {
    fail(
      new BackupError(
        'agent-unavailable',
        `${what}: nothing moved for too long; check that the agent and the storage behind it respond`,
      ),
    );
  });
  request.on('close', () => {
    signal.removeEventListener('abort', onAbort);
    agent.destroy();
    if (!state.answering) fail(transportError(what, new Error('the connection was closed'), signal));
    closed.resolve(undefined);
  });

  const write = (pieces: readonly Buffer[]): Promise<void> =>
    new Promise((resolve, reject) => {
      if (state.failure !== undefined) {
        reject(state.failure);
        return;
      }
      waiting.add(reject);
      const last = pieces.length - 1;
      request.cork();
      for (const [index, piece] of pieces.entries()) {
        if (index < last) request.write(piece);
        else {
          request.write(piece, (error) => {
            // On an error the request itself fails next, with the better reason.
            if (error instanceof Error) return;
            waiting.delete(reject);
            resolve();
          });
        }
      }
      request.uncork();
    });

  const wanted = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => wanted.resolve(undefined), continueTimeoutMs);
  request.once('continue', () => wanted.resolve(undefined));
  answered.promise.catch((error: unknown) => wanted.reject(error));
  request.flushHeaders();
  try {
    await wanted.promise;
  } finally {
    clearTimeout(timer);
  }
  await write([options.first]);
  request.setTimeout(options.idleTimeoutMs);

  return {
    write,
    async finish() {
      if (state.failure !== undefined) throw state.failure;
      state.bodyEnded = true;
      request.setTimeout(answerTimeoutMs);
      request.end();
      try {
        return await answered.promise;
      } finally {
        request.destroy();
        await closed.promise;
      }
    },
    async close(reason) {
      fail(reason);
      await closed.promise;
    },
  };
}

async function readAnswer(response: http.IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response) {
    if (!Buffer.isBuffer(part)) continue;
    length += part.length;
    if (length > maxAnswerBytes) throw new Error(`the answer is longer than ${maxAnswerBytes} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts, length);
}
