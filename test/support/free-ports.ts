/** Ports of loopback that were free a moment ago, for servers that cannot be given port 0. */
import { createServer } from 'node:net';
import { once } from 'node:events';

/** `count` different ports; they are held together until all are known. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  try {
    return await Promise.all(
      servers.map(async (server) => {
        server.listen(0, '127.0.0.1');
        await once(server, 'listening');
        const address = server.address();
        if (address === null || typeof address === 'string') throw new Error('no port was given');
        return address.port;
      }),
    );
  } finally {
    for (const server of servers) server.close();
  }
}

/** One free port. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  if (port === undefined) throw new Error('no port was given');
  return port;
}
