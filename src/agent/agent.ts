/** The whole agent: readers, recovered backends, and the application listening. */
import { isIPv6, type AddressInfo } from 'node:net';
import type { Logger } from '../log.ts';
import { BackupError, invariant } from '../model/errors.ts';
import { requireSafeAddress, type AgentAccess } from './access.ts';
import { createAgentApp } from './app.ts';
import { createReaderPool } from './reader-pool.ts';
import type { VolumeBackend } from './volume-backend.ts';

export type AgentOptions = {
  readonly backends: readonly VolumeBackend[];
  readonly access: AgentAccess;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Lets a token pass over plain HTTP on a network that is trusted. */
  readonly allowPlaintext?: boolean | undefined;
  /** For each cluster, and for files: as many as there are cores, at most four, unless given. */
  readonly readerThreads?: number | undefined;
  /** Streams at once: 32. Streams of named blocks, and snapshots being made, are counted apart: each as many. */
  readonly maxStreams?: number | undefined;
  readonly maxSnapshots?: number | undefined;
  readonly log: Logger;
};

export type Agent = {
  /** For example http://127.0.0.1:41234, without a path. */
  readonly url: string;
  /** Ends streams and threads and closes the backends. */
  close(): Promise<void>;
};

/**
 * Starts an agent and takes over its backends: also when it fails, they are closed. Throws `config-invalid` for an
 * address that is not safe or cannot be had.
 */
export async function createAgent(options: AgentOptions): Promise<Agent> {
  const { access, backends, host, log, maxSnapshots, maxStreams, port } = options;
  const readers = createReaderPool({ threads: options.readerThreads });
  if (backends.some(({ info }) => info.type !== 'rbd')) readers.warm();
  const app = createAgentApp({ backends, access, log, readers, maxStreams, maxSnapshots });
  const close = async () => {
    await app.close();
    await readers.close();
    for (const backend of backends) await backend.close();
  };
  try {
    requireSafeAddress(host, access, options.allowPlaintext ?? false);
    for (const backend of backends) await backend.recover();
    await app.listen({ host, port }).catch((error: unknown) => {
      throw new BackupError(
        'config-invalid',
        `the agent cannot listen on ${host}:${port}: choose another address`,
        {
          cause: error,
        },
      );
    });
  } catch (error) {
    await close();
    throw error;
  }
  const address = app.server.address();
  invariant(isInternet(address), 'an agent listens on an internet address');
  const scheme = access.tls === undefined ? 'http' : 'https';
  const url = `${scheme}://${isIPv6(host) ? `[${host}]` : host}:${address.port}`;
  log.info(
    { url, backends: backends.map(({ info }) => info.name), threads: readers.threads },
    'agent is listening',
  );
  return { url, close };
}

function isInternet(address: string | AddressInfo | null): address is AddressInfo {
  return typeof address === 'object' && address !== null;
}
