/** The real `cinder` client, and what its tables say. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { clientEnvironment, type StageSettings } from './settings.ts';

export type Row = Readonly<Record<string, string>>;

export type CinderClient = {
  /** Runs the command; what it prints. Throws with its standard error if it fails. */
  run(...args: readonly string[]): Promise<string>;
  /** Of a command that prints a table of properties. */
  show(...args: readonly string[]): Promise<Row>;
  /** Of a command that prints a table of things. */
  list(...args: readonly string[]): Promise<readonly Row[]>;
  /** Runs a command that must fail; its standard error. */
  refused(...args: readonly string[]): Promise<string>;
};

const commandTimeoutMs = 180_000;

export function createCinderClient(settings: StageSettings, user: 'admin' | 'demo'): CinderClient {
  const env = { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', ...clientEnvironment(settings, user) };
  const run = async (...args: readonly string[]): Promise<string> => {
    const options = { env, timeout: commandTimeoutMs, maxBuffer: 16 * 1024 ** 2 };
    const { stdout } = await promisify(execFile)('/usr/bin/cinder', [...args], options);
    return stdout;
  };
  return {
    run,
    async show(...args) {
      const rows = tableOf(await run(...args));
      return Object.fromEntries(rows.slice(1).map(([name = '', value = '']) => [name, value]));
    },
    async list(...args) {
      const [header = [], ...rows] = tableOf(await run(...args));
      return rows.map((row) => Object.fromEntries(header.map((name, index) => [name, row[index] ?? ''])));
    },
    async refused(...args) {
      const output = await run(...args).catch((error: unknown) => ({ error }));
      if (typeof output === 'string') throw new Error(`cinder ${args.join(' ')} did not fail: ${output}`);
      const { error } = output;
      return error instanceof Error && 'stderr' in error ? String(error.stderr) : String(error);
    },
  };
}

/** The cells of the first table in the text, its header first. */
function tableOf(text: string): readonly (readonly string[])[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) =>
      line
        .slice(1, line.lastIndexOf('|'))
        .split(' | ')
        .map((cell) => cell.trim()),
    );
}
