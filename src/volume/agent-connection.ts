/**
 * HTTP to one agent: JSON calls and the bodies of frame streams over one keep-alive pool. Every failure
 * leaves here as a BackupError; retrying is the caller's.
 */
import type { Readable } from 'node:stream';
import { Pool, type Dispatcher } from 'undici';
import { z } from 'zod';
import { BackupError } from '../model/errors.ts';
import { streamContentType } from '../protocol/frames.ts';
import { answerError, transportError } from './agent-error.ts';

export type AgentAccess = {
  /** The shared token. */
  readonly token?: string | undefined;
  /** PEM texts: who may answer, and who we are. */
  readonly tls?:
    | {
        readonly ca?: string | undefined;
        readonly cert?: string | undefined;
        readonly key?: string | undefined;
      }
    | undefined;
};

/** What has arrived since the last batch, in order: one wait serves many small pieces. */
export type PieceBatch = readonly Uint8Array[];

export type AgentConnection = {
  /** For messages. */
  readonly url: string;
  /** One JSON call; the answer is parsed with `schema`. `timeoutMs` bounds the wait for the answer. */
  call<T>(ask: {
    readonly method: 'GET' | 'POST' | 'DELETE';
    readonly path: string;
    readonly body?: unknown;
    readonly schema: z.ZodType<T>;
    readonly timeoutMs: number;
    readonly signal: AbortSignal;
  }): Promise<T>;
  /**
   * The body of a frame stream in batches of pieces, read no faster than it is used; a silence of the idle
   * time-out breaks it. Leaving the loop closes the connection of a stream that is not at its end.
   */
  stream(path: string, body: unknown, signal: AbortSignal): Promise<AsyncIterable<PieceBatch>>;
  close(): Promise<void>;
};

/** JSON answers beyond this are not read: a list of 50 000 volumes is far below. */
const maxAnswerBytes = 32 * 1024 * 1024;
/** What is asked for may take the agent this long to prepare; it answers with idle frames from then on. */
const streamHeadersTimeoutMs = 300_000;

export function createAgentConnection(options: {
  readonly url: string;
  readonly access: AgentAccess;
  readonly idleTimeoutMs: number;
}): AgentConnection {
  const base = parseAgentUrl(options.url);
  const { token, tls } = options.access;
  const pool = new Pool(base.origin, {
    allowH2: false,
    pipelining: 1,
    keepAliveTimeout: 30_000,
    connect: { timeout: 10_000, keepAliveInitialDelay: 30_000, ...definedOf(tls ?? {}) },
  });
  const headers = { ...authorization(token), 'content-type': 'application/json' };

  const send = async (
    what: string,
    request: Dispatcher.RequestOptions & { signal: AbortSignal },
  ): Promise<Dispatcher.ResponseData> => {
    try {
      return await pool.request(request);
    } catch (error) {
      throw transportError(what, error, request.signal);
    }
  };

  return {
    url: base.href,
    async call({ method, path, body, schema, timeoutMs, signal }) {
      const what = `agent ${base.href}: ${method} ${path}`;
      const answer = await send(what, {
        method,
        path: base.prefix + path,
        headers: body === undefined ? authorization(token) : headers,
        body: body === undefined ? null : JSON.stringify(body),
        headersTimeout: timeoutMs,
        bodyTimeout: options.idleTimeoutMs,
        signal,
      });
      const bytes = await readAll(what, answer.body, signal);
      if (answer.statusCode < 200 || answer.statusCode > 299) {
        throw answerError(what, answer.statusCode, bytes);
      }
      return parseAnswer(what, schema, bytes);
    },

    async stream(path, body, signal) {
      const what = `agent ${base.href}: POST ${path}`;
      const answer = await send(what, {
        method: 'POST',
        path: base.prefix + path,
        headers,
        body: JSON.stringify(body),
        headersTimeout: streamHeadersTimeoutMs,
        bodyTimeout: options.idleTimeoutMs,
        highWaterMark: 256 * 1024,
        signal,
      });
      if (answer.statusCode !== 200) {
        throw answerError(what, answer.statusCode, await readAll(what, answer.body, signal));
      }
      const contentType = String(answer.headers['content-type'] ?? 'none');
      if (contentType.split(';')[0]?.trim() !== streamContentType) {
        answer.body.on('error', () => {}).destroy();
        throw new BackupError(
          'agent-failed',
          `${what}: answered with content type ${contentType} instead of ${streamContentType}; ` +
            `check that this is the address of an agent of this version`,
        );
      }
      return batches(what, answer.body, signal);
    },

    close: () => pool.destroy(),
  };
}

