/** The agents of a cloud: one for each address that [delta] gives for the hosts of volumes, reached when they are needed. */
import { readFile } from 'node:fs/promises';
import { agentUrlFor, type AgentAccess as AgentConfig } from '../config/delta-config.ts';
import type { Logger } from '../log.ts';
import { createAgentStorage } from '../manager/agent-storage.ts';
import type { StorageBackend, StorageDirectory } from '../manager/environment.ts';
import { BackupError, messageOf } from '../model/errors.ts';
import { backendOf } from '../model/volume.ts';
import { createAgentClient, type AgentClient } from '../volume/agent-client.ts';
import type { AgentAccess } from '../volume/agent-connection.ts';

export type AgentDirectory = StorageDirectory & { close(): Promise<void> };

export function createAgentDirectory(config: AgentConfig, access: AgentAccess, log: Logger): AgentDirectory {
  const clients = new Map<string, AgentClient>();
  const backends = new Map<string, StorageBackend>();

  const clientAt = (url: string): AgentClient => {
    const known = clients.get(url);
    if (known !== undefined) return known;
    const client = createAgentClient({ url, access, log });
    clients.set(url, client);
    return client;
  };

  return {
    all: () => [...backends.values()],
    forHost(host) {
      const name = host === null ? '' : backendOf(host);
      const known = backends.get(name);
      if (known !== undefined) return known;
      const [node = '', section = ''] = name.split('@');
      if (node === '' || section === '') {
        throw new BackupError(
          'agent-unavailable',
          `the host of the volume is ${JSON.stringify(host)}: without the form host@backend no agent is known for it`,
          { retryable: false },
        );
      }
      const backend = createAgentStorage(clientAt(agentUrlFor(config, name)), name, section);
      backends.set(name, backend);
      return backend;
    },
    async close() {
      await Promise.all(Array.from(clients.values(), (client) => client.close()));
    },
  };
}

/** What the files of [delta] let us show to agents. `config-invalid` for one that cannot be read. */
export async function readAgentAccess(config: AgentConfig): Promise<AgentAccess> {
  const [token, ca, cert, key] = await Promise.all([
    readOption('agent_token_file', config.tokenFile),
    readOption('agent_ca_file', config.caFile),
    readOption('agent_client_cert_file', config.clientCertFile),
    readOption('agent_client_key_file', config.clientKeyFile),
  ]);
  const secret = token?.split('\n', 1)[0]?.trim();
  if (secret === '') throw unusable('agent_token_file', config.tokenFile, 'its first line is empty');
  return { token: secret, tls: { ca, cert, key } };
}

/** The content of the file that an option of [delta] names. Throws `config-invalid` if it cannot be read. */
export async function readOption(option: string, path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw unusable(option, path, messageOf(error), error);
  }
}

function unusable(option: string, path: string | undefined, reason: string, cause?: unknown): BackupError {
  return new BackupError('config-invalid', `[delta] ${option} = ${path}: ${reason}`, { cause });
}
