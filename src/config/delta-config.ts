/** [delta]: what cinder-delta itself needs beyond Cinder's options. */
import { deltaOptions } from './delta-options.ts';
import type { ValuesOf } from './option.ts';
import type { Settings } from './settings.ts';

/** How the service finds and reaches agents. */
export type AgentAccess = {
  /** One agent for all volumes. */
  readonly url: string | undefined;
  /** Base URLs by volume service host (`node1@ceph`, or `node1` for all its back ends). */
  readonly addresses: ReadonlyMap<string, string>;
  readonly port: number;
  readonly tls: boolean;
  readonly tokenFile: string | undefined;
  readonly caFile: string | undefined;
  readonly clientCertFile: string | undefined;
  readonly clientKeyFile: string | undefined;
};

/** Where the agent listens; TLS if there is a certificate. */
export type AgentConfig = {
  readonly host: string;
  readonly port: number;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  readonly tokenFile: string | undefined;
  readonly clientCaFile: string | undefined;
  readonly allowPlaintext: boolean;
  readonly maxStreams: number;
};

export type DeltaConfig = {
  readonly agents: AgentAccess;
  readonly agent: AgentConfig;
  readonly rest: { readonly host: string; readonly port: number };
  readonly memoryLimitBytes: number;
  /** Undefined: as many as the sealer takes by itself. */
  readonly sealThreads: number | undefined;
  readonly zlibEffort: 'speed' | 'balanced' | 'size';
  /** Undefined: one block. */
  readonly objectMergeGapBytes: number | undefined;
  /** Backup snapshots that stay on the storage for each volume. */
  readonly keepSnapshots: number;
};

type DeltaValues = ValuesOf<typeof deltaOptions>;

/** Reads [delta]; an option there that does not exist is an error, with the nearest name that does. */
export function readDeltaConfig(settings: Settings): DeltaConfig {
  const options = settings.read('delta', deltaOptions);
  rejectUnknown(settings);
  requirePairs(settings, options);
  const effort = options.zlib_effort;
  return {
    agents: {
      url: options.agent_url,
      addresses: addressesOf(settings, options.agent_address),
      port: options.agent_port,
      tls: options.agent_tls,
      tokenFile: options.agent_token_file,
      caFile: options.agent_ca_file,
      clientCertFile: options.agent_client_cert_file,
      clientKeyFile: options.agent_client_key_file,
    },
    agent: {
      host: options.agent_listen,
      port: options.agent_port,
      certFile: options.agent_cert_file,
      keyFile: options.agent_key_file,
      tokenFile: options.agent_token_file,
      clientCaFile: options.agent_client_ca_file,
      allowPlaintext: options.agent_allow_plaintext,
      maxStreams: options.agent_max_streams,
    },
    rest: {
      host: options.rest_listen,
      port: options.rest_port,
    },
    memoryLimitBytes: options.memory_limit_mib * 2 ** 20,
    sealThreads: options.seal_threads === 0 ? undefined : options.seal_threads,
    zlibEffort: effort === 'speed' || effort === 'size' ? effort : 'balanced',
    objectMergeGapBytes: options.object_merge_gap_bytes,
    keepSnapshots: options.keep_snapshots,
  };
}

/**
 * Base URL of the agent for a volume whose row has this `host` (`host@backend#pool`): the one of all volumes, else that of
 * `host@backend`, else that of `host`, else `agent_port` at the host's name.
 */
export function agentUrlFor(access: AgentAccess, volumeHost: string): string {
  const backend = volumeHost.split('#', 1)[0] ?? volumeHost;
  const host = backend.split('@', 1)[0] ?? backend;
  const named = access.url ?? access.addresses.get(backend) ?? access.addresses.get(host);
  if (named !== undefined) return named.replace(/\/+$/u, '');
  const address = host.includes(':') ? `[${host}]` : host;
  return `${access.tls ? 'https' : 'http'}://${address}:${access.port}`;
}

function addressesOf(settings: Settings, lines: readonly string[]): Map<string, string> {
  const addresses = new Map<string, string>();
  for (const line of lines) {
    const [host = '', url = '', ...rest] = line.trim().split(/\s+/u);
    if (rest.length > 0 || !/^https?:\/\/[^\s/]+/u.test(url)) {
      settings.reject(
        'delta',
        'agent_address',
        `"${line}" must be "host url", for example "node1@ceph https://10.0.0.5:8777"`,
      );
    } else {
      addresses.set(host, url);
    }
  }
  return addresses;
}

function requirePairs(settings: Settings, options: DeltaValues): void {
  const pairs = [
    ['agent_cert_file', 'agent_key_file'],
    ['agent_client_cert_file', 'agent_client_key_file'],
  ] as const;
  for (const [certificate, key] of pairs) {
    if (options[certificate] !== undefined && options[key] === undefined) {
      settings.reject('delta', key, `it must be set, since ${certificate} is`);
    }
    if (options[key] !== undefined && options[certificate] === undefined) {
      settings.reject('delta', certificate, `it must be set, since ${key} is`);
    }
  }
}

function rejectUnknown(settings: Settings): void {
  const names = Object.keys(deltaOptions);
  for (const { key, file, line } of settings.raw.assignments('delta')) {
    if (names.includes(key)) continue;
    const [nearest] = names.toSorted((one, other) => distance(key, one) - distance(key, other));
    settings.problems.push({
      file,
      line,
      section: 'delta',
      option: key,
      reason: `there is no such option; did you mean ${nearest}?`,
    });
  }
}

/** Levenshtein distance. */
function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (const [i, left] of one.split('').entries()) {
    const next = [i + 1];
    for (const [j, right] of other.split('').entries()) {
      const replaced = (row[j] ?? 0) + (left === right ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
