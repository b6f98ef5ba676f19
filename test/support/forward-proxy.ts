/** An HTTP forward proxy that takes every host name for one server, and remembers what went through it. */
import { once } from 'node:events';
import { createServer, request as sendRequest, type IncomingHttpHeaders } from 'node:http';

export type SeenRequest = {
  readonly method: string;
  /** As the client wrote it: absolute, since it speaks to a proxy. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
};

export type ForwardProxy = {
  /** `http://127.0.0.1:port`. */
  readonly url: string;
  readonly seen: readonly SeenRequest[];
  /** Connections that clients have opened. */
  readonly connections: number;
  close(): Promise<void>;
};

export async function startForwardProxy(targetPort: number): Promise<ForwardProxy> {
  const seen: SeenRequest[] = [];
  let connections = 0;
  const server = createServer((incoming, answer) => {
    const { method = 'GET', url = '', headers } = incoming;
    seen.push({ method, url, headers });
    const { pathname, search } = new URL(url);
    const target = { host: '127.0.0.1', port: targetPort, method, path: pathname + search, headers };
    const onward = sendRequest(target, (reply) => {
      answer.writeHead(reply.statusCode ?? 502, reply.headers);
      reply.pipe(answer);
    });
    onward.on('error', () => answer.destroy());
    incoming.pipe(onward);
  });
  server.on('connection', () => {
    connections += 1;
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port was given');
  return {
    url: `http://127.0.0.1:${address.port}`,
    seen,
    get connections() {
      return connections;
    },
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
