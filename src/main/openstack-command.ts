/** `cinder-delta service --config-file ...`: the service beside Cinder. */
import { parseArgs } from 'node:util';
import type { ConfigArgument } from '../config/config-files.ts';
import { loadServiceConfig, type ServiceConfig } from '../config/service-config.ts';
import { createLogger, type Logger } from '../log.ts';
import { BackupError } from '../model/errors.ts';
import { isLoopback } from '../protocol/loopback.ts';
import { logLevels } from './flags.ts';
import { runUntilSignal } from './lifecycle.ts';
import { openLogFile } from './log-file.ts';

export const openstackHelp = `cinder-delta service --config-file FILE: takes cinder-backup's place beside Cinder

  --config-file FILE     cinder.conf, as cinder-backup reads it; may be given several times, later files win
  --config-dir DIR       every *.conf in it, sorted; may be given several times
  --log-file FILE        lines go there instead of standard output
  --debug                tells more
  --log-level NAME       trace, debug, info, warn, error (info)
`;

const names = ['config-file', 'config-dir', 'log-file', 'log-level'];

/** True if the arguments ask for the service beside Cinder. */
export function isOpenstackCommand(args: readonly string[]): boolean {
  return args.some((arg) => /^--config-(?:file|dir)(?:=|$)/u.test(arg));
}

export type OpenstackFlags = {
  readonly files: readonly ConfigArgument[];
  readonly logFile: string | undefined;
  /** Undefined: what the configuration says. */
  readonly logLevel: string | undefined;
};

/** Reads the flags, in the order in which they are given. Throws `config-invalid` with everything that is wrong. */
export function parseOpenstackFlags(args: readonly string[]): OpenstackFlags {
  const faults: string[] = [];
  const files: ConfigArgument[] = [];
  let logFile: string | undefined;
  let logLevel: string | undefined;
  const options = Object.fromEntries(
    names.map((name) => [name, { type: 'string' as const, multiple: true }]),
  );
  const { tokens } = parseArgs({
    args: [...args],
    options: { ...options, debug: { type: 'boolean' }, verbose: { type: 'boolean' } },
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  for (const token of tokens) {
    if (token.kind === 'positional') faults.push(`${token.value} is not expected here`);
    if (token.kind !== 'option') continue;
    const { name, rawName, value } = token;
    if (name === 'debug') logLevel ??= 'debug';
    else if (!names.includes(name)) {
      if (name !== 'verbose') faults.push(`${rawName} is not known beside --config-file`);
    } else if (value === undefined || value === '') faults.push(`${rawName} needs a value`);
    else if (name === 'config-file') files.push({ kind: 'file', path: value });
    else if (name === 'config-dir') files.push({ kind: 'directory', path: value });
    else if (name === 'log-file') logFile = value;
    else if (logLevels.some((level) => level === value)) logLevel = value;
    else faults.push(`--log-level is ${value}: it must be one of ${logLevels.join(', ')}`);
  }
  if (faults.length === 0) return { files, logFile, logLevel };
  throw new BackupError('config-invalid', faults.map((fault) => `  ${fault}`).join('\n'), {
    details: { faults },
  });
}

/** Runs the service until it is told to stop. Returns the exit code. */
export async function runOpenstackService(args: readonly string[]): Promise<number> {
  const flags = parseOpenstackFlags(args);
  const { config, warnings } = await loadServiceConfig(flags.files);
  requireLoopback(config);
  const log = openLog(flags, config);
  for (const warning of warnings) log.warn(warning);
  const { createOpenstackService } = await import('./openstack-service.ts');
  return await runUntilSignal(log, (signal) => createOpenstackService({ config, log, signal }));
}

function openLog({ logFile, logLevel }: OpenstackFlags, { core }: ServiceConfig): Logger {
  const level = logLevel ?? (core.log.debug ? 'debug' : 'info');
  const path = logFile ?? core.log.file;
  if (path === undefined) return createLogger({ level });
  return createLogger({ level, destination: openLogFile(core.log.directory, path) });
}

/** The operator's API has no users of its own. */
export function requireLoopback({ delta: { rest } }: ServiceConfig): void {
  if (isLoopback(rest.host)) return;
  throw new BackupError(
    'config-invalid',
    `[delta] rest_listen = ${rest.host}: the REST API beside Cinder is served on loopback addresses only; put a proxy that asks for a name and a password before it`,
  );
}
