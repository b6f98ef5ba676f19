/** Command-line flags: parsed by node:util, checked by hand, all that is wrong told at once. */
import { readFile } from 'node:fs/promises';
import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';
import { BackupError, messageOf } from '../model/errors.ts';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error'] as const;

export type Flags = {
  /** The value of a flag, or undefined if it was not given. */
  text(name: string): string | undefined;
  /** An integer from `minimum` to `maximum`. */
  integer(name: string, limits: { readonly minimum: number; readonly maximum: number }): number | undefined;
  /** One of `choices`. */
  choice<T extends string>(name: string, choices: readonly T[]): T | undefined;
  isSet(name: string): boolean;
  /** Notes something wrong that the values together are. */
  refuse(sentence: string): void;
  /** Throws `config-invalid` with every fault that was met. */
  requireValid(): void;
};

/** `names` lists the flags with a value, `switches` those without. Throws `config-invalid` for others. */
export function parseFlags(
  args: readonly string[],
  names: readonly string[],
  switches: readonly string[],
): Flags {
  const faults: string[] = [];
  const values = new Map<string, string | boolean>();
  const options: ParseArgsOptionsConfig = {};
  for (const name of names) options[name] = { type: 'string' };
  for (const name of switches) options[name] = { type: 'boolean' };
  const { tokens } = parseArgs({
    args: [...args],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  for (const token of tokens) {
    if (token.kind === 'positional') faults.push(`${token.value} is not expected here`);
    if (token.kind !== 'option') continue;
    const { name, value } = token;
    if (switches.includes(name)) {
      if (value === undefined) values.set(name, true);
      else faults.push(`--${name} takes no value`);
    } else if (!names.includes(name)) faults.push(`${token.rawName} is not known`);
    else if (value === undefined || value === '') faults.push(`--${name} needs a value`);
    else values.set(name, value);
  }

  const text = (name: string): string | undefined => {
    const value = values.get(name);
    return typeof value === 'string' ? value : undefined;
  };
  return {
    text,
    isSet: (name) => values.has(name),
    integer(name, { minimum, maximum }) {
      const value = text(name);
      if (value === undefined) return undefined;
      const number = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
      if (number >= minimum && number <= maximum) return number;
      faults.push(`--${name} is ${value}: it must be an integer from ${minimum} to ${maximum}`);
      return undefined;
    },
    choice(name, choices) {
      const value = text(name);
      if (value === undefined) return undefined;
      const found = choices.find((each) => each === value.toLowerCase());
      if (found === undefined) faults.push(`--${name} is ${value}: it must be one of ${choices.join(', ')}`);
      return found;
    },
    refuse: (sentence) => void faults.push(sentence),
    requireValid() {
      if (faults.length === 0) return;
      throw new BackupError('config-invalid', faults.map((fault) => `  ${fault}`).join('\n'), {
        details: { faults },
      });
    },
  };
}

/** Reads the file that a flag names; notes a fault if it cannot be read or is empty. */
export async function readFlagFile(flags: Flags, name: string): Promise<string | undefined> {
  const path = flags.text(name);
  if (path === undefined) return undefined;
  try {
    const content = (await readFile(path, 'utf8')).trim();
    if (content !== '') return content;
    flags.refuse(`--${name}: ${path} is empty`);
  } catch (error) {
    flags.refuse(`--${name}: ${messageOf(error)}`);
  }
  return undefined;
}
