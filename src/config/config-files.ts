/** Reads the files of `--config-file` and `--config-dir` (every `*.conf` of it, sorted), in the order given. */
import { readdir, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { messageOf } from '../model/errors.ts';
import { parseIni, type Assignment } from './ini-parser.ts';
import type { Problem } from './problem.ts';

export type ConfigArgument =
  { readonly kind: 'file'; readonly path: string } | { readonly kind: 'directory'; readonly path: string };

export type ConfigFile = {
  readonly path: string;
  readonly assignments: readonly Assignment[];
  readonly sections: readonly string[];
};

export type ConfigFiles = { readonly files: readonly ConfigFile[]; readonly problems: readonly Problem[] };

/** Reads and parses all files; what is missing, unreadable or malformed is in `problems`. Later files win. */
export async function readConfigFiles(configArguments: readonly ConfigArgument[]): Promise<ConfigFiles> {
  const files: ConfigFile[] = [];
  const problems: Problem[] = [];
  for (const { kind, path } of configArguments) {
    const given = absolutePath(path);
    const paths = kind === 'file' ? [given] : await listDirectory(given, problems);
    for (const file of paths) {
      const text = await readText(file, problems);
      if (text !== undefined) files.push(parseConfigFile(file, text, problems));
    }
  }
  return { files, problems };
}

/** Parses one file's text, adding what is wrong with it to `problems`. */
export function parseConfigFile(path: string, text: string, problems: Problem[]): ConfigFile {
  const { assignments, sections, problems: syntax } = parseIni(text);
  // The text of the line is not shown: it may hold a password.
  for (const { line, reason } of syntax) {
    problems.push({ file: path, line, reason: `the line cannot be read: ${reason}` });
  }
  return { path, assignments, sections };
}

/** Relative to the working directory, or to the home directory after `~`. */
export function absolutePath(path: string): string {
  return resolve(path === '~' || path.startsWith('~/') ? join(homedir(), path.slice(1)) : path);
}

async function listDirectory(path: string, problems: Problem[]): Promise<string[]> {
  try {
    const names = await readdir(path);
    return names
      .filter((name) => name.endsWith('.conf') && !name.startsWith('.'))
      .toSorted()
      .map((name) => join(path, name));
  } catch (error) {
    problems.push({ file: path, reason: `the configuration directory cannot be read: ${messageOf(error)}` });
    return [];
  }
}

async function readText(path: string, problems: Problem[]): Promise<string | undefined> {
  try {
    const bytes = await readFile(path);
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    const reason = error instanceof TypeError ? 'it is not UTF-8 text' : messageOf(error);
    problems.push({ file: path, reason: `the configuration file cannot be read: ${reason}` });
    return undefined;
  }
}
