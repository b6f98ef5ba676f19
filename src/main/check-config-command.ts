/** `cinder-delta check-config`: what a configuration comes to, where each value is from, and everything that is wrong with it. */
import { access, constants } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import type { ConfigArgument } from '../config/config-files.ts';
import { renderConfigReport } from '../config/config-report.ts';
import { loadAgentConfig, loadServiceConfig, type Loaded } from '../config/service-config.ts';
import type { Entry } from '../config/settings.ts';
import { BackupError, messageOf } from '../model/errors.ts';
import { describeAgent, describeService, type Line } from './config-summary.ts';
import { requireLoopback } from './openstack-command.ts';

export const checkConfigHelp = `cinder-delta check-config: prints the configuration that is in force, and what is wrong with it

  --config-file FILE     cinder.conf; may be given several times, later files win (/etc/cinder/cinder.conf)
  --config-dir DIR       every *.conf in it, sorted; may be given several times
  --agent                what an agent reads of these files, instead of what the service reads
  --all                  options at their default too
  --strict               a warning counts as an error

Nothing is connected to, and secrets are not shown. Ends with 0, with 1 for warnings under --strict, with 2 for errors.
`;

export type CheckConfigFlags = {
  readonly files: readonly ConfigArgument[];
  readonly agent: boolean;
  readonly all: boolean;
  readonly strict: boolean;
};

/** Where text goes: standard output and standard error. */
export type Output = { readonly out: (text: string) => void; readonly err: (text: string) => void };

const defaultFile = '/etc/cinder/cinder.conf';

/** Reads the flags, files in the order in which they are given. Throws `config-invalid` with everything that is wrong. */
export function parseCheckConfigFlags(args: readonly string[]): CheckConfigFlags {
  const faults: string[] = [];
  const files: ConfigArgument[] = [];
  const set = new Set<string>();
  const { tokens } = parseArgs({
    args: [...args],
    options: {
      'config-file': { type: 'string', multiple: true },
      'config-dir': { type: 'string', multiple: true },
      agent: { type: 'boolean' },
      all: { type: 'boolean' },
      strict: { type: 'boolean' },
    },
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  for (const token of tokens) {
    if (token.kind === 'positional') faults.push(`${token.value} is not expected here`);
    if (token.kind !== 'option') continue;
    const { name, rawName, value } = token;
    const isFile = name === 'config-file';
    if (isFile || name === 'config-dir') {
      if (value === undefined || value === '') faults.push(`${rawName} needs a value`);
      else files.push({ kind: isFile ? 'file' : 'directory', path: value });
    } else if (!['agent', 'all', 'strict'].includes(name)) faults.push(`${rawName} is not known`);
    else if (value === undefined) set.add(name);
    else faults.push(`${rawName} takes no value`);
  }
  if (faults.length > 0) {
    throw new BackupError('config-invalid', faults.map((fault) => `  ${fault}`).join('\n'), {
      details: { faults },
    });
  }
  return {
    files: files.length === 0 ? [{ kind: 'file', path: defaultFile }] : files,
    agent: set.has('agent'),
    all: set.has('all'),
    strict: set.has('strict'),
  };
}

/** Checks and prints. Returns the exit code; throws `config-invalid` with every error. */
export async function runCheckConfig(args: readonly string[], output: Output): Promise<number> {
  const flags = parseCheckConfigFlags(args);
  const { loaded, lines } = flags.agent ? await loadForAgent(flags.files) : await loadForService(flags.files);
  const warnings = [...loaded.warnings, ...(await unreadableFiles(loaded.entries))];
  output.out(
    `${renderSummary(flags.files, lines)}\n${renderConfigReport(loaded.entries, { all: flags.all })}`,
  );
  for (const warning of warnings) output.err(`warning: ${warning}\n`);
  return flags.strict && warnings.length > 0 ? 1 : 0;
}

async function loadForService(files: readonly ConfigArgument[]) {
  const loaded = await loadServiceConfig(files);
  requireLoopback(loaded.config);
  return { loaded: withoutConfig(loaded), lines: describeService(loaded.config) };
}

async function loadForAgent(files: readonly ConfigArgument[]) {
  const loaded = await loadAgentConfig(files);
  return { loaded: withoutConfig(loaded), lines: describeAgent(loaded.config) };
}

function withoutConfig<T>({ warnings, entries }: Loaded<T>): Omit<Loaded<T>, 'config'> {
  return { warnings, entries };
}

function renderSummary(files: readonly ConfigArgument[], lines: readonly Line[]): string {
  const width = Math.max(...lines.map(([label]) => label.length));
  const read = files.map(({ path }) => path).join(', ');
  const rendered = lines.map(([label, text]) => `#   ${label.padEnd(width)}  ${text}`);
  return [`# What ${read} comes to:`, ...rendered, ''].join('\n');
}

/** Options whose value is a file that has to be there when the service starts. */
const filePattern = /_file$|^(?:cafile|certfile|keyfile|verify_ssl_path)$/u;
/** Those that are made, or are none. */
const notRead = new Set(['log_file']);

/** Only a warning: the service may run as a user who can read what this one cannot. */
async function unreadableFiles(entries: readonly Entry[]): Promise<readonly string[]> {
  const warnings = new Set<string>();
  for (const { section, option, shown = '', source } of entries) {
    if (source === 'default' || shown === '' || notRead.has(option) || !filePattern.test(option)) continue;
    try {
      await access(shown, constants.R_OK);
    } catch (error) {
      warnings.add(`${source.file}:${source.line}: [${section}] ${option} = ${shown}: ${messageOf(error)}`);
    }
  }
  return [...warnings];
}
