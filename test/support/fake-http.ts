/** An `Http` that answers from a function and remembers what it was asked. */
import type { Http, HttpRequest, HttpResponse } from '../../src/openstack/http.ts';

export type FakeAnswer = {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
};

export type FakeHttp = Http & { readonly asked: readonly HttpRequest[] };

export function createFakeHttp(
  answer: (request: HttpRequest, count: number) => FakeAnswer | Promise<FakeAnswer>,
): FakeHttp {
  const asked: HttpRequest[] = [];
  return {
    asked,
    async request(request) {
      asked.push(request);
      return toResponse(await answer(request, asked.length));
    },
    close: async () => {
      await Promise.resolve();
    },
  };
}

function toResponse({ status, headers = {}, body = '' }: FakeAnswer): HttpResponse {
  async function* bytes(): AsyncGenerator<Buffer> {
    yield await Promise.resolve(Buffer.from(body));
  }
  return {
    status,
    headers,
    header: (name) => headers[name] ?? null,
    body: bytes(),
    text: async () => await Promise.resolve(body),
    discard: async () => {
      await Promise.resolve();
    },
  };
}
