/** Requests to one Swift account: URLs, tokens, renewal of a token that was refused, statuses. */
import type { Http, HttpRequest, HttpResponse } from '../openstack/http.ts';
import type { SwiftAccess } from './swift-access.ts';
import { swiftError } from './swift-error.ts';

export type SwiftRequest = {
  readonly method: HttpRequest['method'];
  readonly container?: string;
  readonly key?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
  readonly signal: AbortSignal;
  /** Statuses that the caller handles; every other throws. */
  readonly accept: readonly number[];
};

export type SwiftExchange = {
  /** The caller reads or discards the body of what it gets. */
  send(request: SwiftRequest): Promise<HttpResponse>;
  /** As `send`, for answers whose body tells nothing. */
  tell(request: SwiftRequest): Promise<HttpResponse>;
  /** What the cluster tells of itself at `infoUrl`, asked for without token. */
  getInfo(signal: AbortSignal): Promise<HttpResponse>;
};

export function createSwiftExchange(http: Http, access: SwiftAccess): SwiftExchange {
  async function send(request: SwiftRequest): Promise<HttpResponse> {
    const { method, container, key, signal } = request;
    for (let renewed = false; ; renewed = true) {
      const grant = await access.current(signal);
      const answer = await http.request({
        method,
        url: swiftUrl(grant.storageUrl, request),
        headers: { ...request.headers, ...grant.headers },
        ...(request.body === undefined ? {} : { body: request.body }),
        signal,
      });
      if (request.accept.includes(answer.status)) return answer;
      if (answer.status === 401 && !renewed && grant.refuse()) {
        await answer.discard();
        continue;
      }
      throw await swiftError({ method, container, key }, answer);
    }
  }

  return {
    send,
    async tell(request) {
      const answer = await send(request);
      await answer.discard();
      return answer;
    },
    async getInfo(signal) {
      const { storageUrl } = await access.current(signal);
      return await http.request({ method: 'GET', url: infoUrl(storageUrl), headers: {}, signal });
    },
  };
}

/** `/info` in place of the version and what follows it, as python-swiftclient has it (client.py _map_url): radosgw has a path before them. */
export function infoUrl(storageUrl: string): string {
  const url = new URL(storageUrl);
  url.pathname = `${url.pathname.replace(/(?:\/v\d+(?:\.\d*)?(?:\/.*)?|\/info|\/)$/, '')}/info`;
  return url.href;
}

function swiftUrl(storageUrl: string, request: SwiftRequest): string {
  const path = [request.container, ...(request.key?.split('/') ?? [])]
    .filter((segment) => segment !== undefined)
    .map((segment) => `/${encodeURIComponent(segment)}`)
    .join('');
  const query = new URLSearchParams(request.query).toString();
  return `${storageUrl}${path}${query === '' ? '' : `?${query}`}`;
}
