/** The SDK's requests over our HTTP: the same pool, time-outs, proxies and sentences as for Swift. */
import { Readable } from 'node:stream';
import type { Http, HttpRequest } from '../openstack/http.ts';

/** The part of the SDK's request that travels (smithy's HttpRequest). */
type SdkRequest = {
  readonly method: string;
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>> | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
};

type SdkResponse = {
  readonly statusCode: number;
  readonly headers: Record<string, string>;
  readonly body: Readable;
};

export type SdkHandler = {
  readonly metadata: { readonly handlerProtocol: string };
  handle(
    request: SdkRequest,
    options?: { readonly abortSignal?: unknown },
  ): Promise<{ response: SdkResponse }>;
};

/** Hears what answers say beside the point. */
export type AnswerListener = {
  /** The region that a refusal names. */
  region(region: string): void;
  date(date: string | null): void;
};

const errorLimitBytes = 65_536;

/** Bodies must be buffers or strings: a stream would go out in signed chunks. */
export function createSdkHandler(http: Http, listener: AnswerListener): SdkHandler {
  return {
    metadata: { handlerProtocol: 'http/1.1' },
    async handle(request, options) {
      const answer = await http.request({
        method: methodOf(request.method),
        url: urlOf(request),
        headers: request.headers,
        ...bodyOf(request),
        signal:
          options?.abortSignal instanceof AbortSignal ? options.abortSignal : new AbortController().signal,
      });
      listener.date(answer.header('date'));
      if (answer.status < 300) {
        const body = Readable.from(answer.body, { objectMode: false, highWaterMark: errorLimitBytes });
        return { response: { statusCode: answer.status, headers: { ...answer.headers }, body } };
      }
      const text = await answer.text(errorLimitBytes);
      const region =
        answer.header('x-amz-bucket-region') ?? /<Region>([\w-]{1,64})<\/Region>/.exec(text)?.[1];
      if (region !== undefined) listener.region(region);
      return {
        response: {
          statusCode: answer.status,
          headers: { ...answer.headers },
          body: Readable.from([xmlOf(answer.status, text)], { objectMode: false }),
        },
      };
    },
  };
}

/** What is not XML comes from something before the server, a balancer say; the SDK would stumble over it. */
function xmlOf(status: number, text: string): Buffer {
  const xml = text.trimStart().startsWith('<?xml') || text.trimStart().startsWith('<Error');
  if (xml || text === '') return Buffer.from(text);
  const message = text.replaceAll(/<[^>]*>|[<>&\s]+/g, ' ').trim();
  return Buffer.from(`<Error><Code>Http${status}</Code><Message>${message.slice(0, 300)}</Message></Error>`);
}

function bodyOf(request: SdkRequest): { body?: Uint8Array | string } {
  const { body } = request;
  if (body === undefined || body === null) return {};
  if (typeof body === 'string') return body === '' && request.method !== 'PUT' ? {} : { body };
  if (body instanceof Uint8Array) return { body };
  throw new TypeError('the body of an S3 request must be a buffer');
}

function methodOf(method: string): HttpRequest['method'] {
  if (method === 'GET' || method === 'HEAD' || method === 'PUT' || method === 'POST' || method === 'DELETE') {
    return method;
  }
  throw new TypeError(`no S3 request has the method ${method}`);
}

function urlOf(request: SdkRequest): string {
  const port = request.port === undefined ? '' : `:${request.port}`;
  const pairs = Object.entries(request.query ?? {})
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([name, value]) => {
      if (value === null) return [escapeUri(name)];
      const values = typeof value === 'string' ? [value] : value;
      return values.map((one) => `${escapeUri(name)}=${escapeUri(one)}`);
    });
  const query = pairs.length === 0 ? '' : `?${pairs.join('&')}`;
  return `${request.protocol}//${request.hostname}${port}${request.path}${query}`;
}

/** RFC 3986, as the signature is computed. */
function escapeUri(text: string): string {
  return encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
