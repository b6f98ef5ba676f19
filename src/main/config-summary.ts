/** What a configuration comes to, in a few lines without secrets: what an operator looks for before a start. */
import type { BackendConfig } from '../config/backend-config.ts';
import type { DatabaseUrl } from '../config/database-url.ts';
import { agentUrlFor, type DeltaConfig } from '../config/delta-config.ts';
import type { KeyManagerConfig } from '../config/keystone-config.ts';
import type { BrokerConfig } from '../config/messaging-config.ts';
import type { AgentFileConfig, ServiceConfig } from '../config/service-config.ts';
import type { StoreConfig } from '../config/store-config.ts';

export type Line = readonly [label: string, text: string];

export function describeService(config: ServiceConfig): readonly Line[] {
  const { core, store, messaging, database, delta, backends, keyManager } = config;
  const { notifications } = messaging;
  return [
    ['this host', `${core.host}, availability zone ${core.availabilityZone}`],
    ['backups', describeStore(store)],
    ['objects', describeObjects(store)],
    ['messages', describeBroker(messaging.broker)],
    [
      'notifications',
      notifications.format === 'off'
        ? 'off'
        : `${notifications.format} to ${notifications.topics.map((topic) => `${topic}.info`).join(', ')}`,
    ],
    ['rows', describeDatabase(database.url)],
    ['keys', describeKeys(keyManager)],
    ...describeAgents(delta, backends),
    ['limits', describeLimits(config)],
    ["operator's API", `http://${delta.rest.host}:${delta.rest.port}`],
  ];
}

export function describeAgent({ core, backends, delta }: AgentFileConfig): readonly Line[] {
  const { agent } = delta;
  const scheme = agent.certFile === undefined ? 'http' : 'https';
  const lines = backends.map(({ host, storage, driverClass }): Line => [
    'back end',
    `${host}: ${describeStorage(storage, driverClass)}`,
  ]);
  return [
    ['this host', core.host],
    ['listens on', `${scheme}://${agent.host}:${agent.port}`],
    ...(lines.length === 0 ? ([['back end', 'none: enabled_backends is empty']] as const) : lines),
  ];
}

function describeStore(store: StoreConfig): string {
  switch (store.kind) {
    case 'swift':
      return `Swift, container ${store.container}, ${
        store.auth === 'per_user'
          ? 'in the account of each caller'
          : `as user ${store.user} (auth version ${store.authVersion})`
      }`;
    case 's3':
      return `S3 at ${store.endpointUrl}, bucket ${store.bucket}`;
    case 'posix':
      return store.nfsShare === undefined
        ? `directory ${store.path}`
        : `${store.nfsShare}, to be mounted on ${store.path}`;
    default:
      return store satisfies never;
  }
}

function describeObjects({ codec, objectSizeBytes, blockSizeBytes, driverClass }: StoreConfig): string {
  return `${codec}, at most ${objectSizeBytes} bytes, blocks of ${blockSizeBytes}; service ${driverClass}`;
}

function describeBroker({ hosts, virtualHost, tls }: BrokerConfig): string {
  const names = hosts.map(({ hostname, port, username }) => `${username}@${hostname}:${port}`).join(', ');
  return `RabbitMQ ${names}, virtual host ${virtualHost}, ${tls === undefined ? 'without TLS' : 'over TLS'}`;
}

function describeDatabase(url: DatabaseUrl): string {
  if (url.dialect === 'sqlite') return `SQLite ${url.path}`;
  const { dialect, host, port, user, database, socketPath, tls, isTlsOptional } = url;
  const where = socketPath ?? `${host}:${port}`;
  const isPlain = tls === undefined || socketPath !== undefined;
  const way = isPlain ? 'without TLS' : isTlsOptional ? 'over TLS where the server has it' : 'over TLS';
  return `${dialect} ${user}@${where}, database ${database}, ${way}`;
}

function describeKeys(keys: KeyManagerConfig): string {
  if (keys.kind === 'unsupported')
    return `those of ${keys.backend} are not copied: encrypted volumes are refused, but for the fixed key`;
  return `Barbican at ${keys.endpoint ?? `the ${keys.endpointType} endpoint of the request's catalog`}`;
}

function describeAgents({ agents }: DeltaConfig, backends: readonly BackendConfig[]): readonly Line[] {
  const example = backends.length === 0 ? ['<host>@<back end>'] : backends.map(({ host }) => host);
  return example.map((host) => ['agent', `${host} at ${agentUrlFor(agents, host)}`]);
}

function describeLimits({ core, delta }: ServiceConfig): string {
  const operations = core.maxOperations === 0 ? 'any number of' : String(core.maxOperations);
  return `${operations} operations at once, ${delta.memoryLimitBytes / 2 ** 20} MiB of buffers`;
}

function describeStorage(storage: BackendConfig['storage'], driverClass: string): string {
  switch (storage.kind) {
    case 'rbd':
      return `RBD pool ${storage.pool}, cluster ${storage.clusterName}, user ${storage.user ?? 'admin'}`;
    case 'lvm':
      return `LVM volume group ${storage.volumeGroup} (${storage.type})`;
    case 'nfs':
      return `NFS shares of ${storage.sharesConfig} below ${storage.mountPointBase}`;
    case 'other':
      return `${driverClass}: no agent reads it`;
    default:
      return storage satisfies never;
  }
}
