/** A TCP proxy that cuts a connection at one message of the client's: before the server gets it, or when the server has answered it. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

export type Cut = {
  /** What the client's message has in it. */
  readonly at: RegExp;
  readonly when: 'before the server' | 'after the server' | 'silence';
  /** How many connections. */
  readonly times: number;
};

export type CuttingProxy = {
  readonly port: number;
  plan(cut: Cut): void;
  /** Connections cut since the last plan. */
  readonly cuts: number;
  /** Resets every connection. */
  reset(): void;
  close(): Promise<void>;
};

export async function startCuttingProxy(targetPort: number): Promise<CuttingProxy> {
  const sockets = new Set<Socket>();
  const state: { plan: Cut | null; cuts: number } = { plan: null, cuts: 0 };
  const server = createServer((client) => {
    const upstream = connect(targetPort, '127.0.0.1');
    const cut = () => {
      client.resetAndDestroy();
      upstream.resetAndDestroy();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    let isAnswerLost = false;
    let isSilent = false;
    client.on('data', (piece: Buffer) => {
      const { plan } = state;
      const isDue = plan !== null && state.cuts < plan.times && plan.at.test(piece.toString('latin1'));
      if (isDue) {
        state.cuts += 1;
        if (plan.when === 'before the server') {
          cut();
          return;
        }
        isAnswerLost = plan.when === 'after the server';
        isSilent = plan.when === 'silence';
      }
      if (!isSilent) upstream.write(piece);
    });
    upstream.on('data', (piece: Buffer) => {
      if (isAnswerLost) cut();
      else client.write(piece);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port was given');
  const reset = () => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  return {
    port: address.port,
    plan(cut) {
      state.plan = cut;
      state.cuts = 0;
    },
    get cuts() {
      return state.cuts;
    },
    reset,
    async close() {
      const closed = once(server, 'close');
      server.close();
      reset();
      await closed;
    },
  };
}
