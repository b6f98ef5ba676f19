/**
 * HTTP to the services of a cloud: Keystone, Swift, S3. One pool of keep-alive connections for each `Http`.
 *
 * Entry: `createHttp`. Invariants:
 * - An answer is an answer, whatever its status; only what is no answer throws: `store-unavailable` (retryable) when the network
 *   or the server fails, `store-denied` when TLS does not trust the server, `cancelled` when the signal aborts.
 * - No byte moved for `idleTimeoutMs` in either direction fails the request; a slow one that moves does not. While the reader of
 *   a body rests, that clock rests too.
 * - A body is sent in slices, so that the clock sees each of them leave; it is never sent in chunks and never with `Expect`.
 */
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { Agent, Pool, ProxyAgent, type Dispatcher } from 'undici';
import { BackupError, cancelledBy, throwIfAborted } from '../model/errors.ts';
import { networkError, type ServiceName } from './network-error.ts';

export type HttpOptions = {
  readonly service: ServiceName;
  /** Connections to one server at most; null: no bound (the caller bounds what runs side by side). */
  readonly connections: number | null;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** PEM file that is trusted instead of the system's certificates. */
  readonly caFile: string | undefined;
  /** Trusts any certificate. */
  readonly insecure: boolean;
  /** PEM files with which we prove who we are. */
  readonly clientFiles?: { readonly cert: string | undefined; readonly key: string | undefined };
  /** Forward proxies by the scheme of the target: `http://[user:password@]host:port`. */
  readonly proxies?: { readonly http: string | undefined; readonly https: string | undefined };
};

export type HttpRequest = {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
  readonly signal: AbortSignal;
};

export type HttpResponse = {
  readonly status: number;
  /** One header of the answer, by its lower-case name. */
  header(name: string): string | null;
  readonly headers: Readonly<Record<string, string>>;
  /** The body in order; read it to its end, leave the loop, or call `text` or `discard`, else the connection stays taken. */
  readonly body: AsyncIterable<Buffer>;
  /** The whole body as text; at most `limitBytes` of it, the rest is not read. */
  text(limitBytes?: number): Promise<string>;
  discard(): Promise<void>;
};

export type Http = {
  request(request: HttpRequest): Promise<HttpResponse>;
  close(): Promise<void>;
};

const sliceBytes = 262_144;
const textLimitBytes = 33_554_432;

export function createHttp(options: HttpOptions): Http {
  let dispatcher: Promise<readonly [plain: Dispatcher, secure: Dispatcher]> | undefined;

  async function open(): Promise<readonly [Dispatcher, Dispatcher]> {
    const { cert, key } = options.clientFiles ?? {};
    const tls = {
      ...(options.caFile === undefined ? {} : { ca: await readPem(options.service, options.caFile) }),
      ...(cert === undefined ? {} : { cert: await readPem(options.service, cert) }),
      ...(key === undefined ? {} : { key: await readPem(options.service, key) }),
      rejectUnauthorized: !options.insecure,
    };
    const limits = {
      connections: options.connections,
      allowH2: false,
      headersTimeout: options.idleTimeoutMs,
      bodyTimeout: options.idleTimeoutMs,
    };
    const connect = { ...tls, timeout: options.connectTimeoutMs };
    const via = (uri: string | undefined): Dispatcher =>
      uri === undefined
        ? new Agent({ ...limits, connect })
        : new ProxyAgent({
            ...limits,
            uri,
            requestTls: connect,
            connectTimeout: options.connectTimeoutMs,
            // What forwards plain HTTP is made without the limits above.
            factory: (origin, more) => new Pool(origin, Object.assign({}, limits, more)),
          });
    return [via(options.proxies?.http), via(options.proxies?.https)];
  }

  return {
    async request({ method, url, headers, body, signal }) {
      throwIfAborted(signal);
      dispatcher ??= open();
      const [plain, secure] = await dispatcher.catch((error: unknown) => {
        dispatcher = undefined;
        throw error;
      });
      const target = new URL(url);
      try {
        const answer = await (target.protocol === 'https:' ? secure : plain).request({
          origin: target.origin,
          path: target.pathname + target.search,
          method,
          headers,
          ...(body === undefined ? {} : sliced(headers, body)),
          signal,
        });
        return toResponse(options, target, answer, signal);
      } catch (error) {
        throw signal.aborted ? cancelledBy(signal) : networkError(options, target, error);
      }
    },
    async close() {
      const opened = await dispatcher?.catch(() => undefined);
      await Promise.all(opened?.map((one) => one.destroy()) ?? []);
    },
  };
}

function toResponse(
  options: HttpOptions,
  target: URL,
  answer: Dispatcher.ResponseData,
  signal: AbortSignal,
): HttpResponse {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(answer.headers)) {
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  const body = readBody(options, target, answer, signal);
  return {
    status: answer.statusCode,
    headers,
    header: (name) => headers[name] ?? null,
    body,
    async text(limitBytes = textLimitBytes) {
      const pieces: Buffer[] = [];
      let total = 0;
      for await (const piece of body) {
        pieces.push(piece);
        total += piece.length;
        if (total >= limitBytes) break;
      }
      return Buffer.concat(pieces).subarray(0, limitBytes).toString('utf8');
    },
    async discard() {
      let total = 0;
      for await (const piece of body) {
        total += piece.length;
        if (total >= sliceBytes) break;
      }
    },
  };
}

async function* readBody(
  options: HttpOptions,
  target: URL,
  answer: Dispatcher.ResponseData,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  try {
    for await (const piece of answer.body) yield piece;
  } catch (error) {
    throw signal.aborted ? cancelledBy(signal) : networkError(options, target, error);
  } finally {
    // A destroyed body that was not read to its end reports an abort that nobody waits for.
    answer.body.on('error', () => undefined);
    answer.body.destroy();
  }
}

function sliced(
  headers: HttpRequest['headers'],
  body: Uint8Array | string,
): Partial<Dispatcher.RequestOptions> {
  const bytes = typeof body === 'string' ? Buffer.from(body) : body;
  return {
    headers: { ...headers, 'content-length': String(bytes.length) },
    body:
      bytes.length <= sliceBytes
        ? bytes
        : Readable.from(slices(bytes), { objectMode: false, highWaterMark: sliceBytes }),
  };
}

async function* slices(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += sliceBytes) {
    yield bytes.subarray(start, start + sliceBytes);
  }
}

async function readPem(service: ServiceName, path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new BackupError(
      'config-invalid',
      `${path} cannot be read: correct ${service.caOption}, or make the file readable to this process`,
      { cause },
    );
  }
}
