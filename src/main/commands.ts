/** The commands of `cinder-delta`. */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { isBackupError } from '../model/errors.ts';

const help = `cinder-delta [service | agent | check-config | version | help] [flags]

  service       the backup service, standalone (the default) or beside Cinder; cinder-delta service --help
  agent         the storage side; cinder-delta agent --help
  check-config  what a cinder.conf comes to, and what is wrong with it; cinder-delta check-config --help
  version       prints the version
`;

type Command = { readonly help: string; run(args: readonly string[]): Promise<number> };

/** Each loads what it needs when it is asked for: an agent has no use for the service's packages. */
const commands: ReadonlyMap<string, () => Promise<Command>> = new Map([
  ['service', loadService],
  ['agent', loadAgent],
  ['check-config', loadCheckConfig],
  ['version', async () => await Promise.resolve({ help, run: printVersion })],
  ['help', async () => await Promise.resolve({ help, run: async () => print(help) })],
]);

async function loadService(): Promise<Command> {
  const { serviceHelp, runService } = await import('./service-command.ts');
  return { help: serviceHelp, run: runService };
}

async function loadAgent(): Promise<Command> {
  const { agentHelp, runAgent } = await import('./agent-command.ts');
  return { help: agentHelp, run: runAgent };
}

async function loadCheckConfig(): Promise<Command> {
  const { checkConfigHelp, runCheckConfig } = await import('./check-config-command.ts');
  const output = {
    out: (text: string) => void process.stdout.write(text),
    err: (text: string) => void process.stderr.write(text),
  };
  return { help: checkConfigHelp, run: (args) => runCheckConfig(args, output) };
}

/** Runs the command that `args` name. Returns the exit code: 0, 1 for a failure, 2 for a wrong command line. */
export async function runCommand(args: readonly string[]): Promise<number> {
  const [first = 'service', ...rest] = args;
  const isNamed = !first.startsWith('-');
  if (args[0] === '--version') return await printVersion();
  if (!isNamed && (args[0] === '--help' || args[0] === '-h')) return print(help);
  const load = commands.get(isNamed ? first : 'service');
  if (load === undefined) return refuse(`${first} is not a command\n\n${help}`);
  const flags = isNamed ? rest : args;
  const command = await load();
  if (flags.includes('--help') || flags.includes('-h')) return print(command.help);
  try {
    return await command.run(flags);
  } catch (error) {
    if (!isBackupError(error)) throw error;
    process.stderr.write(`cinder-delta ${isNamed ? first : 'service'}:\n${error.message}\n`);
    return error.code === 'config-invalid' ? 2 : 1;
  }
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

function refuse(text: string): number {
  process.stderr.write(text);
  return 2;
}

async function printVersion(): Promise<number> {
  const file = new URL('../../package.json', import.meta.url);
  const { version } = z.object({ version: z.string() }).parse(JSON.parse(await readFile(file, 'utf8')));
  return print(`cinder-delta ${version} (node ${process.versions.node})\n`);
}
