/**
 * The option file of a MySQL URL (`read_default_file`): what the URL does not say is taken from a group of it, as PyMySQL does
 * (pymysql/optionfile.py, connections.py). TripleO and RHOSO put TLS there.
 */
import { readFile } from 'node:fs/promises';
import { messageOf } from '../model/errors.ts';
import { absolutePath } from './config-files.ts';
import { strip } from './ini-parser.ts';

/** A file, and the group in it. */
export type OptionFilePlace = { readonly path: string; readonly group: string };

export type OptionFile = OptionFilePlace & {
  readonly options: ReadonlyMap<string, string>;
  /** Why there are no options; undefined: they could be read. */
  readonly problem: string | undefined;
};

/** Reads the group. What is missing or unreadable is in `problem`: PyMySQL goes on without it. */
export async function readOptionFile(place: OptionFilePlace): Promise<OptionFile> {
  const without = (problem: string): OptionFile => ({ ...place, options: new Map(), problem });
  try {
    const options = parseOptionFile(await readFile(absolutePath(place.path), 'utf8'), place.group);
    if (options === undefined) return without(`there is no group [${place.group}] in it`);
    return { ...place, options, problem: undefined };
  } catch (error) {
    return without(messageOf(error));
  }
}

/** No value, as of `ssl` alone on a line, is null. */
type Group = Map<string, string | null>;

/**
 * The options of a group that have a value, or undefined if there is no such group. The syntax is that of Python's configparser:
 * `[group]`, `key = value` or `key: value` or `key`, comments (`#`, `;`) at the start of a line, more of a value on lines that
 * are indented further than its key; [DEFAULT] holds for every group. A dash and an underscore in a key are the same.
 */
export function parseOptionFile(text: string, group: string): ReadonlyMap<string, string> | undefined {
  const groups = new Map<string, Group>();
  let open: Group | undefined;
  let key: string | undefined;
  let indent = 0;

  const add = (more: string) => {
    const value = key === undefined ? undefined : open?.get(key);
    if (key !== undefined && typeof value === 'string') open?.set(key, `${value}\n${more}`);
  };
  for (const line of text.split(/\r\n|\r|\n/u)) {
    const content = strip(line);
    if (content === '') add('');
    if (content === '' || content.startsWith('#') || content.startsWith(';')) continue;
    const depth = line.indexOf(content);
    if (key !== undefined && depth > indent) {
      add(content);
      continue;
    }
    indent = depth;
    const name = /^\[(.+)\]/u.exec(content)?.[1];
    if (name === undefined) {
      const pair = keyAndValue(content);
      key = pair.key;
      open?.set(pair.key, pair.value);
    } else {
      key = undefined;
      open = groups.get(name) ?? new Map();
      groups.set(name, open);
    }
  }
  const own = groups.get(group);
  if (own === undefined) return undefined;
  const all = [...(groups.get('DEFAULT') ?? []), ...own];
  return new Map([...new Map(all)].flatMap(([name, value]) => filled(name, value)));
}

function keyAndValue(content: string): { readonly key: string; readonly value: string | null } {
  const at = content.search(/[=:]/u);
  const key = strip(at < 0 ? content : content.slice(0, at))
    .toLowerCase()
    .replaceAll('_', '-');
  return { key, value: at < 0 ? null : strip(content.slice(at + 1)) };
}

/** An option without a value, or with an empty one, says nothing. */
function filled(name: string, value: string | null): readonly (readonly [string, string])[] {
  const text = value?.trimEnd() ?? '';
  const quote = text.slice(0, 1);
  const isQuoted = text.length >= 2 && (quote === '"' || quote === "'") && text.endsWith(quote);
  const plain = isQuoted ? text.slice(1, -1) : text;
  return plain === '' ? [] : [[name, plain]];
}
