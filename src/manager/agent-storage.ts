/** One backend of one agent as the manager's storage. */
import { BackupError } from '../model/errors.ts';
import { backendOf } from '../model/volume.ts';
import type { AgentClient } from '../volume/agent-client.ts';
import type { StorageBackend, StorageDirectory } from './environment.ts';

/** `name` is `host@backend`; `backend` is what the agent calls it. */
export function createAgentStorage(client: AgentClient, name: string, backend: string): StorageBackend {
  return {
    name,
    async info(signal) {
      const served = await client.backends(signal);
      const found = served.find((each) => each.name === backend);
      if (found !== undefined) return found;
      throw new BackupError('not-found', `the agent at ${client.url} does not serve backend ${backend}`);
    },
    listVolumes: (signal) => client.listVolumes(backend, signal),
    getVolume: (volume, signal) => client.volume(backend, volume, signal),
    createVolume: (volume, sizeBytes, signal) => client.createVolume(backend, volume, sizeBytes, signal),
    resizeVolume: (volume, sizeBytes, signal) => client.resizeVolume(backend, volume, sizeBytes, signal),
    listSnapshots: (volume, signal) => client.snapshots(backend, volume, signal),
    createSnapshot: (volume, snapshot, signal) => client.createSnapshot(backend, volume, snapshot, signal),
    deleteSnapshot: (volume, snapshot, signal) => client.deleteSnapshot(backend, volume, snapshot, signal),
    openSource: (of) => client.source({ backend, ...of }),
    openTarget: (volume, sizeBytes, signal) =>
      client.target({ backend, volume, lengthBytes: sizeBytes, signal }),
  };
}

/** A directory over a fixed set of backends. */
export function createStorageDirectory(backends: readonly StorageBackend[]): StorageDirectory {
  const byName = new Map(backends.map((backend) => [backend.name, backend]));
  return {
    all: () => backends,
    forHost(host) {
      const found = host === null ? undefined : byName.get(backendOf(host));
      if (found !== undefined) return found;
      throw new BackupError(
        'agent-unavailable',
        `no agent is known for host ${host ?? '(none)'} of the volume: start one there, and name it in the configuration`,
        { retryable: false },
      );
    },
  };
}
