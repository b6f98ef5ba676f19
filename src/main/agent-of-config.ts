/** `cinder-delta agent --config-file ...`: the agent beside cinder-volume, over the back ends of its cinder.conf. */
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { createAgent } from '../agent/agent.ts';
import type { AgentAccess } from '../agent/access.ts';
import { createLvmBackend } from '../agent/lvm-backend.ts';
import { createRbdBackend, rbdTimeouts } from '../agent/rbd-backend.ts';
import type { VolumeBackend } from '../agent/volume-backend.ts';
import type { BackendConfig } from '../config/backend-config.ts';
import type { AgentConfig } from '../config/delta-config.ts';
import { loadAgentConfig } from '../config/service-config.ts';
import { createLogger, type Logger } from '../log.ts';
import { BackupError, messageOf } from '../model/errors.ts';
import { backendNamePattern } from '../model/names.ts';
import { readOption } from './agent-directory.ts';
import { runUntilSignal } from './lifecycle.ts';
import { openLogFile } from './log-file.ts';
import { parseOpenstackFlags } from './openstack-command.ts';

/** Runs the agent until it is told to stop. Returns the exit code. */
export async function runConfiguredAgent(args: readonly string[]): Promise<number> {
  const flags = parseOpenstackFlags(args);
  const { config, warnings } = await loadAgentConfig(flags.files);
  const level = flags.logLevel ?? (config.core.log.debug ? 'debug' : 'info');
  // log_file of cinder.conf is that of Cinder's programs: this one writes there only if it is told to.
  const destination =
    flags.logFile === undefined ? undefined : openLogFile(config.core.log.directory, flags.logFile);
  const log = createLogger(destination === undefined ? { level } : { level, destination });
  for (const warning of warnings) log.warn(warning);
  const { agent: listen } = config.delta;
  const access = await readListenAccess(listen);
  const { allowPlaintext, host, maxStreams, port } = listen;
  return await runUntilSignal(log, async () => {
    const backends = await openBackends(config.backends, log);
    return await createAgent({ backends, access, host, port, allowPlaintext, maxStreams, log });
  });
}

/**
 * Opens the back ends that an agent can serve, side by side. Throws `config-invalid` if there is none, or one of RBD is wrong. One of LVM
 * that cannot be served here is logged and left out: it may be that of another host, and it needs an agent that runs as root.
 */
export async function openBackends(
  configured: readonly BackendConfig[],
  log: Logger,
): Promise<readonly VolumeBackend[]> {
  const restoring = new Set<string>();
  /** Why a back end is left out that an agent could serve. */
  const leftOut: unknown[] = [];
  const opened = await Promise.allSettled(
    configured.map(async (backend) => {
      const { name, driverClass, storage } = backend;
      const skip = (why: string) => {
        log.warn({ backend: name, driver: driverClass }, `back end is not served: ${why}`);
        return [];
      };
      if (storage.kind === 'nfs' || storage.kind === 'other') return skip('it is neither RBD nor LVM');
      if (storage.kind === 'lvm' && storage.type === 'default') {
        return skip('its lvm_type is default: only thin volumes can be backed up');
      }
      requireBackendName(name);
      if (storage.kind === 'rbd') return [await openRbd(name, storage, restoring, log)];
      try {
        return [await openLvm(name, storage, log)];
      } catch (error) {
        leftOut.push(error);
        return skip(messageOf(error));
      }
    }),
  );
  const backends = opened.flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
  const reasons: unknown[] = opened.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []));
  if (reasons.length === 0 && backends.length > 0) return backends;
  for (const backend of backends) await backend.close();
  if (reasons.length === 0) reasons.push(...leftOut);
  if (reasons.length > 1) throw new AggregateError(reasons, 'back ends cannot be served');
  throw reasons[0] ?? nothingToServe(configured);
}

function nothingToServe(configured: readonly BackendConfig[]): BackupError {
  const names = configured.map(({ name }) => name).join(', ');
  return new BackupError(
    'config-invalid',
    `enabled_backends (${names === '' ? 'empty' : names}) names no back end of RBD or thin LVM volumes: there is nothing to serve`,
  );
}

function requireBackendName(name: string): void {
  if (backendNamePattern.test(name)) return;
  throw new BackupError(
    'config-invalid',
    `enabled_backends: ${name} cannot be the name of a backend: use letters, digits, ".", "_" and "-"`,
  );
}

type StorageOf<K> = Extract<BackendConfig['storage'], { readonly kind: K }>;

async function openRbd(
  name: string,
  { cephConf, clusterName, connectTimeoutS, pool, user }: StorageOf<'rbd'>,
  restoring: Set<string>,
  log: Logger,
): Promise<VolumeBackend> {
  const settings = {
    clusterName,
    user,
    cephConf,
    pool,
    connectTimeoutS: connectTimeoutS ?? rbdTimeouts.connectTimeoutS,
    answerTimeoutS: rbdTimeouts.answerTimeoutS,
    watchTimeoutS: rbdTimeouts.watchTimeoutS,
  };
  return await createRbdBackend({ name, settings, restoring, log });
}

async function openLvm(
  name: string,
  { confFile, volumeGroup }: StorageOf<'lvm'>,
  log: Logger,
): Promise<VolumeBackend> {
  const systemDirectory = (await isFile(confFile)) ? dirname(confFile) : undefined;
  return await createLvmBackend({ name, volumeGroup, systemDirectory, log });
}

async function isFile(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ?? false;
}

/**
 * What the agent asks of its clients and shows them. `config-invalid` for a file that cannot be read, and where it would ask for
 * nothing: it acts with Cinder's own keys, so even this machine's users are not let in without a secret.
 */
async function readListenAccess(config: AgentConfig): Promise<AgentAccess> {
  const [token, cert, key, ca] = await Promise.all([
    readOption('agent_token_file', config.tokenFile),
    readOption('agent_cert_file', config.certFile),
    readOption('agent_key_file', config.keyFile),
    readOption('agent_client_ca_file', config.clientCaFile),
  ]);
  if (ca !== undefined && cert === undefined) {
    throw new BackupError(
      'config-invalid',
      '[delta] agent_client_ca_file needs agent_cert_file and agent_key_file',
    );
  }
  const secret = token?.split('\n', 1)[0]?.trim();
  if (secret === undefined && ca === undefined) {
    throw new BackupError(
      'config-invalid',
      '[delta] agent_token_file is not set: every user of this machine could read and overwrite every volume of these back ends; put a secret into a file (openssl rand -hex 32) that only Cinder reads and name it for agent and service, or set agent_client_ca_file',
    );
  }
  return {
    token: secret,
    tls: cert === undefined || key === undefined ? undefined : { cert, key, ca },
  };
}
