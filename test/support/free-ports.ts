/**
 * Ports of loopback that were free a moment ago, for servers that cannot be given port 0. They lie below the range from which
 * the kernel takes those of outgoing connections, which could else snatch them before the server binds.
 */
import { randomInt } from 'node:crypto';
import { createServer, type Server } from 'node:net';

const lowest = 20_000;
const beyond = 32_000;
const tries = 200;

/** `count` different ports; they are held together until all are known. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const held: Server[] = [];
  const ports: number[] = [];
  try {
    for (let attempt = 0; ports.length < count; attempt += 1) {
      if (attempt >= tries) throw new Error(`no ${count} free ports from ${lowest} to ${beyond}`);
      const port = randomInt(lowest, beyond);
      const server = await listenOn(port);
      if (server === null) continue;
      held.push(server);
      ports.push(port);
    }
    return ports;
  } finally {
    for (const server of held) server.close();
  }
}

/** One free port. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  if (port === undefined) throw new Error('no port was given');
  return port;
}

async function listenOn(port: number): Promise<Server | null> {
  const server = createServer();
  return await new Promise((resolve) => {
    server.once('error', () => resolve(null));
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}