/** Throws `config-invalid` unless `url` is an http or https address without credentials or query. */
export function parseAgentUrl(url: string): { origin: string; prefix: string; href: string } {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (
    parsed === undefined ||
    (parsed.protocol !== 'http:' && parsed.protocol !== 'https:') ||
    `${parsed.username}${parsed.password}${parsed.search}${parsed.hash}` !== ''
  ) {
    const shown = parsed === undefined ? JSON.stringify(url) : `${parsed.protocol}//${parsed.host}`;
    throw new BackupError(
      'config-invalid',
      `agent address ${shown} is not valid: it must be http://host:port or https://host:port, the token apart`,
    );
  }
  const prefix = parsed.pathname.replace(/\/+$/, '');
  return { origin: parsed.origin, prefix, href: parsed.origin + prefix };
}

export function authorization(token: string | undefined): Record<string, string> {
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

/** The fields that are set: TLS options must be absent rather than undefined. */
export function definedOf(fields: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const defined: Record<string, string> = {};
  for (const [name, value] of Object.entries(fields)) if (value !== undefined) defined[name] = value;
  return defined;
}

/** Parses a JSON answer of an agent; `agent-failed` if it is not as agreed. */
export function parseAnswer<T>(what: string, schema: z.ZodType<T>, bytes: Buffer): T {
  try {
    return schema.parse(bytes.length === 0 ? undefined : JSON.parse(bytes.toString('utf8')));
  } catch (cause) {
    const why = cause instanceof z.ZodError ? z.prettifyError(cause) : 'it is not JSON';
    throw new BackupError(
      'agent-failed',
      `${what}: the answer is not as agreed: ${why}; check that this is an agent of this version`,
      { cause },
    );
  }
}

/** Bytes of a batch at which the socket is held back. */
const batchBytes = 256 * 1024;

/** Listens for data rather than iterating over the body, which would wait, and copy, once for each piece. */
async function* batches(what: string, body: Readable, signal: AbortSignal): AsyncGenerator<PieceBatch> {
  const state: { ended: boolean; failure?: { readonly reason: unknown } } = { ended: false };
  let batch: Uint8Array[] = [];
  let bytes = 0;
  let wake: (() => void) | undefined;
  body.on('data', (piece: Uint8Array) => {
    batch.push(piece);
    bytes += piece.length;
    if (bytes >= batchBytes) body.pause();
    wake?.();
  });
  body.on('end', () => {
    state.ended = true;
    wake?.();
  });
  body.on('error', (reason) => {
    state.failure ??= { reason };
    wake?.();
  });
  body.on('close', () => {
    if (!state.ended) state.failure ??= { reason: new Error('the connection was closed') };
    wake?.();
  });
  try {
    for (;;) {
      if (batch.length > 0) {
        const taken = batch;
        batch = [];
        bytes = 0;
        body.resume();
        yield taken;
      } else if (state.failure !== undefined) throw transportError(what, state.failure.reason, signal);
      else if (state.ended) return;
      else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    body.destroy();
  }
}

async function readAll(what: string, body: Readable, signal: AbortSignal): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const batch of batches(what, body, signal)) {
    for (const part of batch) length += part.length;
    if (length > maxAnswerBytes) {
      throw new BackupError(
        'agent-failed',
        `${what}: the answer is longer than ${maxAnswerBytes} bytes; check that this is the address of an agent`,
      );
    }
    parts.push(...batch);
  }
  return Buffer.concat(parts, length);
}
