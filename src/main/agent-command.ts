/** `cinder-delta agent`: the flags of an agent over a directory of volumes. */
import type { AgentAccess } from '../agent/access.ts';
import { createAgent } from '../agent/agent.ts';
import { createFileBackend } from '../agent/file-backend.ts';
import { createLogger } from '../log.ts';
import { backendNamePattern } from '../model/names.ts';
import { runConfiguredAgent } from './agent-of-config.ts';
import { logLevels, parseFlags, readFlagFile } from './flags.ts';
import { runUntilSignal } from './lifecycle.ts';
import { isOpenstackCommand } from './openstack-command.ts';

export const agentHelp = `cinder-delta agent: serves volumes to a backup service: those of cinder.conf, or of a directory

  --config-file FILE     cinder.conf, as cinder-volume reads it: its backends of RBD and of thin LVM volumes are
                         served, under the names of their sections, as [delta] agent_* says; may be given several times, later files win
  --config-dir DIR       every *.conf in it, sorted; may be given several times
  --log-file FILE        lines go there instead of standard output
  --log-level NAME       trace, debug, info, warn, error (info)

or
  --directory DIR        raw volumes named volume-<uuid>; required
  --name NAME            what the backend is called (file)
  --listen HOST:PORT     address (127.0.0.1:8777); another than loopback needs a token or --tls-ca
  --token-file FILE      its content must be sent as Authorization: Bearer
  --tls-cert FILE, --tls-key FILE
                         serve HTTPS
  --tls-ca FILE          let in clients with a certificate of this authority only
  --allow-plaintext      let a token pass over plain HTTP on a network that is trusted
  --max-streams N        streams, streams of named blocks, and snapshots that are served at once, so many of each (32);
                         others are asked to wait
  --log-level NAME       trace, debug, info, warn, error (info)
`;

export type AgentSettings = {
  readonly directory: string;
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly access: AgentAccess;
  readonly allowPlaintext: boolean;
  readonly maxStreams: number | undefined;
  readonly logLevel: string;
};

const names = [
  'directory',
  'name',
  'listen',
  'token-file',
  'tls-cert',
  'tls-key',
  'tls-ca',
  'max-streams',
  'log-level',
];

/** Reads the flags. Throws `config-invalid` with everything that is wrong. */
export async function parseAgentFlags(args: readonly string[]): Promise<AgentSettings> {
  const flags = parseFlags(args, names, ['allow-plaintext']);
  const directory = flags.text('directory');
  if (directory === undefined) flags.refuse('--directory is missing: say where the volumes are');
  const name = flags.text('name') ?? 'file';
  if (!backendNamePattern.test(name)) {
    flags.refuse(`--name is ${name}: it must be letters, digits, ".", "_" and "-"`);
  }
  const listen = flags.text('listen') ?? '127.0.0.1:8777';
  const address = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(listen);
  const host = address?.[1] ?? address?.[2];
  const port = Number(address?.[3]);
  if (host === undefined || !(port <= 65_535)) flags.refuse(`--listen is ${listen}: it must be HOST:PORT`);

  const token = await readFlagFile(flags, 'token-file');
  const cert = await readFlagFile(flags, 'tls-cert');
  const key = await readFlagFile(flags, 'tls-key');
  const ca = await readFlagFile(flags, 'tls-ca');
  if (flags.isSet('tls-cert') !== flags.isSet('tls-key'))
    flags.refuse('--tls-cert and --tls-key go together');
  if (flags.isSet('tls-ca') && !flags.isSet('tls-cert'))
    flags.refuse('--tls-ca needs --tls-cert and --tls-key');
  const maxStreams = flags.integer('max-streams', { minimum: 1, maximum: 4096 });
  flags.requireValid();
  return {
    directory: directory ?? '',
    name,
    host: host ?? '',
    port,
    access: { token, tls: cert === undefined || key === undefined ? undefined : { cert, key, ca } },
    allowPlaintext: flags.isSet('allow-plaintext'),
    maxStreams,
    logLevel: flags.choice('log-level', logLevels) ?? 'info',
  };
}

/** Runs the agent until it is told to stop. Returns the exit code. */
export async function runAgent(args: readonly string[]): Promise<number> {
  if (isOpenstackCommand(args)) return await runConfiguredAgent(args);
  const { directory, name, logLevel, ...options } = await parseAgentFlags(args);
  const log = createLogger({ level: logLevel });
  return await runUntilSignal(log, async () => {
    const backend = await createFileBackend({ name, directory, log });
    const agent = await createAgent({ ...options, backends: [backend], log });
    log.info({ node: process.versions.node, delta: backend.info.delta, directory }, 'agent is ready');
    return agent;
  });
}
